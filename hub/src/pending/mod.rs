//! Requests that wait for a device's answer: asked, delivered, then answered or given up. They
//! belong to the identity and not to a connection of it: its next hub session is asked again, and
//! the answer counts on whichever it comes.
//!
//! The rules are in [`table`]; here are the lock and the channels. What a request is about, and
//! what follows from its answer, is the affair of who asks.

mod table;

use std::sync::{Arc, Mutex, MutexGuard};

use common::identity::{DeviceIdentity, RequestId};
use common::locks::lock;
use common::wire::stream::{StreamAnswer, StreamRequest};
use tokio::sync::watch;

pub use table::AskRefused;
use table::Table;

use crate::presence::HubSessionId;

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No hub session has taken it.
    Waiting,
    /// It went to the device.
    Delivered,
    /// The device accepts.
    Accepted,
    /// The device rejects.
    Rejected,
    /// The hub has given it up.
    Ended,
}

/// What a device is asked for.
enum Kind {
    /// To take a stream.
    Stream(StreamRequest),
}

struct Request {
    kind: Kind,
    progress: watch::Sender<Progress>,
}

impl Request {
    fn end(&self) {
        self.progress.send_replace(Progress::Ended);
    }
}

/// All requests that wait in one hub process. Cheap to clone.
#[derive(Clone)]
pub struct Pending(Arc<Mutex<Table<Request>>>);

/// A request that waits; it is withdrawn when this is dropped.
pub struct Asked {
    pending: Pending,
    identity: DeviceIdentity,
    number: u64,
    /// What has become of it so far.
    pub progress: watch::Receiver<Progress>,
}

impl Pending {
    /// None yet, and never more than `most` of one identity.
    pub fn new(most: usize) -> Self {
        let start = u64::from(u32::from_be_bytes(common::random::bytes()) % 100_000);
        Self(Arc::new(Mutex::new(Table::new(start, most))))
    }

    fn table(&self) -> MutexGuard<'_, Table<Request>> {
        lock(&self.0)
    }

    /// Asks an identity to take a stream; `make` is given the request's id. The hub session has
    /// to be woken to send it.
    ///
    /// # Errors
    /// [`AskRefused`].
    pub fn ask_for_stream(
        &self,
        identity: &DeviceIdentity,
        make: impl FnOnce(RequestId) -> StreamRequest,
    ) -> Result<Asked, AskRefused> {
        let (sender, progress) = watch::channel(Progress::Waiting);
        let number = self.table().ask(identity, |number| Request {
            kind: Kind::Stream(make(RequestId::from(number))),
            progress: sender,
        })?;
        Ok(Asked {
            pending: self.clone(),
            identity: identity.clone(),
            number,
            progress,
        })
    }

    /// The stream requests that wait for this identity and have not gone to this hub session
    /// yet. What an earlier session was sent and has not answered goes out again.
    pub fn take_stream_requests(
        &self,
        identity: &DeviceIdentity,
        session: HubSessionId,
    ) -> Vec<StreamRequest> {
        let mut table = self.table();
        let undelivered = table.undelivered(identity, session).into_iter();
        undelivered
            .map(|Request { kind, progress }| {
                progress.send_replace(Progress::Delivered);
                let Kind::Stream(request) = kind;
                request.clone()
            })
            .collect()
    }

    /// The device's answer to a stream request, on whichever hub session it came. `false`: no
    /// such request waits (it is unknown, answered or expired), and the answer means nothing.
    pub fn answer_stream(&self, identity: &DeviceIdentity, answer: &StreamAnswer) -> bool {
        let Ok(number) = answer.request_id.as_str().parse() else {
            return false;
        };
        let Some(request) = self.table().answer(identity, number) else {
            return false;
        };
        request.progress.send_replace(if answer.accepted {
            Progress::Accepted
        } else {
            Progress::Rejected
        });
        true
    }

    /// Gives up all requests of an identity.
    pub fn end_all(&self, identity: &DeviceIdentity) {
        let ended = self.table().remove_all(identity);
        ended.iter().for_each(Request::end);
    }

    /// Refuses new requests and gives up those that wait.
    pub fn close(&self) {
        let ended = self.table().close();
        ended.iter().for_each(Request::end);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.pending.table().withdraw(&self.identity, self.number);
    }
}
