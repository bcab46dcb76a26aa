//! What a device and the hub have for each other in a session, in no protocol: whatever carries a
//! session reads [`DeviceEvent`]s out of it and writes [`DeviceCommand`]s into it.

use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::twin::{TwinRequest, TwinResponse};

use crate::presence::EndReason;

/// What a device does.
#[derive(Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// It takes stream requests from now on, or no longer.
    StreamRequests(bool),
    /// It accepts or rejects a stream.
    StreamAnswer(StreamAnswer),
    /// It reads its twin, or reports properties.
    Twin {
        /// What it asks for.
        request: TwinRequest,
        /// The patch of a report, not looked at yet; empty for a read.
        body: Vec<u8>,
        /// Whether it takes the answer.
        is_answered: bool,
    },
    /// It sends a telemetry message, which this hub does not route yet.
    Telemetry,
}

/// What the hub has for a device.
#[derive(Debug)]
pub enum DeviceCommand {
    /// A service asks it for a stream.
    StreamRequest(StreamRequest),
    /// The answer to a request about its twin.
    TwinAnswer(TwinAnswer),
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
}

/// Why the hub ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HubEnd {
    /// The SAS token that it was opened with has expired.
    #[error("its SAS token expired")]
    TokenExpired,
    /// Another session has taken its place, or its identity may no longer connect.
    #[error("{}", match .0 { EndReason::Displaced => "the same identity connected again", EndReason::Revoked => "the identity was disabled, deleted or given other keys" })]
    Ended(EndReason),
    /// The hub stops.
    #[error("the hub is stopping")]
    Stopping,
}
