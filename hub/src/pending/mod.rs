//! Requests that wait for a device's answer: asked, delivered, then answered or given up. They
//! belong to the identity and not to a connection of it: the answer counts on whichever hub session
//! it comes.
//!
//! The rules are in [`table`]; here are the lock and the channels. What a request is about, and
//! what follows from its answer, is the affair of who asks.

mod method;
mod table;

use std::sync::{Arc, Mutex, MutexGuard};

use common::identity::{DeviceIdentity, RequestId};
use common::locks::lock;
use common::wire::stream::StreamRequest;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

pub use method::{MethodAnswer, MethodCall};
use table::Table;
pub use table::{AskRefused, Repeats};

use crate::presence::HubSessionId;

/// How far a request has come; `A` is the device's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<A> {
    /// No hub session has taken it.
    Waiting,
    /// It went to the device.
    Delivered,
    /// The device has answered.
    Answered(A),
    /// The hub has given it up.
    Ended,
}

/// A request and who waits for its answer.
struct Request<R, A> {
    request: R,
    progress: watch::Sender<Progress<A>>,
}

/// All requests of one kind that wait in one hub process. Cheap to clone.
pub struct Desk<R, A>(Arc<Mutex<Table<Request<R, A>>>>);

impl<R, A> Clone for Desk<R, A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A request that waits; it is withdrawn when this is dropped.
pub struct Asked<R, A> {
    desk: Desk<R, A>,
    identity: DeviceIdentity,
    number: u64,
    progress: watch::Receiver<Progress<A>>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// The hub has given the request up.
    Ended,
    /// It did not come in time.
    Late,
}

impl<R: Clone, A: Clone> Desk<R, A> {
    /// None yet, and never more than `most` of one identity.
    fn new(most: usize, repeats: Repeats) -> Self {
        let start = u64::from(u32::from_be_bytes(common::random::bytes()) % 100_000);
        Self(Arc::new(Mutex::new(Table::new(start, most, repeats))))
    }

    fn table(&self) -> MutexGuard<'_, Table<Request<R, A>>> {
        lock(&self.0)
    }

    /// Asks an identity; `make` is given the request's id. The hub session has to be woken to send
    /// it.
    ///
    /// # Errors
    /// [`AskRefused`].
    pub fn ask(
        &self,
        identity: &DeviceIdentity,
        make: impl FnOnce(RequestId) -> R,
    ) -> Result<Asked<R, A>, AskRefused> {
        let (sender, progress) = watch::channel(Progress::Waiting);
        let number = self.table().ask(identity, |number| Request {
            request: make(RequestId::from(number)),
            progress: sender,
        })?;
        Ok(Asked {
            desk: self.clone(),
            identity: identity.clone(),
            number,
            progress,
        })
    }

    /// The requests that wait for this identity and are to go to this hub session.
    pub fn take(&self, identity: &DeviceIdentity, session: HubSessionId) -> Vec<R> {
        let mut table = self.table();
        let undelivered = table.undelivered(identity, session).into_iter();
        undelivered
            .map(|Request { request, progress }| {
                progress.send_replace(Progress::Delivered);
                request.clone()
            })
            .collect()
    }

    /// The device's answer to a request, on whichever hub session it came. `false`: no such
    /// request waits (it is unknown, answered or expired), and the answer means nothing.
    pub fn answer(&self, identity: &DeviceIdentity, request: &RequestId, answer: A) -> bool {
        let Ok(number) = request.as_str().parse() else {
            return false;
        };
        let Some(request) = self.table().answer(identity, number) else {
            return false;
        };
        request.progress.send_replace(Progress::Answered(answer));
        true
    }

    /// Gives up all requests of an identity.
    pub fn end_all(&self, identity: &DeviceIdentity) {
        end(&self.table().remove_all(identity));
    }

    /// Refuses new requests and gives up those that wait.
    pub fn close(&self) {
        end(&self.table().close());
    }
}

fn end<R, A>(requests: &[Request<R, A>]) {
    for request in requests {
        request.progress.send_replace(Progress::Ended);
    }
}

impl<R, A: Clone> Asked<R, A> {
    /// What has become of it so far.
    pub fn progress(&self) -> Progress<A> {
        self.progress.borrow().clone()
    }

    /// Waits until a hub session has taken the request, or it has ended; `false` when `until` comes
    /// first. May be dropped and called again.
    pub async fn is_taken(&mut self, until: Instant) -> bool {
        let taken = self
            .progress
            .wait_for(|progress| !matches!(progress, Progress::Waiting));
        timeout_at(until, taken).await.is_ok()
    }

    /// Waits for the device's answer until then. May be dropped and called again.
    ///
    /// # Errors
    /// [`NoAnswer`].
    pub async fn answer(&mut self, until: Instant) -> Result<A, NoAnswer> {
        let answered = self
            .progress
            .wait_for(|progress| matches!(progress, Progress::Answered(_) | Progress::Ended));
        match timeout_at(until, answered).await {
            Ok(Ok(progress)) => match &*progress {
                Progress::Answered(answer) => Ok(answer.clone()),
                _ => Err(NoAnswer::Ended),
            },
            Ok(Err(_)) => Err(NoAnswer::Ended),
            Err(_) => Err(NoAnswer::Late),
        }
    }
}

impl<R, A> Drop for Asked<R, A> {
    fn drop(&mut self) {
        lock(&self.desk.0).withdraw(&self.identity, self.number);
    }
}

/// All requests that wait in one hub process. Cheap to clone.
#[derive(Clone)]
pub struct Pending {
    /// To take a stream: whether the device does.
    pub streams: Desk<StreamRequest, bool>,
    /// To carry out a direct method.
    pub methods: Desk<MethodCall, MethodAnswer>,
}

impl Pending {
    /// None yet, and never more than so many of one kind and identity.
    pub fn new(most: usize) -> Self {
        Self {
            streams: Desk::new(most, Repeats::ToNextSession),
            methods: Desk::new(most, Repeats::Never),
        }
    }

    /// From now on never more than so many of one kind and identity.
    pub fn set_most(&self, most: usize) {
        self.streams.table().set_most(most);
        self.methods.table().set_most(most);
    }

    /// Gives up all requests of an identity.
    pub fn end_all(&self, identity: &DeviceIdentity) {
        self.streams.end_all(identity);
        self.methods.end_all(identity);
    }

    /// Refuses new requests and gives up those that wait.
    pub fn close(&self) {
        self.streams.close();
        self.methods.close();
    }
}
