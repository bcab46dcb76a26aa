//! A session that is shared by the task of its carrier, by one task for each of its connections,
//! and by the task that keeps it. The lock is held briefly, never across an await.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::drive::clock;
use crate::drive::figures::Figures;
use crate::proto::frame::Code;
use crate::proto::inner::{ConnectionId, RefusedCode};
use crate::proto::machine::{CarrierId, Over, Role, Session, Violation};
use crate::proto::memory::Memory;
use crate::proto::proof::SessionId;

/// The state behind the lock.
pub(crate) struct State {
    pub(crate) session: Session,
    readers: HashMap<ConnectionId, Waker>,
    carrier: Option<Waker>,
    incoming: Option<Waker>,
    /// How often the session was frozen.
    freezes: u64,
}

/// A session without a carrier, whose reported offset stays valid until it is attached.
#[derive(Debug)]
pub struct Frozen {
    /// Bytes that were received from the peer.
    pub received: u64,
    freeze: u64,
}

/// Why a session did not take a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// It was frozen again in the meantime, for another carrier.
    #[error("another stream has taken the session over")]
    Stale,
    /// The peer cannot have received the offset that it reports.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// A handle to one end of a session; clones refer to the same session.
#[derive(Clone)]
pub struct SharedSession {
    id: SessionId,
    state: Arc<Mutex<State>>,
    figures: Arc<Figures>,
    /// Changes when the session attaches, detaches or ends.
    turns: watch::Sender<()>,
}

impl std::fmt::Debug for SharedSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedSession({})", self.id)
    }
}

impl SharedSession {
    /// A new session, without a carrier, in a program that has no other.
    pub fn new(id: SessionId, role: Role) -> Self {
        Self::with_memory(id, role, Memory::unlimited())
    }

    /// The same, with memory that it shares with other sessions.
    pub fn with_memory(id: SessionId, role: Role, memory: Arc<Memory>) -> Self {
        Self {
            id,
            state: Arc::new(Mutex::new(State {
                session: Session::with_memory(role, memory, clock::now()),
                readers: HashMap::new(),
                carrier: None,
                incoming: None,
                freezes: 0,
            })),
            figures: Arc::new(Figures::new()),
            turns: watch::Sender::new(()),
        }
    }

    /// What has happened in it so far.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Runs `work` under the lock, then wakes the tasks of what has changed. `work` does no I/O.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut wakers = Vec::new();
        let (result, turned) = {
            // No code panics while it holds the lock; if it did, the session would still be
            // consistent.
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let before = state.condition();
            let result = work(&mut state);
            let State {
                session,
                readers,
                incoming,
                ..
            } = &mut *state;
            for id in session.touched() {
                wakers.extend(readers.remove(&id));
            }
            if session.has_incoming() {
                wakers.extend(incoming.take());
            }
            let turned = state.condition() != before;
            if turned {
                wakers.extend(state.carrier.take());
                wakers.extend(state.incoming.take());
            }
            (result, turned)
        };
        wakers.into_iter().for_each(Waker::wake);
        if turned {
            self.turns.send_replace(());
        }
        result
    }

    /// The same, and wakes the carrier's task to send output.
    pub(crate) fn with_output<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let (result, waker) = self.with(|state| (work(state), state.carrier.take()));
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    // --- Connections ---

    /// Opens a connection. `None` when the session is over or full.
    pub fn open(&self) -> Option<ConnectionId> {
        self.with_output(|state| state.session.open())
    }

    /// The next connection that the peer has requested; `None` when the session is over. The future
    /// may be dropped: no connection is lost. Only one task may wait.
    pub async fn next_incoming(&self) -> Option<ConnectionId> {
        poll_fn(|cx| {
            self.with(|state| match state.session.next_incoming() {
                Some(id) => Poll::Ready(Some(id)),
                None if state.session.over().is_some() => Poll::Ready(None),
                None => {
                    state.incoming = Some(cx.waker().clone());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// The target is connected.
    pub fn opened(&self, id: ConnectionId) {
        self.with_output(|state| state.session.opened(id));
    }

    /// The target cannot be connected.
    pub fn refuse(&self, id: ConnectionId, code: RefusedCode, text: String) {
        self.with_output(|state| {
            // The waker of `given_up` would keep its task alive.
            state.readers.remove(&id);
            state.session.refuse(id, code, text);
        });
    }

    /// Waits until the peer has reset a connection that is not opened yet. The future may be
    /// dropped.
    pub async fn given_up(&self, id: ConnectionId) {
        poll_fn(|cx| {
            self.with(|state| {
                if state.session.is_broken(id) {
                    return Poll::Ready(());
                }
                state.register(id, cx);
                Poll::Pending
            })
        })
        .await;
    }

    /// The local side is done with the connection: see [`Session::release`].
    pub fn release(&self, id: ConnectionId) {
        self.with_output(|state| {
            state.readers.remove(&id);
            state.session.release(id);
        });
    }

    /// How many tasks wait for a connection, for tests.
    #[cfg(test)]
    pub(crate) fn readers(&self) -> usize {
        self.with(|state| state.readers.len())
    }

    /// Whether there is memory for one more connection.
    pub fn has_memory(&self) -> bool {
        self.with(|state| state.session.has_memory())
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.with(|state| state.session.connections())
    }

    // --- Carriers ---

    /// Detaches the carrier, if there is one: see [`Session::freeze`].
    pub fn freeze(&self) -> Frozen {
        self.with(|state| {
            state.freezes += 1;
            Frozen {
                received: state.session.freeze(clock::now()),
                freeze: state.freezes,
            }
        })
    }

    /// The same for a peer that has received all bytes before `peer_received`, if that is possible.
    ///
    /// # Errors
    /// [`Violation`]; the session is unchanged then.
    pub fn freeze_for(&self, peer_received: u64) -> Result<Frozen, Violation> {
        self.with(|state| state.session.check_offset(peer_received))?;
        Ok(self.freeze())
    }

    /// Continues on a new carrier, with a peer that has received all bytes before `peer_received`.
    ///
    /// # Errors
    /// [`AttachError`]; the session is unchanged then.
    pub fn attach(&self, frozen: &Frozen, peer_received: u64) -> Result<CarrierId, AttachError> {
        self.with_output(|state| {
            if state.freezes != frozen.freeze {
                return Err(AttachError::Stale);
            }
            let carrier = state.session.attach(peer_received, clock::now())?;
            self.figures.attached();
            Ok(carrier)
        })
    }

    /// Since when there is no carrier; `None` while there is one.
    pub fn detached_since(&self) -> Option<Instant> {
        self.with(|state| state.session.detached_since())
            .map(Instant::from_std)
    }

    /// Bytes that have arrived, in both directions. It grows with progress.
    pub fn progress(&self) -> u64 {
        self.with(|state| state.session.acknowledged_bytes() + state.session.received_bytes())
    }

    /// Bytes of memory in its buffers.
    pub fn held(&self) -> u64 {
        self.with(|state| state.session.held())
    }

    /// The shortest round trip seen on the current carrier.
    pub fn round_trip(&self) -> Option<Duration> {
        self.with(|state| state.session.round_trip())
    }

    /// Changes when the session attaches, detaches or ends.
    pub fn turns(&self) -> watch::Receiver<()> {
        self.turns.subscribe()
    }

    // --- Ends ---

    /// See [`Session::end`].
    pub fn end(&self) {
        self.with_output(|state| state.session.end());
    }

    /// See [`Session::reset`].
    pub fn reset(&self, code: Code, text: &str) {
        self.with_output(|state| state.session.reset(code, text));
    }

    /// How the session ended, if it did.
    pub fn over(&self) -> Option<Over> {
        self.with(|state| state.session.over().cloned())
    }
}

impl State {
    /// The part of the state that [`SharedSession::turns`] watches.
    fn condition(&self) -> (bool, bool) {
        (
            self.session.over().is_some(),
            self.session.detached_since().is_some(),
        )
    }

    /// Wakes this task when the connection changes.
    pub(crate) fn register(&mut self, id: ConnectionId, cx: &Context<'_>) {
        match self.readers.get_mut(&id) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                self.readers.insert(id, cx.waker().clone());
            }
        }
    }

    /// Wakes this task when there is output.
    pub(crate) fn register_carrier(&mut self, cx: &Context<'_>) {
        match &mut self.carrier {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::proto::chunk::control_message;
    use crate::proto::inner::Inner;

    #[tokio::test]
    async fn a_refused_connection_leaves_no_waker() {
        let live = SharedSession::new(SessionId::random(), Role::Device);
        let carrier = live.attach(&live.freeze(), 0).unwrap();
        for number in 1..=10 {
            let mut open = BytesMut::new();
            Inner::Open.encode(ConnectionId(number), &mut open);
            live.with(|state| {
                let offset = state.session.received_bytes();
                let open = control_message(&open, offset, false);
                state.session.receive(carrier, open, clock::now())
            })
            .unwrap();
            let id = live.next_incoming().await.unwrap();
            // The target is dialled meanwhile, and refuses.
            tokio::select! {
                biased;
                () = live.given_up(id) => panic!("the peer has not reset it"),
                () = std::future::ready(()) => {}
            }
            live.refuse(id, RefusedCode::TargetRefused, String::new());
            assert_eq!(live.readers(), 0);
        }
    }
}
