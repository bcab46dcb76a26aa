//! Bulk transfer: the rate at which bytes arrive, with a check of every byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::pattern::{PIECE, Pattern};
use super::protocol::{self, Header, Work};
use super::statistics::round;
use super::{LoadError, broken, connect};

/// The direction of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// To the daemon.
    Up,
    /// From the daemon.
    Down,
}

/// Moves `bytes` over all connections together; returns the rate from the first byte sent to the
/// last one checked. All connections are opened before that.
///
/// # Errors
/// [`LoadError`] of the first connection that fails.
pub async fn run(
    to: SocketAddr,
    direction: Direction,
    connections: u32,
    bytes: u64,
) -> Result<Value, LoadError> {
    let share = bytes / u64::from(connections.max(1));
    if share == 0 {
        return Err(LoadError::Usage("every connection needs a byte at least"));
    }
    let pattern = Arc::new(Pattern::default());
    let start = Arc::new(Barrier::new(usize::try_from(connections).unwrap_or(1)));
    let mut tasks = JoinSet::new();
    for phase in 0..connections {
        let (pattern, start) = (Arc::clone(&pattern), Arc::clone(&start));
        tasks.spawn(async move {
            let header = Header {
                work: match direction {
                    Direction::Up => Work::Sink,
                    Direction::Down => Work::Source,
                },
                length: share,
                phase,
            };
            one(to, header, &pattern, &start).await
        });
    }
    let (mut first, mut last) = (None::<Instant>, None::<Instant>);
    while let Some(done) = tasks.join_next().await {
        let (from, until) = done.map_err(|_| LoadError::Lost)??;
        first = Some(first.map_or(from, |first| first.min(from)));
        last = Some(last.map_or(until, |last| last.max(until)));
    }
    let (Some(first), Some(last)) = (first, last) else {
        return Err(LoadError::Usage("there must be a connection at least"));
    };
    let seconds = (last - first).as_secs_f64();
    let moved = share * u64::from(connections);
    let rate = moved as f64 / f64::from(1 << 20) / seconds;
    Ok(json!({
        "bytes": moved,
        "connections": connections,
        "seconds": seconds,
        "mib_per_second": round(rate),
    }))
}

/// When the first byte was sent, and when the last was checked.
async fn one(
    to: SocketAddr,
    header: Header,
    pattern: &Pattern,
    start: &Barrier,
) -> Result<(Instant, Instant), LoadError> {
    let mut socket = connect(to).await?;
    let lost = broken("it was opened");
    socket.write_all(&header.to_bytes()).await.map_err(&lost)?;
    if socket.read_u8().await.map_err(&lost)? != protocol::READY {
        return Err(LoadError::Stranger);
    }
    start.wait().await;
    let from = Instant::now();
    if header.work == Work::Sink {
        upload(&mut socket, header, pattern).await?;
    } else {
        download(&mut socket, header, pattern).await?;
    }
    Ok((from, Instant::now()))
}

async fn upload(
    socket: &mut TcpStream,
    header: Header,
    pattern: &Pattern,
) -> Result<(), LoadError> {
    // An early verdict states why the rest cannot be sent.
    let (mut reader, mut writer) = socket.split();
    let mut send = std::pin::pin!(async {
        let mut done = 0;
        while done < header.length {
            let piece = pattern.at(header.phase, done, header.length - done);
            done += writer.write(piece).await? as u64;
        }
        Ok(())
    });
    let mut verdict = std::pin::pin!(protocol::read_verdict(&mut reader, header.length));
    tokio::select! {
        sent = &mut send => sent.map_err(broken("an upload was sent"))?,
        early = &mut verdict => return early.and(Err(LoadError::Stranger)),
    }
    verdict.await
}

async fn download(
    socket: &mut TcpStream,
    header: Header,
    pattern: &Pattern,
) -> Result<(), LoadError> {
    let lost = broken("a download was received");
    socket.write_all(&[protocol::GO]).await.map_err(&lost)?;
    let mut buffer = vec![0; PIECE];
    let mut done = 0;
    while done < header.length {
        let count = socket.read(&mut buffer).await.map_err(&lost)?;
        if count == 0 {
            return Err(lost(std::io::ErrorKind::UnexpectedEof.into()));
        }
        pattern.check(header.phase, done, buffer.get(..count).unwrap_or_default())?;
        done += count as u64;
    }
    if done > header.length {
        return Err(LoadError::Wrong { at: header.length });
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::serve;
    use super::*;

    #[tokio::test]
    async fn both_ways_over_one_and_several_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let daemon = tokio::spawn(serve::run(listener, std::future::pending()));
        for direction in [Direction::Up, Direction::Down] {
            for connections in [1, 3] {
                let result = run(to, direction, connections, 3_000_001).await.unwrap();
                assert_eq!(
                    result["bytes"],
                    3_000_001 / u64::from(connections) * u64::from(connections)
                );
            }
        }
        daemon.abort();
    }

    #[tokio::test]
    async fn a_changed_byte_is_an_error_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        tokio::spawn(serve::run(listener, std::future::pending()));
        for direction in [Direction::Up, Direction::Down] {
            let bad = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = bad.local_addr().unwrap();
            tokio::spawn(async move {
                let (near, _) = bad.accept().await.unwrap();
                let far = connect(target).await.unwrap();
                let ((from_near, to_near), (from_far, to_far)) =
                    (near.into_split(), far.into_split());
                tokio::join!(
                    spoil(from_near, to_far, direction == Direction::Up),
                    spoil(from_far, to_near, direction == Direction::Down),
                );
            });
            let error = run(to, direction, 1, 1 << 20).await.unwrap_err();
            assert!(matches!(error, LoadError::Wrong { .. }), "{error}");
        }
    }

    /// Forwards bytes, and changes one of them if `wanted`.
    async fn spoil(
        mut from: impl tokio::io::AsyncRead + Unpin,
        mut to: impl tokio::io::AsyncWrite + Unpin,
        wanted: bool,
    ) {
        let mut buffer = vec![0; 1 << 16];
        let mut seen = 0;
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            if wanted && (seen..seen + count).contains(&500_000) {
                buffer[500_000 - seen] ^= 1;
            }
            seen += count;
            if to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }
}
