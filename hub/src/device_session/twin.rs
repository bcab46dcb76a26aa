//! What a device asks of its twin, one request after the other, and the answers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use common::identity::{DeviceIdentity, RequestId};
use common::wire::problem::ErrorCode;
use common::wire::twin::{TwinRequest, TwinResponse};
use serde_json::json;

use super::event::TwinAnswer;
use crate::events::{Event, Events, InSession};
use crate::limits::{self, Over};
use crate::refusal::Refusal;
use crate::registry::{Registry, RegistryError, TwinPatch};
use crate::state::HubState;

/// Requests about its twin that are kept of one session, the one that is being answered
/// included. A device that asks for more meanwhile is not read from.
pub const TWIN_REQUESTS: usize = 8;

/// A request about the session's own twin.
struct Waiting {
    request: TwinRequest,
    /// The patch of a report.
    body: Vec<u8>,
    is_answered: bool,
    /// It is one too many.
    over: Option<Over>,
}

/// An answer on its way; `None` if the device takes none.
type Answer = Pin<Box<dyn Future<Output = Option<TwinAnswer>> + Send>>;

/// The requests of one session. They are answered in their order, beside everything else
/// that the session does: a write waits for the disk, and for other devices' writes.
pub(super) struct Requests {
    registry: Arc<dyn Registry>,
    events: Events,
    identity: DeviceIdentity,
    current: Option<Answer>,
    /// The current one is a read.
    reads: bool,
    waiting: VecDeque<Waiting>,
}

impl Requests {
    pub(super) fn new(state: &HubState, identity: DeviceIdentity) -> Self {
        Self {
            registry: Arc::clone(&state.registry),
            events: state.events.clone(),
            identity,
            current: None,
            reads: false,
            waiting: VecDeque::new(),
        }
    }

    /// Whether another request may come: at most [`TWIN_REQUESTS`] are kept.
    pub(super) fn has_room(&self) -> bool {
        usize::from(self.current.is_some()) + self.waiting.len() < TWIN_REQUESTS
    }

    /// Whether the twin is being read. May be asked between two calls of [`next`](Self::next).
    pub(super) fn reads(&self) -> bool {
        self.current.is_some() && self.reads
    }

    /// Takes in a request. One that is not answered is carried out all the same.
    pub(super) fn push(&mut self, request: TwinRequest, mut body: Vec<u8>, is_answered: bool) {
        // As much of a patch that is too large as it takes to be refused.
        body.truncate(limits::TWIN_PATCH + 1);
        body.shrink_to_fit();
        self.waiting.push_back(Waiting {
            request,
            body,
            is_answered,
            over: None,
        });
    }

    /// Takes in a request that is refused when its turn comes: it is one too many.
    pub(super) fn push_refused(&mut self, request: TwinRequest, over: Over, is_answered: bool) {
        self.waiting.push_back(Waiting {
            request,
            body: Vec::new(),
            is_answered,
            over: Some(over),
        });
    }

    /// The next answer. Never ends while nothing is asked. May be dropped: called again, it
    /// goes on with the same request.
    pub(super) async fn next(&mut self) -> Option<TwinAnswer> {
        if self.current.is_none() {
            let next = self.waiting.pop_front();
            self.reads = matches!(&next, Some(next) if matches!(next.request, TwinRequest::Get(_)));
            self.current = next.map(|waiting| self.answer(waiting));
        }
        let Some(current) = &mut self.current else {
            return std::future::pending().await;
        };
        let answer = current.await;
        self.current = None;
        answer
    }

    /// Carries out what was asked, for a device that is gone. May be dropped.
    pub(super) async fn finish(&mut self) {
        while self.current.is_some() || !self.waiting.is_empty() {
            self.next().await;
        }
    }

    fn answer(&self, waiting: Waiting) -> Answer {
        let (registry, identity) = (Arc::clone(&self.registry), self.identity.clone());
        let events = self.events.clone();
        let Waiting {
            request,
            body,
            is_answered,
            over,
        } = waiting;
        Box::pin(async move {
            let answer = match (over, request) {
                (Some(over), TwinRequest::Get(id) | TwinRequest::PatchReported(id)) => {
                    refuse(&events, &identity, id, over)
                }
                (None, TwinRequest::Get(id)) => get(&*registry, &events, &identity, id).await,
                (None, TwinRequest::PatchReported(id)) => {
                    patch_reported(&*registry, &events, &identity, id, &body).await
                }
            };
            is_answered.then_some(answer)
        })
    }
}

/// Reads the twin of this identity: 200 with the document, or a refusal.
async fn get(
    registry: &dyn Registry,
    events: &Events,
    identity: &DeviceIdentity,
    request_id: RequestId,
) -> TwinAnswer {
    let read = async {
        let twin = registry.twin(identity).await?;
        twin.ok_or_else(|| RegistryError::NotFound(identity.clone()))
    };
    match read.await {
        Ok(twin) => {
            let response = TwinResponse {
                request_id,
                status: 200,
                version: None,
            };
            TwinAnswer {
                response,
                body: twin.for_device().to_string(),
                desired: Some(twin.desired.version),
            }
        }
        Err(error) => refuse(events, identity, request_id, error),
    }
}

/// Merges a patch into the reported properties of this identity: 204 with their new
/// version, or a refusal.
async fn patch_reported(
    registry: &dyn Registry,
    events: &Events,
    identity: &DeviceIdentity,
    request_id: RequestId,
    body: &[u8],
) -> TwinAnswer {
    let patched = async {
        let patch = TwinPatch::parse(body)?;
        registry.patch_reported(identity, patch).await
    };
    match patched.await {
        Ok(version) => {
            events.emit(Event::InSession(identity, InSession::Reported { version }));
            let response = TwinResponse {
                request_id,
                status: 204,
                version: Some(version),
            };
            TwinAnswer {
                response,
                body: String::new(),
                desired: None,
            }
        }
        Err(error) => refuse(events, identity, request_id, error),
    }
}

/// One SDK ignores the status: it looks for `errorCode` in the body.
fn refuse(
    events: &Events,
    identity: &DeviceIdentity,
    request_id: RequestId,
    error: impl Into<Refusal>,
) -> TwinAnswer {
    let refusal: Refusal = error.into();
    refusal.report(events);
    let ErrorCode { number, .. } = refusal.code;
    let event = InSession::TwinRefused {
        code: number,
        reason: &refusal,
    };
    events.emit(Event::InSession(identity, event));
    let Refusal { code, message, .. } = refusal;
    let response = TwinResponse {
        request_id,
        status: code.status().as_u16(),
        version: None,
    };
    let body = json!({ "errorCode": number, "message": message }).to_string();
    TwinAnswer {
        response,
        body,
        desired: None,
    }
}
