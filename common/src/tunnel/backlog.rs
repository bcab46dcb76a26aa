//! Bytes that were written to a socket and that the system has not sent yet. A reset destroys them,
//! and so does a close while the peer still sends: before either, there must be none.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, Sleep, sleep};

use crate::limits;
use crate::tls::stream::{End, TlsStream};

/// How often a delivery is polled: no event reports that the system has sent everything.
const LOOK: Duration = Duration::from_millis(100);

/// Represents a backlog of unknown size: the system reports the size only when a third of the
/// socket's buffer is free.
const MUCH: usize = 16 << 20;
/// How many times longer a delivery may take whose progress is unknown.
const BLIND: u32 = 4;

/// A byte stream that knows what the system has not sent yet.
pub trait Backlog {
    /// Bytes that are not sent, to within some KiB; 0 where that is unknown. Takes about a dozen
    /// system calls if it is not 0.
    fn backlog(&self) -> usize;
}

impl Backlog for TcpStream {
    fn backlog(&self) -> usize {
        unsent(self)
    }
}

impl<S: Backlog, E: End> Backlog for TlsStream<S, E> {
    fn backlog(&self) -> usize {
        self.get_ref().0.backlog()
    }
}

/// In memory, everything that was written can be read.
impl Backlog for DuplexStream {
    fn backlog(&self) -> usize {
        0
    }
}

/// The system does not report the size, only whether it is below a threshold that can be set
/// (`TCP_NOTSENT_LOWAT`; a poll compares it with twice the unsent bytes). So the size is found by
/// bisection.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn unsent(socket: &TcpStream) -> usize {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use socket2::SockRef;

    const GRAIN: u32 = 8 << 10;
    let is_below = |mark: u32| {
        if SockRef::from(socket).set_tcp_notsent_lowat(mark).is_err() {
            return true;
        }
        let mut polled = [PollFd::new(socket, PollFlags::OUT)];
        match poll(&mut polled, Some(&Timespec::default())) {
            // A socket that has failed holds nothing that could still arrive.
            Ok(_) => polled
                .iter()
                .any(|one| one.revents().intersects(PollFlags::OUT | PollFlags::ERR)),
            Err(_) => true,
        }
    };
    if is_below(1) {
        let _ = SockRef::from(socket).set_tcp_notsent_lowat(0);
        return 0;
    }
    let (mut least, mut most) = (0u32, 2 * MUCH as u32);
    while most - least > GRAIN {
        let middle = least.midpoint(most);
        if is_below(middle) {
            most = middle;
        } else {
            least = middle;
        }
    }
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(0);
    (most / 2) as usize
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unsent(_: &TcpStream) -> usize {
    0
}

/// Detects whether a delivery still makes progress, from its creation on.
pub struct Delivery {
    seen: (u64, usize),
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            seen: (0, 0),
            moved: Instant::now(),
            timer: Box::pin(sleep(LOOK)),
        }
    }
}

impl Delivery {
    /// Ready when neither figure has changed for [`limits::LEG_DELIVER`]: the bytes that were
    /// forwarded or dropped so far, and those that wait. They are polled every 100 ms.
    pub fn poll_stuck(
        &mut self,
        cx: &mut Context<'_>,
        figures: impl Fn() -> (u64, usize),
    ) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let seen = figures();
            if seen != self.seen {
                (self.seen, self.moved) = (seen, now);
            }
            let patience = if seen.1 >= MUCH { BLIND } else { 1 };
            if now >= self.moved + patience * limits::LEG_DELIVER {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(now + LOOK);
        }
    }
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn bytes_that_a_slow_reader_has_not_taken_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut writer = TcpStream::connect(address).await.unwrap();
        let (mut reader, _) = listener.accept().await.unwrap();
        assert_eq!(writer.backlog(), 0);
        writer.write_all(b"few").await.unwrap();
        assert_eq!(writer.backlog(), 0, "they are in the reader's buffer");
        let piece = [7; 64 << 10];
        let mut written = 3;
        let full = async {
            loop {
                written += writer.write(&piece).await.unwrap();
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), full).await;
        let held = writer.backlog();
        assert!(held > 0, "{written} bytes were taken");
        let mut taken = vec![0; written];
        reader.read_exact(&mut taken).await.unwrap();
        while writer.backlog() > 0 {
            tokio::task::yield_now().await;
        }
        drop(reader);
        assert_eq!(writer.backlog(), 0);
    }
}
