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
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use table::{Arrival, Table};
pub use table::{ExpectRefused, LegRefused};

use crate::{events, limits};

/// Who has asked for a stream.
#[derive(Debug, Clone)]
pub struct Opener {
    /// The shared access policy of the token.
    pub policy: String,
    /// The address that the request came from.
    pub peer: SocketAddr,
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
    /// Whether the stream ends with this leg's task.
    in_charge: bool,
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
    /// None yet, and never more than `most` streams.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Table::new(most))))
    }

    fn table(&self) -> MutexGuard<'_, Table<Stream<W>>> {
        lock(&self.0)
    }

    /// Enters a stream before its device is asked, so that even a leg that comes
    /// before the accept finds its place.
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
        let kept = Stream {
            name: name.as_str().to_owned(),
            opener,
            partner: None,
            cancel: cancel.clone(),
        };
        self.table().expect(stream, identity, kept)?;
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
            in_charge: true,
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
        for stream in ended {
            end(stream);
        }
    }

    /// Ends the accepted streams whose legs have not both come in time.
    pub fn expire(&self, now: Instant) {
        let expired = self.table().remove_expired(now.into_std());
        for stream in expired {
            end(stream);
        }
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
        for stream in ended {
            end(stream);
        }
    }

    /// Refuses new streams and ends those whose legs have not met.
    pub fn close(&self) {
        let ended = self.table().close();
        for stream in ended {
            end(stream);
        }
    }

    /// How many streams there are, in any state.
    pub fn count(&self) -> usize {
        self.table().len()
    }
}

fn end<W>(stream: Stream<W>) {
    stream.cancel.cancel();
}

impl<W> Expected<W> {
    /// The device takes the stream: its legs have [`limits::LEG_ARRIVAL`] to meet. `false`: the
    /// stream has ended meanwhile.
    pub fn accept(mut self) -> bool {
        let legs_by = Instant::now() + limits::LEG_ARRIVAL;
        self.is_accepted = self.legs.table().accept(self.stream, legs_by.into_std());
        self.is_accepted
    }
}

impl<W> Drop for Expected<W> {
    fn drop(&mut self) {
        if self.is_accepted {
            return;
        }
        let given_up = self.legs.table().remove(self.stream);
        if let Some(stream) = given_up {
            end(stream);
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
}

impl<W> Drop for LegPlace<W> {
    fn drop(&mut self) {
        if !self.in_charge {
            return;
        }
        let ended = self.legs.table().remove(self.stream);
        if let Some(stream) = ended {
            end(stream);
        }
    }
}
