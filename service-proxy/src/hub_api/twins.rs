//! The twin of a device or module: its report of session mode, whether it is disabled, and the whole
//! document (`docs/protocol.md`, "Twins").

use common::identity::DeviceIdentity;
use common::wire::initiation::encode_segment;
use common::wire::twin::{self, SessionReport};
use http::{HeaderValue, Method, header};
use serde_json::Value;

use super::call::{self, Call, CallError, Failure};
use super::client::RequestError;
use super::{HubApi, InitiateError};

use crate::limits;

/// Why a twin could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// The hub cannot be reached, or refuses: as for a stream.
    #[error(transparent)]
    Hub(#[from] InitiateError),
    /// The document is larger than a twin can be.
    #[error(
        "the hub's twin of {0} is larger than {limit} bytes; is HostName really a hub?",
        limit = limits::TWIN_DOCUMENT
    )]
    TooLarge(DeviceIdentity),
    /// The document is no JSON.
    #[error("the hub's twin of {0} is not JSON; is HostName really a hub?")]
    NotJson(DeviceIdentity),
}

impl HubApi {
    /// What a device or module reports about session mode in its twin; `None` if there is no report
    /// that can be read. Ends within [`limits::TWIN_READ`]. May be dropped.
    ///
    /// # Errors
    /// [`TwinError`] on why it is not known.
    pub async fn session_report(
        &self,
        identity: &DeviceIdentity,
    ) -> Result<Option<SessionReport>, TwinError> {
        let document = self.twin(identity).await?;
        Ok(SessionReport::from_twin(&document))
    }

    /// Whether a device, or a module's device, may not connect, by the status in its twin. A twin
    /// without a status is no reason to think so. Ends within
    /// [`limits::TWIN_READ`]. May be dropped.
    ///
    /// # Errors
    /// [`TwinError`] on why it is not known.
    pub async fn is_disabled(&self, identity: &DeviceIdentity) -> Result<bool, TwinError> {
        let document = self.twin(identity).await?;
        let status = document.get("status").and_then(Value::as_str);
        Ok(status.is_some_and(|status| status.eq_ignore_ascii_case("disabled")))
    }

    async fn twin(&self, identity: &DeviceIdentity) -> Result<Value, TwinError> {
        match self.twin_once(identity).await {
            Err(TwinError::Hub(error))
                if error.is_about_credential() && self.another_credential().await? =>
            {
                self.twin_once(identity).await
            }
            result => result,
        }
    }

    async fn twin_once(&self, identity: &DeviceIdentity) -> Result<Value, TwinError> {
        let call = Call {
            identity: Some(identity),
            limit: limits::TWIN_READ,
            ..Call::new(Method::GET, twin::path(identity))
        };
        let answer = self.ask(&call).await.map_err(|failure| match failure {
            Failure::Hub(error) => error,
            Failure::Refused(refusal) => self.refused(refusal, &call),
        })?;
        let body = match answer.body(limits::TWIN_DOCUMENT).await {
            Ok(body) => body,
            Err(RequestError::TooLarge) => return Err(TwinError::TooLarge(identity.clone())),
            Err(error) => return Err(self.failure(error, call.limit).into()),
        };
        serde_json::from_slice(&body).map_err(|_| TwinError::NotJson(identity.clone()))
    }

    /// Reads the whole twin of a device or module. May be dropped.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn read_twin(&self, identity: &DeviceIdentity) -> Result<Value, CallError> {
        self.twin_call(Method::GET, identity, None).await
    }

    /// The same with one request: what the hub says to it is not tried again.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn examine_twin(&self, identity: &DeviceIdentity) -> Result<Value, CallError> {
        let call = Call {
            identity: Some(identity),
            most: limits::TWIN_DOCUMENT,
            ..Call::new(Method::GET, call::path(&twin_path(identity), &[]))
        };
        Ok(self.call_once(&call).await?.document)
    }

    /// Merges a patch of tags and desired properties into a twin, and returns the whole new one.
    /// With an etag only if the twin still has that. When the future is dropped, the twin may be
    /// changed or not.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn patch_twin(
        &self,
        identity: &DeviceIdentity,
        patch: &Value,
        etag: Option<&str>,
    ) -> Result<Value, CallError> {
        let change = Some((patch, etag));
        self.twin_call(Method::PATCH, identity, change).await
    }

    /// Replaces tags and desired properties of a twin as a whole, and returns the whole new one;
    /// otherwise as [`Self::patch_twin`].
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn replace_twin(
        &self,
        identity: &DeviceIdentity,
        document: &Value,
        etag: Option<&str>,
    ) -> Result<Value, CallError> {
        let change = Some((document, etag));
        self.twin_call(Method::PUT, identity, change).await
    }

    async fn twin_call(
        &self,
        method: Method,
        identity: &DeviceIdentity,
        change: Option<(&Value, Option<&str>)>,
    ) -> Result<Value, CallError> {
        let mut call = Call {
            identity: Some(identity),
            most: limits::TWIN_DOCUMENT,
            ..Call::new(method, call::path(&twin_path(identity), &[]))
        };
        if let Some((body, etag)) = change {
            let condition = HeaderValue::from_str(&quoted(etag.unwrap_or("*")))
                .map_err(|_| CallError::BadEtag)?;
            call.headers.push((header::IF_MATCH, condition));
            call.body = Some(body.to_string());
        }
        Ok(self.call(&call).await?.document)
    }
}

/// The path of a twin, without a query.
pub(super) fn twin_path(identity: &DeviceIdentity) -> String {
    let device = encode_segment(identity.device.as_str());
    match &identity.module {
        None => format!("/twins/{device}"),
        Some(module) => format!(
            "/twins/{device}/modules/{}",
            encode_segment(module.as_str())
        ),
    }
}

/// An etag as it stands in `If-Match`, where twins and headers differ in their quotes.
fn quoted(etag: &str) -> String {
    format!("\"{}\"", etag.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use common::identity::{DeviceId, ModuleId};

    use super::*;

    #[test]
    fn paths_are_encoded_and_etags_quoted() {
        let device = DeviceId::parse("a#b").unwrap();
        let identity = DeviceIdentity::of_module(device, ModuleId::parse("m%").unwrap());
        assert_eq!(twin_path(&identity), "/twins/a%23b/modules/m%25");
        assert_eq!(quoted("*"), "\"*\"");
        assert_eq!(quoted("\"AAAA=\""), "\"AAAA=\"");
    }
}
