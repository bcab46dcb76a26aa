//! Pings: one binary message, its reply, a pause.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::websocket::{Data, WebSocket, WebSocketError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::pattern::Pattern;
use super::{EchoEvent, EchoFailure, EchoReport, Payload, REPLY, receive};

/// A ping test.
pub(super) struct Pings<'a> {
    pub(super) count: Option<u64>,
    pub(super) payload: &'a Payload,
    pub(super) interval: Duration,
}

impl Pings<'_> {
    /// Runs it; stopping it is a success when something came back and nothing was wrong.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        leg: &mut WebSocket<S>,
        stop: &CancellationToken,
        observer: &mut impl FnMut(EchoEvent<'_>),
    ) -> EchoReport {
        let mut report = EchoReport::default();
        let started = Instant::now();
        let failure = tokio::select! {
            result = self.all(leg, &mut report, observer) => result.err(),
            () = stop.cancelled() => None,
        };
        report.failure = failure.or((report.received == 0).then_some(EchoFailure::Stopped));
        report.duration = started.elapsed();
        report
    }

    async fn all<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        leg: &mut WebSocket<S>,
        report: &mut EchoReport,
        observer: &mut impl FnMut(EchoEvent<'_>),
    ) -> Result<(), EchoFailure> {
        let mut next = Instant::now();
        for seq in 1.. {
            let message = self.message(seq);
            let sent = Instant::now();
            timeout(REPLY, send(leg, &message))
                .await
                .map_err(|_| EchoFailure::NoReply)?
                .map_err(EchoFailure::Lost)?;
            report.sent += 1;
            report.bytes_sent += message.len() as u64;
            observer(EchoEvent::Sent { bytes: &message });
            let reply = timeout(REPLY, reply(leg, &message))
                .await
                .map_err(|_| EchoFailure::NoReply)??;
            let time = sent.elapsed();
            report.received += 1;
            report.bytes_received += reply.len() as u64;
            report.times.add(time);
            observer(EchoEvent::Reply {
                seq,
                bytes: &reply,
                time,
            });
            if Some(seq) == self.count {
                return Ok(());
            }
            next = (next + self.interval).max(Instant::now());
            quiet_until(leg, next).await?;
        }
        Ok(())
    }

    fn message(&self, seq: u64) -> Bytes {
        match self.payload {
            // The seed keeps the patterns of neighbours apart.
            Payload::Pattern(size) => Pattern::new(seq << 32).bytes(0, *size),
            Payload::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
        }
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    leg: &mut WebSocket<S>,
    message: &Bytes,
) -> Result<(), WebSocketError> {
    poll_fn(|cx| leg.poll_ready(cx)).await?;
    leg.start_send(Data::binary(message.clone()))?;
    poll_fn(|cx| leg.poll_flush(cx)).await
}

/// Gathers a reply as long as the message, whatever pieces it comes in.
async fn reply<S: AsyncRead + AsyncWrite + Unpin>(
    leg: &mut WebSocket<S>,
    message: &Bytes,
) -> Result<Bytes, EchoFailure> {
    let mut reply = BytesMut::new();
    while reply.len() < message.len() {
        reply.extend_from_slice(&receive(leg).await?);
    }
    let same = reply
        .iter()
        .zip(message)
        .take_while(|(a, b)| a == b)
        .count();
    if same < message.len() {
        return Err(EchoFailure::Mismatch { at: same as u64 });
    }
    if reply.len() > message.len() {
        return Err(EchoFailure::Surplus);
    }
    Ok(reply.freeze())
}

/// Waits between two pings, in which nothing may come; pings of the peer's WebSocket
/// are answered.
async fn quiet_until<S: AsyncRead + AsyncWrite + Unpin>(
    leg: &mut WebSocket<S>,
    until: Instant,
) -> Result<(), EchoFailure> {
    tokio::select! {
        biased;
        received = receive(leg) => Err(match received {
            Ok(_) => EchoFailure::Surplus,
            Err(failure) => failure,
        }),
        () = sleep_until(until) => Ok(()),
    }
}
