//! Direct methods: a named function of a connected device is called, and the hub answers with what
//! the device answered.

use std::time::Duration;

use common::identity::DeviceIdentity;
use common::wire::initiation::Timeouts;
use http::Method;
use serde_json::{Value, json};

use super::HubApi;
use super::call::{self, Call, CallError};
use super::twins::twin_path;

use crate::limits;

/// A call of a direct method.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodCall {
    /// The method's name.
    pub name: String,
    /// What the device is given.
    pub payload: Value,
    /// How long the hub waits for an offline device, whole seconds up to 300.
    pub connect: Duration,
    /// How long the hub waits for the device's answer, whole seconds from 5 to 300.
    pub response: Duration,
}

impl MethodCall {
    /// As the hub wants it, also in a job.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "methodName": self.name,
            "payload": self.payload,
            "responseTimeoutInSeconds": self.response.as_secs(),
            "connectTimeoutInSeconds": self.connect.as_secs(),
        })
    }
}

/// What a device answered to a direct method.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodResult {
    /// The device's status, by convention an HTTP status.
    pub status: i64,
    /// Any JSON.
    pub payload: Value,
}

impl HubApi {
    /// Calls a direct method of a device or module. Ends at latest 15 s after both of its time
    /// limits. When the future is dropped, the device may have been called or not.
    ///
    /// # Errors
    /// [`CallError`] when there is no answer of the device.
    pub async fn invoke_method(
        &self,
        identity: &DeviceIdentity,
        method: &MethodCall,
    ) -> Result<MethodResult, CallError> {
        let path = format!("{}/methods", twin_path(identity));
        let call = Call {
            body: Some(method.to_json().to_string()),
            identity: Some(identity),
            timeouts: Timeouts {
                connect: method.connect,
                response: method.response,
            },
            limit: method.connect + method.response + limits::CALL_GRACE,
            most: limits::METHOD_ANSWER,
            ..Call::new(Method::POST, call::path(&path, &[]))
        };
        let mut document = self.call(&call).await?.document;
        let status = document.get("status").and_then(Value::as_i64);
        let payload = document.get_mut("payload").map(Value::take);
        Ok(MethodResult {
            status: status.ok_or(CallError::Answer("that of a method"))?,
            payload: payload.unwrap_or_default(),
        })
    }
}
