//! Access that somebody has to approve: asking for it ahead of time, and deciding.

use common::identity::{DeviceIdentity, StreamName};
use common::wire::initiation::encode_segment;
use http::Method;
use serde_json::{Value, json};

use super::HubApi;
use super::call::{self, Call, CallError};

const PATH: &str = "/access/approvals";

impl HubApi {
    /// Asks for access to a target. When the future is dropped, it may have been asked for.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn ask_approval(
        &self,
        identity: &DeviceIdentity,
        target: &StreamName,
        seconds: Option<u64>,
        reason: Option<&str>,
    ) -> Result<Value, CallError> {
        let body = json!({
            "deviceId": identity.device.as_str(),
            "moduleId": identity.module.as_ref().map(|module| module.as_str()),
            "target": target.as_str(),
            "seconds": seconds,
            "reason": reason,
        });
        let call = Call {
            body: Some(body.to_string()),
            identity: Some(identity),
            ..Call::new(Method::POST, call::path(PATH, &[]))
        };
        Ok(self.call(&call).await?.document)
    }

    /// A request. May be dropped.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn approval(&self, id: &str) -> Result<Value, CallError> {
        let call = Call::new(Method::GET, one(id));
        Ok(self.call(&call).await?.document)
    }

    /// The requests that we have made or may decide. May be dropped.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn approvals(&self) -> Result<Vec<Value>, CallError> {
        let call = Call::new(Method::GET, call::path(PATH, &[]));
        match self.call(&call).await?.document {
            Value::Array(requests) => Ok(requests),
            _ => Err(CallError::Answer("an array of requests")),
        }
    }

    /// Decides a request: grants it, for so many seconds perhaps, or refuses it. When the future is
    /// dropped, it may be decided.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn decide_approval(
        &self,
        id: &str,
        is_granted: bool,
        seconds: Option<u64>,
        because: Option<&str>,
    ) -> Result<Value, CallError> {
        let body = json!({ "grant": is_granted, "seconds": seconds, "because": because });
        let call = Call {
            body: Some(body.to_string()),
            ..Call::new(Method::POST, one(id))
        };
        Ok(self.call(&call).await?.document)
    }
}

fn one(id: &str) -> String {
    call::path(&format!("{PATH}/{}", encode_segment(id)), &[])
}
