//! What a device and the hub have for each other in a session, in no protocol: whatever carries a
//! session reads [`DeviceEvent`]s out of it and writes [`DeviceCommand`]s into it.

use bytes::Bytes;
use common::identity::RequestId;
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::twin::{TwinRequest, TwinResponse};

use crate::pending::{MethodAnswer, MethodCall};
use crate::presence::{DesiredUpdate, EndReason};
use crate::registry::Message;

/// What a device does.
#[derive(Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// It takes stream requests from now on, or no longer.
    StreamRequests(bool),
    /// It accepts or rejects a stream.
    StreamAnswer(StreamAnswer),
    /// It takes calls of direct methods from now on, or no longer.
    MethodCalls(bool),
    /// It answers one.
    MethodAnswer {
        /// Which.
        request: RequestId,
        /// Its answer.
        answer: MethodAnswer,
    },
    /// It is sent changes of its desired properties from now on, or no longer.
    DesiredUpdates(bool),
    /// It reads its twin, or reports properties.
    Twin {
        /// What it asks for.
        request: TwinRequest,
        /// The patch of a report, not looked at yet; empty for a read.
        body: Vec<u8>,
        /// Whether it takes the answer.
        is_answered: bool,
    },
    /// It takes messages from now on, or no longer.
    Messages(bool),
    /// It has taken one, by its sequence.
    MessageTaken(u64),
    /// It sends a telemetry message.
    Telemetry {
        /// Its properties, as they stand in the topic of MQTT.
        properties: String,
        /// Its content.
        payload: Bytes,
    },
}

/// What the hub has for a device.
#[derive(Debug)]
pub enum DeviceCommand {
    /// A service asks it for a stream.
    StreamRequest(StreamRequest),
    /// A service calls one of its methods.
    MethodCall(MethodCall),
    /// The answer to a request about its twin.
    TwinAnswer(TwinAnswer),
    /// A service has sent it a message.
    Message(Message),
    /// A service has changed its desired properties.
    Desired(DesiredUpdate),
    /// Its session is over.
    End(HubEnd),
}

/// An answer to a [`DeviceEvent::Twin`].
#[derive(Debug)]
pub struct TwinAnswer {
    /// Which request is answered, and how.
    pub response: TwinResponse,
    /// The twin, or the reason of a refusal, as JSON; empty when there is nothing to send.
    pub body: String,
    /// The version of the desired properties in it, if it is the twin.
    pub desired: Option<u64>,
}

/// Why the hub ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HubEnd {
    /// The SAS token, or the certificate of a CA, that it was opened with has expired.
    #[error("its SAS token or certificate expired")]
    Expired,
    /// Another session has taken its place, or its identity may no longer connect.
    #[error("{}", ended(.0))]
    Ended(EndReason),
    /// The hub stops.
    #[error("the hub is stopping")]
    Stopping,
}

fn ended(reason: &EndReason) -> &'static str {
    match reason {
        EndReason::Displaced => "the same identity connected again",
        EndReason::Revoked => {
            "the identity was disabled, deleted or given other keys, or its certificate is not believed any more"
        }
        EndReason::Behind => "its desired properties change faster than it takes them",
    }
}
