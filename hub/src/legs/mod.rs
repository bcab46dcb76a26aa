//! Where the two legs of a stream meet: each is expected, claims its place with a token that works
//! once, and brings its WebSocket; the first waits for the second. Streams that are open have
//! their entries here until they end.
//!
//! The rules are in [`table`]; here are the lock, the channels and the deadlines.

mod table;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::identity::{DeviceId, DeviceIdentity, Leg, StreamId, StreamName};
use common::locks::lock;
use common::websocket::WebSocketError;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use table::{Arrival, Most, Removed, Table};
pub use table::{ExpectRefused, LegRefused};

use crate::events::{self, Event, Outcome};
use crate::limits::{self, Limits};

/// Who has asked for a stream.
#[derive(Debug, Clone)]
pub struct Opener {
    /// The shared access policy of the token.
    pub policy: String,
    /// The address that the request came from.
    pub peer: SocketAddr,
}

/// Why an accepted stream has ended whose legs have not met.
#[derive(Debug, thiserror::Error)]
pub enum Unpaired {
    /// They did not meet within [`limits::LEG_ARRIVAL`].
    #[error("the time for its legs is over")]
    Late,
    /// The leg that came first has closed it.
    #[error("the {0} closed it")]
    Closed(Leg),
    /// The leg that came first was lost.
    #[error("the {0}'s leg was lost")]
    Lost(Leg, #[source] WebSocketError),
    /// A leg has shown its token and did not go on.
    #[error("the {0}'s leg did not become a WebSocket")]
    NoSocket(Leg),
    /// Too many accepted streams waited for their legs, and it was the oldest of whoever had most.
    #[error("too many streams waited for their legs, and newer ones took its place")]
    Evicted,
    /// Its identity may have no streams any more.
    #[error("the identity was disabled, deleted or damaged")]
    Revoked,
    /// The hub is going down.
    #[error("the hub is stopping")]
    Stopping,
    /// The hub has ended it, in the moment in which the second leg came.
    #[error("the hub ended it")]
    Cancelled,
}

/// What the table keeps of a stream besides its state.
struct Stream<W> {
    name: String,
    opener: Opener,
    /// The leg that came first gives its other half here.
    partner: Option<oneshot::Sender<W>>,
    cancel: CancellationToken,
}

/// All streams of one hub process; `W` is a leg's WebSocket. Cheap to clone.
pub struct Legs<W>(Arc<Mutex<Table<Stream<W>>>>);

impl<W> Clone for Legs<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A stream that its device has not accepted yet; dropped before that, it is given up.
pub struct Expected<W> {
    legs: Legs<W>,
    stream: StreamId,
    is_accepted: bool,
    /// Cancelled when the hub ends the stream, or its device's leg has come and gone.
    pub cancel: CancellationToken,
}

/// One leg's right to its place; dropped, the leg is gone and its stream with it.
pub struct LegPlace<W> {
    legs: Legs<W>,
    /// Which stream it is.
    pub stream: StreamId,
    /// Cancelled when the hub ends the stream.
    pub cancel: CancellationToken,
    /// The stream's identity.
    pub identity: DeviceIdentity,
    /// The stream's name.
    pub name: String,
    /// Who has asked for the stream.
    pub opener: Opener,
    leg: Leg,
    /// Whether the stream ends with this leg's task.
    in_charge: bool,
    /// Whether both legs are here: its relay reports the end then.
    is_paired: bool,
}

/// What a leg finds when it arrives with its WebSocket.
pub enum Meeting<W> {
    /// It is the first: the other will be handed over here, or the stream is given up.
    First(W, oneshot::Receiver<W>),
    /// It is the second, and was handed over to the first, which runs the relay.
    Second,
    /// The stream is gone.
    Gone(W),
}

impl<W> Legs<W> {
    /// None yet, and never more than these limits allow.
    pub fn new(limits: &Limits) -> Self {
        let most = Most {
            streams: limits.streams,
            unjoined: limits.unjoined,
            unjoined_per_identity: limits.unjoined_per_device,
            unjoined_per_policy: limits.unjoined_per_policy,
        };
        Self(Arc::new(Mutex::new(Table::new(most))))
    }

    fn table(&self) -> MutexGuard<'_, Table<Stream<W>>> {
        lock(&self.0)
    }

    /// Enters a stream before its device is asked, so that even a leg that comes
    /// before the accept finds its place. In a full table it takes the place of a stream that
    /// waits for its legs.
    ///
    /// # Errors
    /// [`ExpectRefused`].
    pub fn expect(
        &self,
        stream: StreamId,
        identity: &DeviceIdentity,
        name: &StreamName,
        opener: Opener,
    ) -> Result<Expected<W>, ExpectRefused> {
        let cancel = CancellationToken::new();
        let policy = opener.policy.clone();
        let kept = Stream {
            name: name.as_str().to_owned(),
            opener,
            partner: None,
            cancel: cancel.clone(),
        };
        let evicted = self.table().expect(stream, identity, &policy, kept)?;
        end(evicted, &Unpaired::Evicted);
        Ok(Expected {
            legs: self.clone(),
            stream,
            is_accepted: false,
            cancel,
        })
    }

    /// Uses up a leg's one right to come; its token has been checked.
    ///
    /// # Errors
    /// [`LegRefused`] when the stream is unknown or over, or the leg has come before.
    pub fn claim(&self, stream: StreamId, leg: Leg) -> Result<LegPlace<W>, LegRefused> {
        let mut table = self.table();
        let identity = table.claim(stream, leg)?;
        let entry = table.get(stream).ok_or(LegRefused)?;
        Ok(LegPlace {
            cancel: entry.cancel.clone(),
            name: entry.name.clone(),
            opener: entry.opener.clone(),
            identity,
            legs: self.clone(),
            stream,
            leg,
            in_charge: true,
            is_paired: false,
        })
    }

    /// The devices that have streams, themselves or by a module.
    pub fn devices(&self) -> Vec<DeviceId> {
        self.table().devices()
    }

    /// The identities of a device, itself and its modules, that have streams.
    pub fn identities_of(&self, device: &DeviceId) -> Vec<DeviceIdentity> {
        self.table().identities_of(device)
    }

    /// Ends all streams of an identity, whatever their state.
    pub fn end_all(&self, identity: &DeviceIdentity) {
        let ended = self.table().remove_all(identity);
        end(ended, &Unpaired::Revoked);
    }

    /// Ends the accepted streams whose legs have not both come in time.
    pub fn expire(&self, now: Instant) {
        let expired = self.table().remove_expired(now.into_std());
        end(expired, &Unpaired::Late);
    }

    /// Runs [`expire`](Self::expire) for ever: one sweeper instead of a timer per stream.
    ///
    /// Ends by being dropped.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            self.expire(Instant::now());
        }
    }

    /// Ends every stream there is.
    pub fn end_everything(&self) {
        let ended = self.table().remove_everything();
        end(ended, &Unpaired::Stopping);
    }

    /// Refuses new streams and ends those whose legs have not met.
    pub fn close(&self) {
        let ended = self.table().close();
        end(ended, &Unpaired::Stopping);
    }

    /// How many streams there are, in any state.
    pub fn count(&self) -> usize {
        self.table().len()
    }
}

/// Ends streams from the hub's side. The end of one that is not accepted is reported by its
/// initiation, and that of one whose legs have met by the first leg's task.
fn end<W>(ended: impl IntoIterator<Item = Removed<Stream<W>>>, why: &Unpaired) {
    for removed in ended {
        removed.value.cancel.cancel();
        if removed.arrived < 2 {
            report(&removed, why);
        }
    }
}

/// Reports the end of a stream whose legs have not met, if it was accepted.
fn report<W>(removed: &Removed<Stream<W>>, why: &Unpaired) {
    if !removed.is_accepted {
        return;
    }
    let Stream { name, opener, .. } = &removed.value;
    let stream = events::Stream {
        id: &removed.stream,
        device: &removed.identity,
        name,
        policy: &opener.policy,
        peer: &opener.peer,
    };
    let outcome = Outcome::Unpaired {
        has_leg: removed.arrived > 0,
        reason: why,
    };
    Event::Stream(stream, outcome).emit();
}

impl<W> Expected<W> {
    /// The device takes the stream: its legs have [`limits::LEG_ARRIVAL`] to meet. `false`: the
    /// stream has ended meanwhile. If too many wait for their legs now, the oldest ones of whoever
    /// has most end.
    pub fn accept(mut self) -> bool {
        let legs_by = Instant::now() + limits::LEG_ARRIVAL;
        let evicted = self.legs.table().accept(self.stream, legs_by.into_std());
        self.is_accepted = evicted.is_some();
        end(evicted.into_iter().flatten(), &Unpaired::Evicted);
        self.is_accepted
    }
}

impl<W> Drop for Expected<W> {
    fn drop(&mut self) {
        if self.is_accepted {
            return;
        }
        let given_up = self.legs.table().remove(self.stream);
        if let Some(removed) = given_up {
            removed.value.cancel.cancel();
        }
    }
}

impl<W> LegPlace<W> {
    /// The stream, as events name it.
    pub fn described(&self) -> events::Stream<'_> {
        events::Stream {
            id: &self.stream,
            device: &self.identity,
            name: &self.name,
            policy: &self.opener.policy,
            peer: &self.opener.peer,
        }
    }

    /// Brings the leg's WebSocket: the first leg waits for the second, the second is
    /// handed over to the first, and with it the care for the stream.
    pub fn meet(&mut self, socket: W) -> Meeting<W> {
        let mut table = self.legs.table();
        let arrival = table.arrive(self.stream);
        let Some(stream) = table.get_mut(self.stream) else {
            return Meeting::Gone(socket);
        };
        match (arrival, stream.partner.take()) {
            (Some(Arrival::First), _) => {
                let (partner, waiting) = oneshot::channel();
                stream.partner = Some(partner);
                Meeting::First(socket, waiting)
            }
            (Some(Arrival::Second), Some(partner)) => match partner.send(socket) {
                Ok(()) => {
                    self.in_charge = false;
                    Meeting::Second
                }
                Err(socket) => Meeting::Gone(socket),
            },
            _ => Meeting::Gone(socket),
        }
    }

    /// The other leg is here: who relays the stream reports its end.
    pub fn pair(&mut self) {
        self.is_paired = true;
    }

    /// Leaves as the first leg that has waited for `other`, and ends the stream.
    pub fn leave(&mut self, mut other: oneshot::Receiver<W>, why: &Unpaired) {
        let removed = self.remove();
        // Nothing can be handed over from here on.
        let has_met = other.try_recv().is_ok();
        match removed {
            Some(removed) => report(&removed, why),
            // The hub has ended it, and the report is left to this leg.
            None if has_met => {
                let outcome = Outcome::Unpaired {
                    has_leg: true,
                    reason: why,
                };
                Event::Stream(self.described(), outcome).emit();
            }
            None => {}
        }
        self.in_charge = false;
    }

    /// Takes the stream out of the table, if it is still there.
    fn remove(&mut self) -> Option<Removed<Stream<W>>> {
        let removed = self.legs.table().remove(self.stream)?;
        removed.value.cancel.cancel();
        Some(removed)
    }
}

impl<W> Drop for LegPlace<W> {
    fn drop(&mut self) {
        if !self.in_charge {
            return;
        }
        let removed = self.remove().filter(|_| !self.is_paired);
        if let Some(removed) = removed {
            report(&removed, &Unpaired::NoSocket(self.leg));
        }
    }
}
