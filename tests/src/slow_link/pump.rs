//! One direction of a connection: chunks, each with the time at which it is due.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Size of a chunk, in bytes.
pub const CHUNK: usize = 16 << 10;

/// State shared by all directions.
pub struct Line {
    /// Bytes in flight in one direction, at least two chunks.
    pub buffer: usize,
    /// Delay of each byte.
    pub delay: watch::Sender<Duration>,
    /// Whether delivery is frozen.
    pub frozen: watch::Sender<bool>,
}

impl Line {
    /// A line that is not frozen.
    pub fn new(delay: Duration, buffer: usize) -> Self {
        Self {
            buffer: buffer.max(2 * CHUNK),
            delay: watch::Sender::new(delay),
            frozen: watch::Sender::new(false),
        }
    }

    /// Waits while it is frozen.
    pub async fn thawed(&self) {
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }
}

/// An item in flight.
enum Freight {
    Bytes(Vec<u8>, OwnedSemaphorePermit),
    End,
    /// The sender's connection failed.
    Broken(io::Error),
}

/// Forwards one direction to its end; `count` is called for each chunk that is read.
///
/// # Errors
/// When either connection fails.
pub async fn pump(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    line: &Line,
    count: impl Fn(u64),
) -> io::Result<()> {
    // Unbounded: the semaphore limits what it holds.
    let (loaded, mut arriving) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(line.buffer));
    let load = async {
        loop {
            let room = Arc::clone(&room).acquire_many_owned(CHUNK as u32).await;
            let mut room = room.map_err(io::Error::other)?;
            let mut chunk = vec![0; CHUNK];
            let freight = match reader.read(&mut chunk).await {
                Ok(0) => Freight::End,
                Ok(length) => {
                    chunk.truncate(length);
                    count(length as u64);
                    Freight::Bytes(chunk, room.split(length).unwrap())
                }
                Err(error) => Freight::Broken(error),
            };
            let is_last = !matches!(freight, Freight::Bytes(..));
            let due = Instant::now() + *line.delay.borrow();
            if loaded.send((due, freight)).is_err() || is_last {
                return Ok(());
            }
        }
    };
    let unload = async {
        while let Some((due, freight)) = arriving.recv().await {
            sleep_until(due).await;
            line.thawed().await;
            match freight {
                Freight::Bytes(chunk, room) => {
                    writer.write_all(&chunk).await?;
                    drop(room);
                }
                Freight::End => return writer.shutdown().await,
                Freight::Broken(error) => return Err(error),
            }
        }
        Ok(())
    };
    tokio::try_join!(load, unload)?;
    Ok(())
}
