//! One inner connection: copies between its local socket and the session, in one task.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes};
use device_stream_websocket::limits::SMALL_READ;
use tokio::io::ReadBuf;
use tokio::task::coop;
use tokio::time::Instant;

use crate::drive::clock;
use crate::drive::outcome::Outcome;
use crate::drive::shared::SharedSession;
use crate::drive::socket::ConnectionSocket;
use crate::drive::traffic::Traffic;
use crate::limits;
use crate::proto::chunk::Chunk;
use crate::proto::connection::Inbound;
use crate::proto::frame::Code;
use crate::proto::inner::{ConnectionId, RefusedCode};
use crate::proto::machine::Over;

/// How an inner connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionEnd {
    /// Both directions ended in order, and everything was delivered.
    #[error("both ends are done")]
    Finished,
    /// The local connection failed.
    #[error("the local connection broke")]
    LocalFailed(#[source] io::Error),
    /// The connection at the other end failed.
    #[error("the connection at the other end broke")]
    PeerReset,
    /// The device did not open it.
    #[error("{code}{}", detail(.text))]
    Refused {
        /// Why.
        code: RefusedCode,
        /// The device's text; may be empty.
        text: String,
    },
    /// The session ended.
    #[error("the session ended: {0}")]
    SessionOver(Code),
}

fn detail(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(" ({text})")
    }
}

impl ConnectionEnd {
    /// Whether all bytes of both directions arrived.
    pub fn is_normal(&self) -> bool {
        matches!(self, Self::Finished)
    }
}

/// Copies both ways until both directions have ended or one side failed, then releases the
/// connection. Dropping the future resets both sides.
pub async fn run_connection<L: ConnectionSocket>(
    live: &SharedSession,
    id: ConnectionId,
    local: L,
    traffic: &Traffic,
) -> Outcome<ConnectionEnd> {
    RunningConnection::new(live, id, local, traffic).run().await
}

/// A connection that is being copied, for a caller that needs to know when the device has opened
/// it. Dropping it resets both sides.
pub struct RunningConnection<'a, L> {
    copying: Copying<'a, L>,
    release: Option<Release<'a>>,
    started: Instant,
    /// How it ended, if it did before [`run`](Self::run).
    ended: Option<ConnectionEnd>,
}

impl<'a, L: ConnectionSocket> RunningConnection<'a, L> {
    /// Prepares to copy. From now on the local connection is reset when it is dropped, unless it
    /// ends in order.
    pub fn new(live: &'a SharedSession, id: ConnectionId, local: L, traffic: &'a Traffic) -> Self {
        local.arm();
        Self {
            copying: Copying {
                live,
                id,
                local,
                traffic,
                is_opened: false,
                undelivered: Bytes::new(),
                unflushed: false,
                down: Down::Open,
                up_is_done: false,
                read_size: SMALL_READ,
                is_up_first: false,
            },
            release: Some(Release { live, id }),
            started: Instant::now(),
            ended: None,
        }
    }

    /// Copies until the device has opened the connection. False if it ended before that;
    /// [`run`](Self::run) then returns its end at once. The future may be dropped and called again:
    /// nothing is lost.
    pub async fn opened(&mut self) -> bool {
        let copying = &mut self.copying;
        self.ended = poll_fn(|cx| match copying.poll(cx) {
            Poll::Ready(end) => Poll::Ready(Some(end)),
            Poll::Pending if copying.is_opened => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        self.copying.is_opened
    }

    /// Copies until both directions have ended or one side failed, then releases the connection;
    /// call it once. The future may be dropped, with the connection.
    // Not by value: the future would have room for the connection twice.
    pub async fn run(&mut self) -> Outcome<ConnectionEnd> {
        let end = match self.ended.take() {
            Some(end) => end,
            None => poll_fn(|cx| self.copying.poll(cx)).await,
        };
        if end.is_normal() {
            self.copying.local.disarm();
        }
        self.release = None;
        Outcome {
            sent: self.copying.traffic.sent(),
            received: self.copying.traffic.received(),
            duration: self.started.elapsed(),
            end,
        }
    }
}

/// How a connection that is broken ended.
pub(crate) fn end_of_broken(live: &SharedSession) -> ConnectionEnd {
    match live.over() {
        Some(Over::Broken(code) | Over::PeerBroke(code, _)) => ConnectionEnd::SessionOver(code),
        Some(Over::Ended) | None => ConnectionEnd::PeerReset,
    }
}

/// Releases the connection when it is dropped.
struct Release<'a> {
    live: &'a SharedSession,
    id: ConnectionId,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.live.release(self.id);
    }
}

/// State of the direction from the session to the local socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Down {
    Open,
    /// The peer has sent FIN: shut the local socket down.
    Ending,
    Done,
}

struct Copying<'a, L> {
    live: &'a SharedSession,
    id: ConnectionId,
    local: L,
    traffic: &'a Traffic,
    /// The device has opened it.
    is_opened: bool,
    undelivered: Bytes,
    unflushed: bool,
    down: Down,
    up_is_done: bool,
    /// Size of the next read: about twice that of the last one.
    read_size: usize,
    /// The next poll copies up first: the way down has used up the task's budget (tokio's coop).
    is_up_first: bool,
}

impl<L: ConnectionSocket> Copying<'_, L> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        // A reset must be seen also while the local socket takes no more bytes.
        let is_broken = self.live.with(|state| {
            state.register(self.id, cx);
            state.session.is_broken(self.id)
        });
        if is_broken {
            return Poll::Ready(self.broken());
        }
        if std::mem::take(&mut self.is_up_first)
            && let Poll::Ready(end) = self.poll_up(cx)
        {
            return Poll::Ready(end);
        }
        if let Poll::Ready(end) = self.poll_down(cx) {
            return Poll::Ready(end);
        }
        self.is_up_first = !coop::has_budget_remaining();
        if let Poll::Ready(end) = self.poll_up(cx) {
            return Poll::Ready(end);
        }
        if self.down == Down::Done {
            if self.up_is_done {
                return Poll::Ready(ConnectionEnd::Finished);
            }
            if let Some(over) = self.live.over() {
                // All bytes from before the end are delivered; nothing more can be sent.
                return Poll::Ready(match over {
                    Over::Ended => ConnectionEnd::PeerReset,
                    Over::Broken(code) | Over::PeerBroke(code, _) => {
                        ConnectionEnd::SessionOver(code)
                    }
                });
            }
        }
        Poll::Pending
    }

    /// Copies from the session to the local socket; ready only when the connection ends.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        loop {
            while !self.undelivered.is_empty() {
                let Poll::Ready(written) =
                    Pin::new(&mut self.local).poll_write(cx, &self.undelivered)
                else {
                    let rest = std::mem::take(&mut self.undelivered);
                    let now = clock::now();
                    let is_timed = self
                        .live
                        .with(|state| state.session.give_back_inbound(self.id, rest, now));
                    if is_timed {
                        // The carrier's task has the timer.
                        self.live.with_output(|_| ());
                    }
                    return Poll::Pending;
                };
                match written {
                    Ok(0) => return local_failed(io::ErrorKind::WriteZero.into()),
                    Ok(count) => {
                        self.undelivered.advance(count);
                        self.traffic.add_received(count);
                        self.live.figures().traffic().add_received(count);
                        self.unflushed = true;
                    }
                    Err(error) => return local_failed(error),
                }
            }
            if self.down == Down::Ending {
                if let Err(error) = ready!(Pin::new(&mut self.local).poll_shutdown(cx)) {
                    return local_failed(error);
                }
                self.down = Down::Done;
            }
            let inbound = self.live.with(|state| {
                let inbound = state.session.take(self.id, clock::now());
                let is_opened = self.is_opened || state.session.is_opened(self.id);
                (inbound, is_opened, state.session.owes())
            });
            let (inbound, is_opened, owes) = inbound;
            self.is_opened = is_opened;
            if owes {
                // Credit for what was taken.
                self.live.with_output(|_| ());
            }
            match inbound {
                Inbound::Data(bytes) => self.undelivered = bytes,
                Inbound::Finished if self.down == Down::Open => self.down = Down::Ending,
                Inbound::Finished => return Poll::Pending,
                Inbound::Reset => return Poll::Ready(self.broken()),
                Inbound::Refused { code, text } => {
                    return Poll::Ready(ConnectionEnd::Refused { code, text });
                }
                Inbound::Pending => {
                    if self.unflushed {
                        match ready!(Pin::new(&mut self.local).poll_flush(cx)) {
                            Ok(()) => self.unflushed = false,
                            Err(error) => return local_failed(error),
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn broken(&self) -> ConnectionEnd {
        end_of_broken(self.live)
    }

    /// Copies from the local socket to the session; ready only when the connection ends.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        while !self.up_is_done {
            let (room, is_starved) = self.live.with(|state| {
                let session = &mut state.session;
                (session.room(self.id), session.is_starved())
            });
            if room == 0 {
                if is_starved {
                    // The carrier's task has the timer.
                    self.live.with_output(|_| ());
                }
                return Poll::Pending;
            }
            match ready!(self.poll_read(cx, room)) {
                Ok(chunk) if chunk.is_empty() => {
                    self.up_is_done = true;
                    self.live
                        .with_output(|state| state.session.finish(self.id, clock::now()));
                }
                Ok(chunk) => {
                    self.traffic.add_sent(chunk.len());
                    self.live.figures().traffic().add_sent(chunk.len());
                    self.live
                        .with_output(|state| state.session.send(self.id, chunk, clock::now()));
                }
                Err(error) => return local_failed(error),
            }
        }
        Poll::Pending
    }

    /// Reads at most `room` bytes from the local socket; empty at the end of its input.
    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<Chunk>> {
        let size = room.min(self.read_size);
        if size <= SMALL_READ {
            // On the stack, so that an idle connection has no buffer.
            let mut scratch = [std::mem::MaybeUninit::uninit(); SMALL_READ];
            let mut buffer = ReadBuf::uninit(scratch.get_mut(..size).unwrap_or_default());
            ready!(Pin::new(&mut self.local).poll_read(cx, &mut buffer))?;
            if buffer.filled().len() == SMALL_READ {
                self.read_size = limits::CHUNK;
            }
            return Poll::Ready(Ok(Chunk::copy_of(buffer.filled())));
        }
        // Allocates only when there is something to read.
        ready!(self.local.poll_readable(cx))?;
        let mut chunk = self.live.with(|state| state.session.chunk(size));
        let mut target = chunk.buffer().limit(size);
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.local), cx, &mut target);
        let Poll::Ready(count) = read? else {
            self.live.with(|state| state.session.give_back(chunk));
            return Poll::Pending;
        };
        self.read_size = if count == size {
            limits::CHUNK
        } else {
            (2 * count).clamp(SMALL_READ, limits::CHUNK)
        };
        // A few bytes that are kept for a replay must not keep a large buffer.
        if 2 * (count as u64) < chunk.held() {
            let copy = Chunk::copy_of(chunk.bytes());
            self.live.with(|state| state.session.give_back(chunk));
            return Poll::Ready(Ok(copy));
        }
        Poll::Ready(Ok(chunk))
    }
}

fn local_failed(error: io::Error) -> Poll<ConnectionEnd> {
    Poll::Ready(ConnectionEnd::LocalFailed(error))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;
    use crate::proto::inner::Inner;
    use crate::proto::machine::Role;
    use crate::proto::proof::SessionId;

    #[tokio::test]
    async fn the_end_of_the_session_is_seen_while_the_reader_has_stopped() {
        let live = SharedSession::new(SessionId::random(), Role::Device);
        let carrier = live.attach(&live.freeze(), 0).unwrap();
        let id = ConnectionId(1);
        let mut inner = bytes::BytesMut::new();
        Inner::Open.encode(id, &mut inner);
        Inner::Data(Bytes::from(vec![7; 1000])).encode(id, &mut inner);
        let frame = crate::proto::frame::Frame::Data {
            offset: 0,
            bytes: inner.freeze(),
            wants_ack: false,
        };
        let now = clock::now();
        live.with(|state| state.session.receive(carrier, frame.encode(), now))
            .unwrap();
        assert_eq!(live.next_incoming().await, Some(id));
        // Room for ten bytes, which are not read.
        let (near, _far) = duplex(10);
        let traffic = Traffic::default();
        let copying = run_connection(&live, id, near, &traffic);
        let ending = async {
            while traffic.received() < 10 {
                tokio::task::yield_now().await;
            }
            live.reset(Code::Evicted, "");
        };
        let (outcome, ()) = tokio::join!(copying, ending);
        assert!(
            matches!(outcome.end, ConnectionEnd::SessionOver(Code::Evicted)),
            "{:?}",
            outcome.end
        );
    }

    #[tokio::test]
    async fn a_connection_that_ends_as_it_opens_counts_as_opened() {
        let live = SharedSession::new(SessionId::random(), Role::Service);
        let carrier = live.attach(&live.freeze(), 0).unwrap();
        let id = live.open().unwrap();
        let receive = |inners: &[Inner]| {
            let mut bytes = bytes::BytesMut::new();
            inners.iter().for_each(|inner| inner.encode(id, &mut bytes));
            live.with(|state| {
                let frame = crate::proto::frame::Frame::Data {
                    offset: state.session.received_bytes(),
                    bytes: bytes.freeze(),
                    wants_ack: false,
                };
                state.session.receive(carrier, frame.encode(), clock::now())
            })
            .unwrap();
        };
        // Its input ends at once, and it reads everything.
        let (local, mut far) = duplex(64);
        far.shutdown().await.unwrap();
        let traffic = Traffic::default();
        let mut running = RunningConnection::new(&live, id, local, &traffic);
        tokio::select! {
            biased;
            _ = running.opened() => panic!("the device has not answered"),
            () = std::future::ready(()) => {}
        }
        receive(&[Inner::Opened, Inner::Fin]);
        assert!(running.opened().await);
        let end = running.run().await.end;
        assert!(matches!(end, ConnectionEnd::Finished), "{end:?}");
    }
}
