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

use super::Gate;
use super::bucket::Bucket;
use crate::target::Reached;

/// Bytes that are copied at once, however low the rate is.
const LEAST: u64 = 256;

/// A socket with the gates that it has to pass.
pub(super) struct Throttled {
    inner: Reached,
    gates: Vec<Arc<Gate>>,
    /// The debts of both directions.
    reading: Debt,
    writing: Debt,
}

#[derive(Default)]
struct Debt(Option<Pin<Box<Sleep>>>);

impl Debt {
    fn poll_paid(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.0 {
            ready!(sleep.as_mut().poll(cx));
            self.0 = None;
        }
        Poll::Ready(())
    }

    fn owe(&mut self, wait: Duration) {
        if !wait.is_zero() {
            self.0 = Some(Box::pin(sleep(wait)));
        }
    }
}

impl Throttled {
    pub(super) fn new(inner: Reached, gates: Vec<Arc<Gate>>) -> Self {
        Self {
            inner,
            gates,
            reading: Debt::default(),
            writing: Debt::default(),
        }
    }

    /// How many bytes may be copied at once: a fraction of a second's, so that it flows.
    fn at_once(&self) -> usize {
        let rates = self.gates.iter().filter_map(|gate| gate.rate());
        let most = rates.map(|rate| (rate / 8).max(LEAST)).min();
        most.and_then(|most| usize::try_from(most).ok())
            .unwrap_or(usize::MAX)
    }

    fn charge(&self, amount: usize, bucket: impl Fn(&Gate) -> &Bucket) -> Duration {
        let waits = self.gates.iter().filter_map(|gate| {
            let rate = gate.rate()?;
            Some(bucket(gate).charge(amount, rate))
        });
        waits.max().unwrap_or_default()
    }
}

impl AsyncRead for Throttled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.reading.poll_paid(cx));
        let room = buffer.remaining().min(self.at_once());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        let wait = self.charge(count, |gate| &gate.from_target);
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
        ready!(self.writing.poll_paid(cx));
        let some = bytes.get(..self.at_once()).unwrap_or(bytes);
        let count = ready!(Pin::new(&mut self.inner).poll_write(cx, some))?;
        let wait = self.charge(count, |gate| &gate.to_target);
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
        let mut socket = Throttled::new(socket, vec![Arc::clone(&gate)]);
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
        assert_eq!(socket.at_once(), usize::MAX);
    }
}
