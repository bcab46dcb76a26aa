//! Access that somebody has to approve. A stream initiation that needs it becomes a request in the
//! registry, waits here for a moment, and is then answered with "not yet"; whoever asks repeats it,
//! and each time everything is judged anew: who it is, what the access file says, and whether the
//! request was granted. So nothing is kept in this process, and a hub that is started again goes on
//! where it was.
//!
//! Deciding happens elsewhere: `stream-hub approvals` in another process, or an approver over REST.
//! [`follow`] tells a webhook of it, and takes care that it has effect on what is open.

mod webhook;

use std::time::Duration;

use common::clock::unix_now;
use common::identity::{DeviceIdentity, StreamName};
use common::optional::or_never;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::access::{Approval, target_of};
use crate::auth::ServicePrincipal;
use crate::events::{Event, Fault};
use crate::legs::Grant;
use crate::limits;
use crate::registry::{ApprovalAsk, ApprovalState, ApprovalVerdict, RegistryError};
use crate::state::HubState;

pub use self::webhook::{Webhook, WebhookError, WebhookSettings};

/// How often it is looked for decisions.
const LOOK: Duration = Duration::from_secs(1);

/// What has become of a request for a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It is granted; the grant, if open streams end with it.
    Granted(Option<Grant>),
    /// It waits for an approver, or was decided just now: ask again.
    Waiting {
        /// The request.
        id: String,
        /// Whether to ask at once.
        is_decided: bool,
    },
    /// An approver has refused it.
    Refused {
        /// The request.
        id: String,
        /// By whom.
        by: String,
        /// Why.
        because: Option<String>,
    },
}

/// Asks for approval, and, of a request that was made before, waits for a moment. Dropped, the request waits on for
/// [`limits::APPROVAL_REPEAT`], in which it may be asked for again.
///
/// # Errors
/// The registry's.
pub async fn admit(
    state: &HubState,
    caller: &ServicePrincipal,
    identity: &DeviceIdentity,
    name: &StreamName,
    approval: &Approval,
) -> Result<Admission, RegistryError> {
    let now = unix_now();
    let target = StreamName::parse(target_of(name.as_str()));
    let ask = ApprovalAsk {
        caller: caller.policy.clone(),
        person: caller.login.as_deref().cloned(),
        identity: identity.clone(),
        target: target.unwrap_or_else(|_| name.clone()),
        reason: None,
        by: approval.by.clone(),
        lasts: approval.lasts.as_secs(),
        most: approval.lasts.as_secs(),
        waits_until: now
            .saturating_add(limits::APPROVAL_HOLD.as_secs())
            .saturating_add(limits::APPROVAL_REPEAT.as_secs()),
    };
    let request = state.registry.ask_approval(ask, false, now).await?;
    if let Some(until) = request.granted_under(&approval.by, approval.lasts.as_secs(), now) {
        let request = request.id.into();
        let grant = Grant { request, until };
        return Ok(Admission::Granted(approval.cuts.then_some(grant)));
    }
    // Whoever is the first to ask learns at once what is waited for.
    if request.asked >= now && matches!(request.state, ApprovalState::Waiting) {
        return Ok(Admission::Waiting {
            id: request.id,
            is_decided: false,
        });
    }
    let until = Instant::now() + limits::APPROVAL_HOLD;
    let mut newest = request;
    loop {
        match newest.state {
            ApprovalState::Decided {
                by,
                verdict: ApprovalVerdict::Refused(because),
                ..
            } => {
                return Ok(Admission::Refused {
                    id: newest.id,
                    by: by.name,
                    because,
                });
            }
            ApprovalState::Decided { .. } => {
                return Ok(Admission::Waiting {
                    id: newest.id,
                    is_decided: true,
                });
            }
            ApprovalState::Waiting if Instant::now() >= until => {
                return Ok(Admission::Waiting {
                    id: newest.id,
                    is_decided: false,
                });
            }
            ApprovalState::Waiting => {}
        }
        sleep(LOOK).await;
        let again = state.registry.approval(&newest.id).await?;
        // Another one of the caller's has taken its place.
        let Some(again) = again else {
            return Ok(Admission::Waiting {
                id: newest.id,
                is_decided: true,
            });
        };
        newest = again;
    }
}

/// Tells the webhook of requests and decisions, and ends the streams whose grants were taken back, for
/// ever. The log has them from the registry's notes.
///
/// Ends by being dropped.
pub async fn follow(state: HubState, webhook: Option<Webhook>) {
    let failed = |error: &RegistryError| {
        let fault = Fault::ApprovalsNotFollowed(error);
        state.events.emit(Event::Fault(fault));
    };
    let telling = or_never(
        webhook
            .as_ref()
            .map(|it| it.run(&*state.registry, &state.events)),
    );
    let looking = async {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = end_taken_back(&state).await {
                failed(&error);
            }
            if webhook.is_none() {
                // Nobody takes them.
                let forgotten = state.registry.forget_approval_news(None);
                forgotten.await.unwrap_or_else(|error| failed(&error));
            }
        }
    };
    tokio::select! {
        () = looking => {}
        () = telling => {}
    }
}

/// Ends the streams whose rule wants that they end with their grant, and whose grant was taken back.
/// Looks at all of them: a decision that came while a stream was opened is seen as well.
async fn end_taken_back(state: &HubState) -> Result<(), RegistryError> {
    let grants = state.legs.grants();
    if grants.is_empty() {
        return Ok(());
    }
    let taken_back = state.registry.taken_back(grants.into_iter().collect());
    for request in taken_back.await? {
        state.legs.end_all_of_grant(&request);
    }
    Ok(())
}
