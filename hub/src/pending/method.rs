//! A call of a direct method on its way to a device, and the answer.

use bytes::Bytes;
use common::wire::method::MethodRequest;

/// A call as it goes to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodCall {
    /// The method, and the request's id.
    pub request: MethodRequest,
    /// JSON; `null` when the caller gives none: SDKs parse whatever comes.
    pub payload: Bytes,
}

/// What a device answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MethodAnswer {
    /// Any number that the device chooses.
    pub status: i32,
    /// JSON, as far as the device keeps to it; may be empty.
    pub payload: Bytes,
}
