//! A target's socket that is read and written no faster than the rules say.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use common::session::ConnectionSocket;
use common::tunnel::LocalSocket;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::gates::{Gate, Place};
use crate::target::Reached;

/// Bytes that are copied at once, however low the rate is.
const LEAST: u64 = 256;
/// After that, the rate may be another one.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// The gates that a socket has to pass.
struct Passed {
    /// Of the rules for all targets.
    all: Arc<Gate>,
    /// Has the gate of its own rules, which come, change and go.
    place: Arc<Place>,
}

impl Passed {
    /// How many bytes may be copied at once, if it is limited: a fraction of a second's, so that it
    /// flows.
    fn at_once(&self) -> Option<usize> {
        let own = self.place.limiting().and_then(|gate| gate.rate());
        let rate = own.into_iter().chain(self.all.rate()).min()?;
        usize::try_from((rate / 8).max(LEAST)).ok()
    }

    /// The longest of what has to be waited for at a gate with a rate.
    fn wait(&self, at: impl Fn(&Gate, u64) -> Duration) -> Duration {
        let own = self.place.limiting();
        let waits = own.iter().chain([&self.all]);
        let waits = waits.filter_map(|gate| Some(at(gate, gate.rate()?)));
        waits.max().unwrap_or_default()
    }
}

/// A socket that passes them.
pub(super) struct Throttled {
    inner: Reached,
    gates: Passed,
    /// The debts of both directions.
    reading: Debt,
    writing: Debt,
}

/// What has to be waited for before more is copied in one direction.
#[derive(Default)]
struct Debt {
    /// Beside the sleep; `None` before anything was copied.
    left: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Debt {
    /// `owed` is what all together have to wait for now: a rate that was raised or taken away
    /// meanwhile, and what others had taken before the first byte.
    fn poll_paid(&mut self, cx: &mut Context<'_>, owed: impl Fn() -> Duration) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            let left = match self.left {
                Some(Duration::ZERO) => return Poll::Ready(()),
                Some(left) => left.min(owed()),
                None => owed(),
            };
            self.owe(left);
        }
    }

    fn owe(&mut self, wait: Duration) {
        let part = wait.min(LONGEST_SLEEP);
        self.left = Some(wait.saturating_sub(part));
        if !part.is_zero() {
            self.sleep = Some(Box::pin(sleep(part)));
        }
    }
}

impl Throttled {
    pub(super) fn new(inner: Reached, all: Arc<Gate>, place: Arc<Place>) -> Self {
        Self {
            inner,
            gates: Passed { all, place },
            reading: Debt::default(),
            writing: Debt::default(),
        }
    }
}

impl AsyncRead for Throttled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { gates, reading, .. } = &mut *self;
        let owed = || gates.wait(|gate, rate| gate.from_target.owed(rate));
        ready!(reading.poll_paid(cx, owed));
        let before = buffer.filled().len();
        if let Some(most) = self.gates.at_once() {
            let room = buffer.remaining().min(most);
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
        } else {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        }
        let count = buffer.filled().len().saturating_sub(before);
        let gates = &self.gates;
        let wait = gates.wait(|gate, rate| gate.from_target.charge(count, rate));
        self.reading.owe(wait);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Throttled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { gates, writing, .. } = &mut *self;
        let owed = || gates.wait(|gate, rate| gate.to_target.owed(rate));
        ready!(writing.poll_paid(cx, owed));
        let some = self.gates.at_once().and_then(|most| bytes.get(..most));
        let some = some.unwrap_or(bytes);
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, some))?;
        let gates = &self.gates;
        let wait = gates.wait(|gate, rate| gate.to_target.charge(count, rate));
        self.writing.owe(wait);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl ConnectionSocket for Throttled {
    fn arm(&self) {
        self.inner.arm();
    }

    fn disarm(&self) {
        self.inner.disarm();
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_readable(cx)
    }
}

impl LocalSocket for Throttled {
    fn backlog(&self) -> usize {
        self.inner.backlog()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn both_directions_keep_to_the_rate_and_lose_nothing() {
        let gate = Arc::new(Gate::default());
        gate.set_rate(Some(10_000));
        let sent: Vec<u8> = (0..40_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let socket: Reached = Box::new(crate::echo::socket(false));
        let mut socket = Throttled::new(socket, Arc::clone(&gate), Arc::default());
        let started = Instant::now();
        let (mut reader, mut writer) = tokio::io::split(&mut socket);
        let writing = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let reading = reader.read_to_end(&mut received);
        let ((), result) = tokio::join!(writing, reading);
        result.unwrap();
        assert_eq!(received, sent);
        let seconds = started.elapsed().as_secs_f32();
        assert!((2.8..4.5).contains(&seconds), "{seconds}");
        // Without the limit it is at its full speed again.
        gate.set_rate(None);
        assert_eq!(socket.gates.at_once(), None);
    }

    /// Writes so many bytes through each of so many sockets, and says after how long they were
    /// written.
    async fn written(sockets: usize, bytes: usize, is_together: bool) -> Duration {
        let gate = Arc::new(Gate::default());
        gate.set_rate(Some(10_000));
        let started = Instant::now();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..sockets {
            let socket: Reached = Box::new(crate::echo::socket(false));
            let mut socket = Throttled::new(socket, Arc::clone(&gate), Arc::default());
            all.spawn(async move { socket.write_all(&vec![0; bytes]).await.unwrap() });
            if !is_together {
                all.join_next().await.unwrap().unwrap();
            }
        }
        all.join_all().await;
        started.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn many_sockets_together_keep_to_the_rate() {
        // A second's worth is free, and the last part of each is not waited for.
        let at_once = written(100, 2_500, true).await.as_secs_f32();
        assert!((11.0..13.0).contains(&at_once), "{at_once}");
        let one_by_one = written(60, 1_000, false).await.as_secs_f32();
        assert!((4.5..5.5).contains(&one_by_one), "{one_by_one}");
    }
}
