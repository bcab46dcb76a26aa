//! Echoes: round trips on one connection, and the time to open a connection and get its
//! first echo, one after the other or many at a time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::pattern::{PIECE, Pattern};
use super::protocol::{HEADER, Header, Work};
use super::statistics::{round, summary};
use super::{LoadError, broken, connect, within};

/// Round trips before the first that is measured.
const WARM_UP: u64 = 50;
/// Limit of one opening.
const OPEN: Duration = Duration::from_secs(20);

/// `count` round trips of `size` bytes on one connection.
///
/// # Errors
/// [`LoadError`].
pub async fn ping(to: SocketAddr, size: u32, count: u64) -> Result<Value, LoadError> {
    let bytes = u64::from(size);
    if bytes == 0 || bytes > PIECE as u64 {
        return Err(LoadError::Usage("a ping has 1 to 262144 bytes"));
    }
    let pattern = Pattern::default();
    let rounds = count + WARM_UP;
    let mut socket = connect(to).await?;
    let header = Header {
        work: Work::Echo,
        length: bytes * rounds,
        phase: 0,
    };
    let lost = broken("it was opened");
    socket.write_all(&header.to_bytes()).await.map_err(lost)?;
    let mut times = Vec::new();
    let mut echo = vec![0; size as usize];
    for number in 0..rounds {
        let from = Instant::now();
        round_trip(&mut socket, &pattern, number * bytes, &mut echo).await?;
        if number >= WARM_UP {
            times.push(from.elapsed());
        }
    }
    Ok(summary(times))
}

async fn round_trip(
    socket: &mut TcpStream,
    pattern: &Pattern,
    position: u64,
    echo: &mut [u8],
) -> Result<(), LoadError> {
    let lost = broken("an echo was awaited");
    let sent = pattern.at(0, position, echo.len() as u64);
    socket.write_all(sent).await.map_err(&lost)?;
    socket.read_exact(echo).await.map_err(&lost)?;
    pattern.check(0, position, echo)
}

/// Opens a connection that echoes `length` bytes, and waits for the echo of the first.
///
/// # Errors
/// [`LoadError`].
pub async fn first_echo(to: SocketAddr, length: u64) -> Result<TcpStream, LoadError> {
    let mut socket = connect(to).await?;
    let header = Header {
        work: Work::Echo,
        length,
        phase: 0,
    };
    let mut bytes = [0x5a; HEADER + 1];
    for (place, byte) in bytes.iter_mut().zip(header.to_bytes()) {
        *place = byte;
    }
    let lost = broken("its first echo was awaited");
    socket.write_all(&bytes).await.map_err(&lost)?;
    if socket.read_u8().await.map_err(&lost)? != 0x5a {
        return Err(LoadError::Wrong { at: 0 });
    }
    Ok(socket)
}

/// Opens a connection, gets an echo, and ends the connection in order.
async fn open_one(to: SocketAddr) -> Result<Duration, LoadError> {
    let from = Instant::now();
    let socket = within(OPEN, "an opening", first_echo(to, 1)).await?;
    let time = from.elapsed();
    // Everything was read, so this sends FIN, not RST.
    drop(socket);
    Ok(time)
}

/// `count` openings, one after the other.
///
/// # Errors
/// [`LoadError`] of the first that fails.
pub async fn open(to: SocketAddr, count: u64) -> Result<Value, LoadError> {
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(open_one(to).await?);
    }
    Ok(summary(times))
}

/// Openings, `concurrency` at a time, for `seconds`. Failures are counted.
///
/// # Errors
/// [`LoadError`] of the first failure when all failed.
pub async fn opens(
    to: SocketAddr,
    concurrency: u32,
    seconds: f64,
    most: u64,
) -> Result<Value, LoadError> {
    let started = Instant::now();
    let patience = Duration::try_from_secs_f64(seconds)
        .map_err(|_| LoadError::Usage("that is no number of seconds"))?;
    let share = most / u64::from(concurrency.max(1));
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency {
        tasks.spawn(async move {
            let (mut times, mut errors) = (Vec::new(), Vec::new());
            while started.elapsed() < patience && (times.len() as u64) < share {
                match open_one(to).await {
                    Ok(time) => times.push(time),
                    Err(error) => errors.push(error),
                }
                // The chain does not work: stop early.
                if errors.len() > 100 {
                    break;
                }
            }
            (times, errors)
        });
    }
    let (mut times, mut errors) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (more, failed) = done.map_err(|_| LoadError::Lost)?;
        times.extend(more);
        errors.extend(failed);
    }
    let took = started.elapsed().as_secs_f64();
    let failed = errors.len();
    let first = errors.into_iter().next();
    if times.is_empty() {
        return Err(first.unwrap_or(LoadError::Usage("no opening was asked for")));
    }
    let per_second = round(times.len() as f64 / took);
    let mut result = summary(times);
    if let Some(result) = result.as_object_mut() {
        result.insert("seconds".into(), json!(took));
        result.insert("per_second".into(), json!(per_second));
        result.insert("errors".into(), json!(failed));
        result.insert("first_error".into(), json!(first.map(|e| e.to_string())));
    }
    Ok(result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::serve;
    use super::*;

    #[tokio::test]
    async fn pings_and_openings_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(serve::run(listener, std::future::pending()));
        assert_eq!(ping(to, 64, 20).await.unwrap()["count"], 20);
        assert_eq!(open(to, 5).await.unwrap()["count"], 5);
        let many = opens(to, 4, 60.0, 40).await.unwrap();
        assert_eq!(many["count"], 40);
        assert_eq!(many["errors"], 0);
    }

    #[tokio::test]
    async fn without_a_listener_there_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        drop(listener);
        assert!(open(to, 1).await.is_err());
        assert!(opens(to, 2, 5.0, 10).await.is_err());
    }
}
