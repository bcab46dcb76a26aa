//! The two byte streams that engines run on: loopback TCP, and a link with a delay, a rate and a backlog.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep_until};

/// One-way delay of the link.
pub const DELAY: Duration = Duration::from_millis(25);
/// Rate of the link in each direction: 100 Mbit/s, in bytes a second.
pub const RATE: u64 = 100_000_000 / 8;
/// What a sender's socket takes before a write waits, in bytes.
pub const SOCKET_BUFFER: u64 = 512 * 1024;
/// The queue in the link: one bandwidth-delay product (of the round trip), in bytes.
pub const LINK_QUEUE: u64 = RATE / 1000 * 2 * 25;
/// A backlog kept short: 5 ms of the link, in bytes.
pub const SHORT_BACKLOG: u64 = 64 * 1024;
/// What may have arrived and wait for its reader, in bytes.
const RECEIVE_BUFFER: u64 = 4 * 1024 * 1024;
/// A write that waited goes on once there is room for this much, so that a full queue does not mean a wake-up for
/// every packet, in bytes.
const ROOM: u64 = 16 * 1024;
/// The link delivers in pieces of this size, in bytes: 0.66 ms.
const PIECE: usize = 8 * 1024;

/// Two connected loopback sockets, with no delay of small segments.
///
/// # Errors
/// What the operating system says.
pub async fn loopback() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (client, server) = tokio::try_join!(
        TcpStream::connect(listener.local_addr()?),
        listener.accept()
    )?;
    client.set_nodelay(true)?;
    server.0.set_nodelay(true)?;
    Ok((client, server.0))
}

/// The two ends of a shaped link, each of which takes `backlog` bytes that have not left yet.
pub fn shaped(backlog: u64) -> (End, End) {
    let there = Arc::new(Mutex::new(Direction::default()));
    let back = Arc::new(Mutex::new(Direction::default()));
    (
        End::new(Arc::clone(&there), Arc::clone(&back), backlog),
        End::new(back, there, backlog),
    )
}

/// One end of a shaped link.
///
/// Each direction is one queue with a rate: what is written leaves the queue when all before it has left, and
/// arrives a delay later. A write waits while the queue is full. So the sender is one that keeps the bottleneck's queue full, as TCP does when nothing is lost.
pub struct End {
    out: Arc<Mutex<Direction>>,
    into: Arc<Mutex<Direction>>,
    backlog: u64,
    room: Pin<Box<Sleep>>,
    arrival: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct Direction {
    /// What was written and not yet read, with the time at which it arrives.
    pieces: VecDeque<(Instant, Vec<u8>)>,
    /// How much of the first piece was read, in bytes.
    read: usize,
    /// The sum of what is in `pieces`, unread, in bytes.
    unread: u64,
    /// When the last byte written so far has left the queue.
    leaves: Option<Instant>,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl End {
    fn new(out: Arc<Mutex<Direction>>, into: Arc<Mutex<Direction>>, backlog: u64) -> Self {
        Self {
            out,
            into,
            backlog,
            room: Box::pin(sleep_until(Instant::now())),
            arrival: Box::pin(sleep_until(Instant::now())),
        }
    }
}

fn transmission(bytes: u64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / RATE)
}

impl Direction {
    /// What waits to leave at `now`, in bytes.
    fn backlog(&self, now: Instant) -> u64 {
        let wait = self.leaves.map_or(Duration::ZERO, |leaves| {
            leaves.saturating_duration_since(now)
        });
        u64::try_from(wait.as_nanos() * u128::from(RATE) / 1_000_000_000).unwrap_or(u64::MAX)
    }

    fn put(&mut self, data: &[u8], now: Instant) {
        for piece in data.chunks(PIECE) {
            let start = self.leaves.map_or(now, |leaves| leaves.max(now));
            let leaves = start + transmission(piece.len() as u64);
            self.leaves = Some(leaves);
            self.pieces.push_back((leaves + DELAY, piece.to_vec()));
            self.unread += piece.len() as u64;
        }
        wake(&mut self.reader);
    }

    /// Moves what has arrived into `buf`; the time of the next arrival, where there is one.
    fn take(&mut self, buf: &mut ReadBuf<'_>, now: Instant) -> Option<Instant> {
        while let Some((arrival, piece)) = self.pieces.front() {
            if *arrival > now {
                return Some(*arrival);
            }
            let rest = piece.get(self.read..).unwrap_or_default();
            let taken = rest.get(..buf.remaining()).unwrap_or(rest);
            if taken.is_empty() {
                break;
            }
            buf.put_slice(taken);
            self.unread = self.unread.saturating_sub(taken.len() as u64);
            if taken.len() == rest.len() {
                self.read = 0;
                self.pieces.pop_front();
            } else {
                self.read += taken.len();
            }
        }
        None
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut into = this.into.lock().unwrap_or_else(PoisonError::into_inner);
            let before = buf.filled().len();
            let next = into.take(buf, Instant::now());
            if buf.filled().len() > before {
                wake(&mut into.writer);
                return Poll::Ready(Ok(()));
            }
            let Some(next) = next else {
                if into.ended && into.pieces.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                into.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            drop(into);
            this.arrival.as_mut().reset(next);
            std::task::ready!(this.arrival.as_mut().poll(cx));
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            let now = Instant::now();
            let mut out = this.out.lock().unwrap_or_else(PoisonError::into_inner);
            if out.ended {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let flight = RATE / 1000 * 25;
            if out.unread >= this.backlog + flight + RECEIVE_BUFFER {
                out.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let room = this.backlog.saturating_sub(out.backlog(now));
            if room < ROOM.min(buf.len() as u64) {
                let wait = transmission(ROOM - room);
                drop(out);
                this.room.as_mut().reset(now + wait);
                std::task::ready!(this.room.as_mut().poll(cx));
                continue;
            }
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let taken = buf.get(..room).unwrap_or(buf);
            out.put(taken, now);
            return Poll::Ready(Ok(taken.len()));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.ended = true;
        wake(&mut out.reader);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        for direction in [&self.out, &self.into] {
            let mut direction = direction.lock().unwrap_or_else(PoisonError::into_inner);
            direction.ended = true;
            wake(&mut direction.reader);
            wake(&mut direction.writer);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_link_keeps_its_delay_its_rate_and_its_backlog() {
        let (mut client, mut server) = shaped(SOCKET_BUFFER + LINK_QUEUE);
        let start = Instant::now();
        client.write_all(b"key").await.unwrap();
        let mut key = [0; 3];
        server.read_exact(&mut key).await.unwrap();
        let late = start.elapsed();
        assert!(
            late >= DELAY && late < DELAY + Duration::from_millis(3),
            "{late:?}"
        );

        // The backlog is taken at once, and the next write waits.
        let start = Instant::now();
        let backlog = vec![7; usize::try_from(SOCKET_BUFFER + LINK_QUEUE).unwrap()];
        client.write_all(&backlog).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        let (sent, received) = tokio::join!(client.write_all(&backlog), async {
            let mut all = vec![0; 2 * backlog.len()];
            server.read_exact(&mut all).await.map(|_| all)
        });
        sent.unwrap();
        assert!(received.unwrap().iter().all(|byte| *byte == 7));
        let expected = transmission(2 * backlog.len() as u64) + DELAY;
        let took = start.elapsed();
        assert!(
            took >= expected && took < expected + Duration::from_millis(3),
            "{took:?}"
        );

        drop(client);
        assert_eq!(server.read(&mut key).await.unwrap(), 0);
    }
}
