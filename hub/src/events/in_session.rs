//! What happens in a device's session between its beginning and its end.

use common::identity::{RequestId, StreamId};

use super::Reason;

/// Something that happened in a session.
#[derive(Clone, Copy)]
pub enum InSession<'a> {
    /// A stream request goes to the device.
    StreamRequest {
        /// The stream's id, which is in its URL.
        stream: Option<&'a StreamId>,
        /// The stream's name.
        name: &'a str,
        /// The request's id.
        request: &'a RequestId,
    },
    /// The device answers one.
    StreamAnswer {
        /// The request's id.
        request: &'a RequestId,
        /// Whether it takes the stream.
        is_accepted: bool,
        /// Whether such a request waits; else the answer means nothing.
        is_known: bool,
    },
    /// A call of a direct method goes to the device.
    MethodCall {
        /// The method.
        name: &'a str,
        /// The request's id.
        request: &'a RequestId,
    },
    /// The device answers one.
    MethodAnswer {
        /// The request's id.
        request: &'a RequestId,
        /// The status that the device has chosen.
        status: i32,
        /// Whether such a call waits; else the answer means nothing.
        is_known: bool,
    },
    /// The device has reported properties, and the registry has them.
    Reported {
        /// Their new version.
        version: u64,
    },
    /// What the device wants of its twin is refused.
    TwinRefused {
        /// The error code's number.
        code: u32,
        /// The answer to the device.
        reason: Reason<'a>,
    },
    /// Messages to the device cannot be read, or not be forgotten: they are delivered later, or
    /// again.
    MessagesFailed(Reason<'a>),
    /// The device sends telemetry, for the first time in this session.
    Telemetry,
    /// What the device has subscribed in earlier connections is damaged in the registry.
    SubscriptionsDamaged(Reason<'a>),
    /// What the device subscribes is not stored.
    SubscriptionsNotStored(Reason<'a>),
}
