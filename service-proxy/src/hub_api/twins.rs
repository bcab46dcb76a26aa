//! The twin of a device or module: its report of session mode, and whether it is disabled
//! (`docs/protocol.md`, "Twins").

use std::time::{Duration, SystemTime};

use common::identity::DeviceIdentity;
use common::verdict::Verdict;
use common::wire::initiation::Timeouts;
use common::wire::twin::{self, SessionReport};
use http::{Method, StatusCode, header};
use serde_json::Value;

use super::client::RequestError;
use super::problem::{Refusal, Whom};
use super::streams::refusal_body;
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
                if error.verdict() == Verdict::AskPerson && self.token.reload().await =>
            {
                self.twin_once(identity).await
            }
            result => result,
        }
    }

    async fn twin_once(&self, identity: &DeviceIdentity) -> Result<Value, TwinError> {
        let limit = limits::TWIN_READ;
        let authorization = self.authorization().map_err(|_| InitiateError::BadToken)?;
        let request = self
            .http
            .request(Method::GET, &twin::path(identity))
            .header(header::AUTHORIZATION, authorization);
        let answer = self
            .http
            .send(request, limit)
            .await
            .map_err(|error| self.failure(error, limit))?;
        if answer.status != StatusCode::OK {
            let refusal = Refusal {
                status: answer.status,
                headers: answer.headers.clone(),
                body: refusal_body(answer).await,
            };
            let whom = Whom {
                hub: &self.hub,
                policy: &self.token.policy(),
                token_expired: self.token.is_expired(),
                identity,
                // The hub does not wait for the device.
                timeouts: Timeouts {
                    connect: Duration::ZERO,
                    response: Duration::ZERO,
                },
            };
            return Err(refusal.into_error(&whom, SystemTime::now()).into());
        }
        let body = match answer.body(limits::TWIN_DOCUMENT).await {
            Ok(body) => body,
            Err(RequestError::TooLarge) => return Err(TwinError::TooLarge(identity.clone())),
            Err(error) => return Err(self.failure(error, limit).into()),
        };
        serde_json::from_slice(&body).map_err(|_| TwinError::NotJson(identity.clone()))
    }
}
