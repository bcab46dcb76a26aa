//! Whether many small messages that nobody reads harm the other streams.

use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::stall::request;
use super::{Job, Link, begin, connect, serve};
use crate::engine::{Engine, Opener};

/// What has not gone on by then does not, on loopback.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Small {
    /// How many were written before the writer had to wait, or failed.
    pub written: u32,
    /// Another stream still answers.
    pub goes_on: bool,
}

/// Writes up to `messages` of one byte each, one by one, to a stream that nobody reads, over loopback TCP; then makes
/// one request on another.
///
/// # Errors
/// When a stream fails before that.
pub async fn measure<E: Engine>(engine: E, messages: u32) -> io::Result<Small> {
    let (mut opener, acceptor) = connect(engine, Link::Loopback).await?;
    serve(acceptor);
    let mut other = opener.open().await?;
    begin(&mut other, Job::Echo, 0).await?;
    request(&mut other).await?;
    let mut unread = opener.open().await?;
    begin(&mut unread, Job::Hold, 1).await?;
    unread.read_u8().await?;

    let mut written = 0;
    while written < messages {
        let message = async {
            unread.write_all(&[1]).await?;
            unread.flush().await
        };
        if !matches!(timeout(PATIENCE, message).await, Ok(Ok(()))) {
            break;
        }
        written += 1;
        // As from a person or a sensor: the engine gets to send each by itself.
        tokio::task::yield_now().await;
        if written % 16 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let answer = timeout(PATIENCE, request(&mut other)).await;
    Ok(Small {
        written,
        goes_on: matches!(answer, Ok(Ok(()))),
    })
}
