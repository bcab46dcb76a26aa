//! Cloud-to-device messages of one session: read from the registry as the device takes them, and
//! gone there once it has.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use common::identity::DeviceId;

use crate::events::{Event, Events, InSession};
use crate::registry::{Message, Registry, RegistryError, activity};
use crate::state::HubState;

/// Messages on their way to the device, and not taken yet.
const IN_FLIGHT: usize = 8;

/// What the registry is asked; one thing after the other.
type Asking = Pin<Box<dyn Future<Output = Result<Vec<Message>, RegistryError>> + Send>>;

/// The messages of one device's session.
pub(super) struct Inbox {
    registry: Arc<dyn Registry>,
    events: Events,
    device: DeviceId,
    is_wanted: bool,
    /// There may be messages behind [`last`](Self::last).
    may_have_more: bool,
    /// The last message that was read in this session.
    last: u64,
    waiting: VecDeque<Message>,
    in_flight: BTreeSet<u64>,
    /// What the device has taken, and the registry does not know.
    taken: Vec<u64>,
    asking: Option<Asking>,
}

impl Inbox {
    pub(super) fn new(state: &HubState, device: DeviceId) -> Self {
        Self {
            registry: Arc::clone(&state.registry),
            events: state.events.clone(),
            device,
            is_wanted: false,
            may_have_more: true,
            last: 0,
            waiting: VecDeque::new(),
            in_flight: BTreeSet::new(),
            taken: Vec::new(),
            asking: None,
        }
    }

    /// The device subscribes messages, or no longer does.
    pub(super) fn want(&mut self, is_wanted: bool) {
        self.is_wanted = is_wanted;
    }

    /// There may be a new message.
    pub(super) fn look(&mut self) {
        self.may_have_more = true;
    }

    /// The device has taken a message.
    pub(super) fn take(&mut self, sequence: u64) {
        if self.in_flight.remove(&sequence) {
            self.taken.push(sequence);
        }
    }

    /// The next message for the device. Never ends while there is none. May be dropped: called
    /// again, it goes on.
    pub(super) async fn next(&mut self) -> Message {
        loop {
            if self.is_wanted
                && self.in_flight.len() < IN_FLIGHT
                && let Some(message) = self.waiting.pop_front()
            {
                self.in_flight.insert(message.sequence);
                return message;
            }
            if self.asking.is_none() {
                self.asking = self.ask();
            }
            let Some(asking) = &mut self.asking else {
                return std::future::pending().await;
            };
            let read = asking.await;
            self.asking = None;
            self.answered(read);
        }
    }

    /// Tells the registry what the device has taken, for one that is gone. May be dropped.
    pub(super) async fn finish(&mut self) {
        self.is_wanted = false;
        while self.asking.is_some() || !self.taken.is_empty() {
            if self.asking.is_none() {
                self.asking = self.ask();
            }
            if let Some(asking) = &mut self.asking {
                let read = asking.await;
                self.asking = None;
                self.answered(read);
            }
        }
    }

    fn ask(&mut self) -> Option<Asking> {
        let (registry, device) = (Arc::clone(&self.registry), self.device.clone());
        if !self.taken.is_empty() {
            let taken = std::mem::take(&mut self.taken);
            return Some(Box::pin(async move {
                registry.complete_messages(&device, taken).await?;
                Ok(Vec::new())
            }));
        }
        let has_room = self.waiting.is_empty() && self.in_flight.len() < IN_FLIGHT;
        if !(self.is_wanted && self.may_have_more && has_room) {
            return None;
        }
        self.may_have_more = false;
        let after = self.last;
        Some(Box::pin(async move {
            let now = activity::now();
            registry
                .deliver_messages(&device, after, IN_FLIGHT, now)
                .await
        }))
    }

    fn answered(&mut self, read: Result<Vec<Message>, RegistryError>) {
        match read {
            Ok(messages) => {
                if let Some(last) = messages.last() {
                    self.last = last.sequence;
                    self.may_have_more |= messages.len() == IN_FLIGHT;
                }
                self.waiting.extend(messages);
            }
            // What is not delivered stays, and what is not completed is delivered again.
            Err(error) => {
                let id = common::identity::DeviceIdentity::of_device(self.device.clone());
                self.events
                    .emit(Event::InSession(&id, InSession::MessagesFailed(&error)));
            }
        }
    }
}
