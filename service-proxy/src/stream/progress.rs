//! How far the opening of a stream has come, for one line to a person who waits.

use std::sync::Mutex;

use common::identity::StreamId;
use common::limits;
use common::locks::lock;
use common::wire::initiation::Timeouts;

/// The step that is being taken, for the person who waits.
pub(super) struct Progress(Mutex<Step>);

impl Progress {
    /// At this step.
    pub(super) fn new(step: Step) -> Self {
        Self(Mutex::new(step))
    }

    /// The next step is taken.
    pub(super) fn set(&self, step: Step) {
        *lock(&self.0) = step;
    }

    /// The present step.
    pub(super) fn get(&self) -> Step {
        *lock(&self.0)
    }
}

/// What is being waited for.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// The hub's answer, and the device's.
    Answer,
    /// The hub's leave to ask again.
    Throttled,
    /// Somebody who approves it.
    Approval,
    /// Our leg of the stream with this id.
    Endpoint(Option<StreamId>),
}

impl Step {
    /// The stream's id, once it is known.
    pub(super) fn stream(self) -> Option<StreamId> {
        match self {
            Self::Endpoint(id) => id,
            Self::Answer | Self::Throttled | Self::Approval => None,
        }
    }

    /// What is being waited for, and how long at most.
    pub(super) fn describe(self, timeouts: Timeouts) -> String {
        let handshake = (timeouts.connect + timeouts.response).min(limits::STREAM_HANDSHAKE);
        match self {
            Self::Answer => format!(
                "the device to connect to the hub and to answer, up to {} s",
                handshake.as_secs_f32()
            ),
            Self::Throttled => format!(
                "the hub, which throttles, up to {} s",
                (timeouts.connect + timeouts.response).as_secs_f32()
            ),
            Self::Approval => "somebody to approve it".to_owned(),
            Self::Endpoint(_) => format!(
                "the streaming endpoint, up to {} s",
                2 * limits::DIAL.as_secs()
            ),
        }
    }
}
