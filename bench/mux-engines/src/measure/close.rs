//! How a stream ends: one direction in order, or all of it at once.

use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Link, connect};
use crate::engine::{Acceptor, Engine, MuxStream, Opener};
use crate::pattern::{PIECE, Pattern};

/// Loopback: what has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Serialize)]
pub struct Close {
    /// The end of one direction arrives, and 1 MiB still flows the other way.
    pub half_close: bool,
    /// A reader sees something else after a reset than after an orderly end.
    pub reset_differs: bool,
    /// What a reader sees after a reset.
    pub reset_reads_as: String,
    /// What a writer sees after the other end's reset.
    pub reset_writes_as: String,
}

/// Both checks, on loopback TCP.
///
/// # Errors
/// When a stream fails where none of the checks expects it.
pub async fn measure<E: Engine>(engine: E) -> io::Result<Close> {
    let half_close = matches!(timeout(PATIENCE, half_close(engine)).await, Ok(Ok(())));
    let (mut client, mut server, _ends) = stream(engine).await?;
    client.shutdown().await?;
    let orderly = describe(timeout(PATIENCE, server.read_u8()).await);

    let (client, mut server, _ends) = stream(engine).await?;
    client.reset();
    let reset_reads_as = describe(timeout(PATIENCE, server.read_u8()).await);
    let reset_writes_as = describe(timeout(PATIENCE, server.write_all(&[0; 1000])).await);
    Ok(Close {
        half_close,
        reset_differs: reset_reads_as != orderly,
        reset_reads_as,
        reset_writes_as,
    })
}

/// A stream over which one byte has gone each way, and what keeps it alive.
async fn stream<E: Engine>(
    engine: E,
) -> io::Result<(
    <E::Opener as Opener>::Stream,
    <E::Acceptor as Acceptor>::Stream,
    (E::Opener, E::Acceptor),
)> {
    let (mut opener, mut acceptor) = connect(engine, Link::Loopback).await?;
    let mut client = opener.open().await?;
    client.write_u8(1).await?;
    client.flush().await?;
    let accepted = acceptor.accept().await?;
    let mut server = accepted.ok_or(io::ErrorKind::UnexpectedEof)?;
    server.read_u8().await?;
    server.write_u8(1).await?;
    server.flush().await?;
    client.read_u8().await?;
    Ok((client, server, (opener, acceptor)))
}

async fn half_close<E: Engine>(engine: E) -> io::Result<()> {
    let (mut client, mut server, _ends) = stream(engine).await?;
    client.write_all(b"last words").await?;
    client.shutdown().await?;
    let mut words = Vec::new();
    server.read_to_end(&mut words).await?;
    if words != b"last words" {
        return Err(io::Error::other("the last words were lost"));
    }
    let answer = tokio::spawn(async move {
        let mut pattern = Pattern::new(9);
        for _ in 0..16 {
            server.write_all(pattern.next(PIECE)).await?;
            pattern.advance(PIECE);
        }
        server.shutdown().await
    });
    let mut all = Vec::new();
    client.read_to_end(&mut all).await?;
    answer.await??;
    if all.len() != 16 * PIECE {
        return Err(io::Error::other("the answer is not complete"));
    }
    Pattern::new(9).check(&all)
}

/// What happened, in a word. `read_u8` calls an end of the stream by the kind `UnexpectedEof`.
fn describe<T>(result: Result<io::Result<T>, tokio::time::error::Elapsed>) -> String {
    match result {
        Ok(Ok(_)) => "success".to_owned(),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => "end".to_owned(),
        Ok(Err(error)) => format!("{:?}", error.kind()),
        Err(_) => "nothing".to_owned(),
    }
}
