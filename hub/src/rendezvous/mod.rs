//! Every stream on its way: asked of a device, answered, waiting for its legs,
//! joined. The device's side and the service's side meet here and nowhere else.
//!
//! The rules are in [`table`], without I/O and clock; here are the lock, the
//! channels and the deadlines.

mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::identity::{DeviceId, DeviceIdentity, Leg, RequestId, StreamId, StreamName};
use common::limits;
use common::secret::Secret;
use common::wire::stream::{Initiator, StreamAnswer, StreamRequest};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use table::{Arrival, Table};
pub use table::{Busy, LegRefused};

use crate::presence::HubSessionId;

/// How far a stream request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No session has taken it.
    Waiting,
    /// It went to the device.
    Delivered,
    /// The device takes the stream.
    Accepted,
    /// The device does not.
    Rejected,
    /// The hub has given the stream up.
    Ended,
}

/// What the table keeps of a stream besides its state.
struct Stream<W> {
    request: StreamRequest,
    progress: watch::Sender<Progress>,
    /// The leg that came first gives its other half here.
    partner: Option<oneshot::Sender<W>>,
    cancel: CancellationToken,
}

/// All streams of one hub process; `W` is a leg's WebSocket.
pub struct Rendezvous<W>(Arc<Mutex<Table<Stream<W>>>>);

impl<W> Clone for Rendezvous<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W> Default for Rendezvous<W> {
    fn default() -> Self {
        let start = u64::from(u32::from_be_bytes(common::random::bytes()) % 100_000);
        Self(Arc::new(Mutex::new(Table::new(start))))
    }
}

/// Where the device's leg goes.
pub struct DeviceEndpoint {
    /// The streaming endpoint's URL.
    pub url: String,
    /// Its bearer token.
    pub token: Secret,
}

/// A stream that waits for its device's answer; dropped before that, it is given up.
pub struct Opening<W> {
    rendezvous: Rendezvous<W>,
    stream: StreamId,
    /// What the device has said so far.
    pub progress: watch::Receiver<Progress>,
}

/// One leg's right to its place; dropped, the leg is gone and its stream with it.
pub struct LegPlace<W> {
    rendezvous: Rendezvous<W>,
    /// Which stream it is.
    pub stream: StreamId,
    /// Cancelled when the hub ends the stream.
    pub cancel: CancellationToken,
    /// The stream's identity, for the log.
    pub identity: DeviceIdentity,
    /// The stream's name, for the log.
    pub name: String,
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

impl<W> Rendezvous<W> {
    fn table(&self) -> MutexGuard<'_, Table<Stream<W>>> {
        // No code panics while it holds the lock; if one did, the table is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a stream before its device is asked, so that even a leg that comes
    /// before the accept finds its place.
    ///
    /// # Errors
    /// [`Busy`] when the hub or the device has too many.
    pub fn open(
        &self,
        stream: StreamId,
        identity: &DeviceIdentity,
        name: &StreamName,
        endpoint: DeviceEndpoint,
        initiator: Initiator,
    ) -> Result<Opening<W>, Busy> {
        let (progress, watcher) = watch::channel(Progress::Waiting);
        self.table()
            .open(stream, identity.clone(), |number| Stream {
                request: StreamRequest {
                    request_id: RequestId::from(number),
                    name: name.as_str().to_owned(),
                    url: endpoint.url,
                    token: endpoint.token,
                    initiator: Some(initiator),
                },
                progress,
                partner: None,
                cancel: CancellationToken::new(),
            })?;
        Ok(Opening {
            rendezvous: self.clone(),
            stream,
            progress: watcher,
        })
    }

    /// The requests that wait for this identity and have not gone to this connection
    /// yet. What an earlier connection was sent and has not answered goes out again:
    /// pending requests belong to the identity.
    pub fn take_requests(
        &self,
        identity: &DeviceIdentity,
        connection: HubSessionId,
    ) -> Vec<StreamRequest> {
        let mut table = self.table();
        table
            .undelivered(identity, connection)
            .into_iter()
            .filter_map(|stream| {
                let stream = table.get(stream)?;
                stream.progress.send_replace(Progress::Delivered);
                Some(stream.request.clone())
            })
            .collect()
    }

    /// The device's answer, on whichever connection it came. `false`: no such request
    /// waits (it is unknown, used or expired), and the answer means nothing.
    pub fn answer(&self, identity: &DeviceIdentity, answer: &StreamAnswer, now: Instant) -> bool {
        let mut table = self.table();
        let legs_by = now + limits::LEG_ARRIVAL;
        let Some(number) = answer.request_id.as_str().parse().ok() else {
            return false;
        };
        let Some(stream) = table.answer(identity, number, answer.accepted, legs_by) else {
            return false;
        };
        if answer.accepted {
            if let Some(stream) = table.get(stream) {
                stream.progress.send_replace(Progress::Accepted);
            }
        } else if let Some(stream) = table.remove(stream) {
            stream.progress.send_replace(Progress::Rejected);
        }
        true
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
            name: entry.request.name.clone(),
            identity,
            rendezvous: self.clone(),
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
        let expired = self.table().remove_expired(now);
        for stream in expired {
            end(stream);
        }
    }

    /// Runs [`expire`](Self::expire) for ever: one sweeper instead of a timer per stream.
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
    stream.progress.send_replace(Progress::Ended);
    stream.cancel.cancel();
}

impl<W> Drop for Opening<W> {
    fn drop(&mut self) {
        let given_up = self.rendezvous.table().give_up(self.stream);
        if let Some(stream) = given_up {
            end(stream);
        }
    }
}

impl<W> LegPlace<W> {
    /// Brings the leg's WebSocket: the first leg waits for the second, the second is
    /// handed over to the first, and with it the care for the stream.
    pub fn meet(&mut self, socket: W) -> Meeting<W> {
        let mut table = self.rendezvous.table();
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
        let ended = self.rendezvous.table().remove(self.stream);
        if let Some(stream) = ended {
            end(stream);
        }
    }
}
