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

use super::bucket::Bucket;
use super::gates::{Gate, Place};
use crate::target::Reached;

/// Bytes that are copied at once, however low the rate is.
const LEAST: u64 = 256;

/// A socket with the gates that it has to pass.
pub(super) struct Throttled {
    inner: Reached,
    /// Of the rules for all targets.
    all: Arc<Gate>,
    /// Has the gate of its own rules, which come, change and go.
    place: Arc<Place>,
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
    pub(super) fn new(inner: Reached, all: Arc<Gate>, place: Arc<Place>) -> Self {
        Self {
            inner,
            all,
            place,
            reading: Debt::default(),
            writing: Debt::default(),
        }
    }

    /// How many bytes may be copied at once, if it is limited: a fraction of a second's, so that it
    /// flows.
    fn at_once(&self) -> Option<usize> {
        let own = self.place.gate().and_then(|gate| gate.rate());
        let rate = own.into_iter().chain(self.all.rate()).min()?;
        usize::try_from((rate / 8).max(LEAST)).ok()
    }

    fn charge(&self, amount: usize, bucket: impl Fn(&Gate) -> &Bucket) -> Duration {
        let own = self.place.gate();
        let waits = own.iter().chain([&self.all]).filter_map(|gate| {
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
        let before = buffer.filled().len();
        if let Some(most) = self.at_once() {
            let room = buffer.remaining().min(most);
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
        } else {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        }
        let count = buffer.filled().len().saturating_sub(before);
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
        let some = self.at_once().and_then(|most| bytes.get(..most));
        let some = some.unwrap_or(bytes);
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
        assert_eq!(socket.at_once(), None);
    }
}
