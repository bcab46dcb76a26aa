//! What a device asks of its twin, one request after the other, and the answers as MQTT
//! packets.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use common::identity::{DeviceIdentity, RequestId};
use common::mqtt;
use common::wire::problem::ErrorCode;
use common::wire::twin::TwinResponse;
use serde_json::{Value, json};

use crate::limits;
use crate::refusal::Refusal;
use crate::registry::{Registry, RegistryError, TwinPatch};

/// A request about the session's own twin.
pub(super) enum Request {
    Get(RequestId),
    PatchReported(RequestId, Vec<u8>),
}

/// An answer on its way; `None` if there is nothing to write.
type Answer = Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>>;

/// The requests of one session. They are answered in their order, beside everything else
/// that the session does: a write waits for the disk, and for other devices' writes.
pub(super) struct Requests {
    registry: Arc<dyn Registry>,
    identity: DeviceIdentity,
    current: Option<Answer>,
    /// Each with whether it is not to be answered.
    waiting: VecDeque<(Request, bool)>,
}

impl Requests {
    pub(super) fn new(registry: Arc<dyn Registry>, identity: DeviceIdentity) -> Self {
        Self {
            registry,
            identity,
            current: None,
            waiting: VecDeque::new(),
        }
    }

    /// Whether another request may come: at most [`limits::TWIN_REQUESTS`] are kept.
    pub(super) fn has_room(&self) -> bool {
        usize::from(self.current.is_some()) + self.waiting.len() < limits::TWIN_REQUESTS
    }

    /// Takes in a request. One that `is_silent` is carried out, and not answered.
    pub(super) fn push(&mut self, mut request: Request, is_silent: bool) {
        if let Request::PatchReported(_, body) = &mut request {
            // As much of a patch that is too large as it takes to be refused.
            body.truncate(limits::TWIN_PATCH + 1);
            body.shrink_to_fit();
        }
        self.waiting.push_back((request, is_silent));
    }

    /// The next answer. Never ends while nothing is asked. Cancel-safe: called again, it
    /// goes on with the same request.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        if self.current.is_none() {
            let next = self.waiting.pop_front();
            self.current = next.map(|(request, is_silent)| self.answer(request, is_silent));
        }
        let Some(current) = &mut self.current else {
            return std::future::pending().await;
        };
        let answer = current.await;
        self.current = None;
        answer
    }

    /// Carries out what was asked, for a device that is gone.
    pub(super) async fn finish(&mut self) {
        while self.current.is_some() || !self.waiting.is_empty() {
            self.next().await;
        }
    }

    fn answer(&self, request: Request, is_silent: bool) -> Answer {
        let (registry, identity) = (Arc::clone(&self.registry), self.identity.clone());
        Box::pin(async move {
            let answer = match request {
                Request::Get(id) => get(&*registry, &identity, id).await,
                Request::PatchReported(id, body) => {
                    patch_reported(&*registry, &identity, id, &body).await
                }
            };
            answer.filter(|_| !is_silent)
        })
    }
}

/// Reads the twin of this identity: 200 with the document, or a refusal.
async fn get(
    registry: &dyn Registry,
    identity: &DeviceIdentity,
    request_id: RequestId,
) -> Option<Vec<u8>> {
    let read = async {
        let twin = registry.twin(identity).await?;
        let twin = twin.ok_or_else(|| RegistryError::NotFound(identity.clone()))?;
        Ok(twin.for_device())
    };
    match read.await {
        Ok(document) => {
            let response = TwinResponse {
                request_id,
                status: 200,
                version: None,
            };
            publish(&response, Some(&document))
        }
        Err(error) => refuse(identity, request_id, error),
    }
}

/// Merges a patch into the reported properties of this identity: 204 with their new
/// version, or a refusal.
async fn patch_reported(
    registry: &dyn Registry,
    identity: &DeviceIdentity,
    request_id: RequestId,
    body: &[u8],
) -> Option<Vec<u8>> {
    let patched = async {
        let patch = TwinPatch::parse(body)?;
        registry.patch_reported(identity, patch).await
    };
    match patched.await {
        Ok(version) => {
            tracing::debug!(device = %identity, version, "reported properties");
            let response = TwinResponse {
                request_id,
                status: 204,
                version: Some(version),
            };
            publish(&response, None)
        }
        Err(error) => refuse(identity, request_id, error),
    }
}

/// One SDK ignores the status: it looks for `errorCode` in the body.
fn refuse(
    identity: &DeviceIdentity,
    request_id: RequestId,
    error: RegistryError,
) -> Option<Vec<u8>> {
    let Refusal { code, message, .. } = error.into();
    tracing::debug!(device = %identity, code = code.number, "twin request refused: {message}");
    let ErrorCode { number, .. } = code;
    let response = TwinResponse {
        request_id,
        status: code.status().as_u16(),
        version: None,
    };
    let body = json!({ "errorCode": number, "message": message });
    publish(&response, Some(&body))
}

fn publish(response: &TwinResponse, body: Option<&Value>) -> Option<Vec<u8>> {
    let body = body.map(Value::to_string).unwrap_or_default();
    mqtt::publish_with(&response.to_topic(), body.as_bytes())
        .inspect_err(|error| tracing::error!("a twin answer cannot be written: {error:?}"))
        .ok()
}
