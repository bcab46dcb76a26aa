//! Direct methods: ask the device, wait, hand out its answer. [`Invoke`] is the one seam between who
//! calls a method and who holds the device, as [`Initiate`](crate::initiation::Initiate) is for
//! streams.

use std::net::SocketAddr;

use bytes::Bytes;
use common::identity::{DeviceIdentity, MethodName};
use common::wire::method::MethodRequest;
use common::wire::problem::ErrorCode;
use tokio::time::{Duration, Instant};

use crate::events::{Event, Events, Method, MethodOutcome};
use crate::limits;
use crate::pending::{AskRefused, MethodAnswer, MethodCall, NoAnswer};
use crate::refusal::Refusal;
use crate::state::HubState;

/// A service calls a method.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The device or module; it exists.
    pub identity: DeviceIdentity,
    /// The method.
    pub name: MethodName,
    /// JSON.
    pub payload: Bytes,
    /// Who calls.
    pub caller: MethodCaller,
    /// How long the device may take to connect.
    pub connect: Duration,
    /// How long it may take to answer from then on.
    pub response: Duration,
}

/// Who calls a method.
#[derive(Debug, Clone)]
pub struct MethodCaller {
    /// The shared access policy of the token.
    pub policy: String,
    /// The address that the call came from; a job has none.
    pub peer: Option<SocketAddr>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotInvoked {
    /// The device is not here, or takes no direct methods.
    #[error("Timed out waiting for device to connect.")]
    NotOnline,
    /// The device does not answer.
    #[error("Timed out waiting for the response from device.")]
    NoAnswer,
    /// Too many calls wait for the device, or the hub is stopping.
    #[error(transparent)]
    Pending(#[from] AskRefused),
}

impl From<NotInvoked> for Refusal {
    fn from(error: NotInvoked) -> Self {
        let code = match error {
            NotInvoked::Pending(AskRefused::TooMany(over)) => return Self::from(over),
            NotInvoked::NotOnline => ErrorCode::DEVICE_NOT_ONLINE,
            NotInvoked::NoAnswer => ErrorCode::GATEWAY_TIMEOUT,
            NotInvoked::Pending(AskRefused::Stopping) => ErrorCode::SERVICE_UNAVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

/// Who can have a device carry out a method.
pub trait Invoke {
    /// Sends the call to the device once, and waits for its answer as long as the invocation says.
    /// Dropping the future gives it up; the device may carry it out all the same.
    ///
    /// # Errors
    /// [`NotInvoked`].
    fn invoke(
        &self,
        call: &Invocation,
    ) -> impl Future<Output = Result<MethodAnswer, NotInvoked>> + Send;
}

/// In the process that holds the device.
impl Invoke for HubState {
    async fn invoke(&self, call: &Invocation) -> Result<MethodAnswer, NotInvoked> {
        let undecided = Undecided {
            events: &self.events,
            method: Method {
                name: call.name.as_str(),
                device: &call.identity,
                policy: &call.caller.policy,
                peer: call.caller.peer.as_ref(),
            },
            is_decided: false,
        };
        let answered = invoke(self, call).await;
        undecided.decide(match &answered {
            Ok(answer) => MethodOutcome::Answered {
                status: answer.status,
            },
            Err(error) => MethodOutcome::NotAnswered(error),
        });
        answered
    }
}

/// A call without an outcome: dropped, as its invocation is, it was given up.
struct Undecided<'a> {
    events: &'a Events,
    method: Method<'a>,
    is_decided: bool,
}

impl Undecided<'_> {
    fn decide(mut self, outcome: MethodOutcome<'_>) {
        self.is_decided = true;
        self.events.emit(Event::Method(self.method, outcome));
    }
}

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        if !self.is_decided {
            self.events
                .emit(Event::Method(self.method, MethodOutcome::GivenUp));
        }
    }
}

fn report(state: &HubState, refused: &AskRefused, call: &Invocation) {
    if let AskRefused::TooMany(over) = refused {
        state
            .quotas
            .report(over, Some(&call.caller.policy), Some(&call.identity));
    }
}

async fn invoke(state: &HubState, call: &Invocation) -> Result<MethodAnswer, NotInvoked> {
    let Invocation {
        identity,
        name,
        payload,
        ..
    } = call;
    let mut asked = state
        .pending
        .methods
        .ask(identity, |request_id| MethodCall {
            request: MethodRequest {
                name: name.clone(),
                request_id,
            },
            payload: payload.clone(),
        })
        .inspect_err(|refused| report(state, refused, call))?;
    state.presence.wake(identity);
    let is_here = || state.presence.takes_methods(identity);
    if !is_here() {
        // A device that has just connected subscribes in a moment.
        let least = if state.presence.is_connected(identity) {
            limits::METHOD_SUBSCRIBE
        } else {
            Duration::ZERO
        };
        let connect_by = Instant::now() + call.connect.max(least);
        if !asked.is_taken(connect_by).await && !is_here() {
            return Err(NotInvoked::NotOnline);
        }
    }
    let answered = asked.answer(Instant::now() + call.response).await;
    answered.map_err(|none| match none {
        NoAnswer::Ended => NotInvoked::NotOnline,
        NoAnswer::Late => NotInvoked::NoAnswer,
    })
}
