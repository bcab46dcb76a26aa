//! Requests for access that a person has to approve, and what has become of them.

use std::sync::Arc;

use async_trait::async_trait;
use common::identity::{DeviceIdentity, StreamName};

use super::{Login, RegistryError};

/// Requests of one caller that may wait at once; the oldest gives way.
pub const WAITING_PER_CALLER: u32 = 64;
/// How long a refusal answers the same request again, in seconds: whoever was refused does not ask
/// an approver again by trying again.
pub const REFUSAL_STANDS: u64 = 300;
/// How long decided and withdrawn requests are kept, in seconds.
pub const KEPT: u64 = 30 * 86_400;

/// Which requests there are. Each future may be dropped: a change is then carried out all the same.
#[async_trait]
pub trait Approvals: Send + Sync + 'static {
    /// The request of this caller for this target that has a say: the one that is granted for the
    /// longest, whatever was asked for besides; else the newest that waits; else the newest that was
    /// refused a moment ago; else a new one. One that waits does so for as long as `ask` says at
    /// least, and whatever the rule says now holds for it. `is_explicit`: a refusal does not count,
    /// and what is granted is enough only if it lasts as long as is asked for.
    async fn ask_approval(
        &self,
        ask: ApprovalAsk,
        is_explicit: bool,
        now: u64,
    ) -> Result<ApprovalRequest, RegistryError>;

    /// One request.
    async fn approval(&self, id: &str) -> Result<Option<ApprovalRequest>, RegistryError>;

    /// Those that wait or are granted at `now`, or all; the newest first, at most 1,000.
    async fn approvals(&self, now: u64, all: bool) -> Result<Vec<ApprovalRequest>, RegistryError>;

    /// Decides one that waits, or refuses one that is decided: what was granted can be taken back,
    /// and what was refused or is over is asked for anew.
    async fn decide_approval(
        &self,
        id: &str,
        verdict: ApprovalVerdict,
        by: Decider,
        now: u64,
    ) -> Result<ApprovalOutcome, RegistryError>;

    /// Of these requests, which were granted, those that are not any more: refused later, or gone.
    async fn taken_back(&self, ids: Vec<Arc<str>>) -> Result<Vec<Arc<str>>, RegistryError>;

    /// Messages that are due at `now`, Unix seconds: those that are due for the longest first, so many
    /// at most. One about a request only when those before it are forgotten.
    async fn approval_news(&self, now: u64, most: u32) -> Result<Vec<ApprovalNews>, RegistryError>;

    /// Counts an attempt to pass a message on, which is due again then, Unix seconds.
    async fn postpone_approval_news(&self, id: u64, due: u64) -> Result<(), RegistryError>;

    /// Forgets a message that was passed on; `None`: all of them. Cheap when there are none.
    async fn forget_approval_news(&self, id: Option<u64>) -> Result<(), RegistryError>;
}

/// A caller wants access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalAsk {
    /// The shared access policy, or `oidc:` and the person's name.
    pub caller: String,
    /// The person, who has logged in; `None`: whoever holds the policy's key.
    pub person: Option<Login>,
    /// The device or module.
    pub identity: DeviceIdentity,
    /// The target.
    pub target: StreamName,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// Who may approve: people or groups.
    pub by: Vec<String>,
    /// How long it lasts once it is granted, in seconds.
    pub lasts: u64,
    /// How long the rule lets it last at most, in seconds.
    pub most: u64,
    /// Until when it waits, Unix seconds, unless it is asked for again.
    pub waits_until: u64,
}

/// A request, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// A short name for people.
    pub id: String,
    /// What was asked.
    pub ask: ApprovalAsk,
    /// When, Unix seconds.
    pub asked: u64,
    /// What has become of it.
    pub state: ApprovalState,
}

/// A message: access was asked for, or somebody has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalNews {
    /// Counts up for ever.
    pub id: u64,
    /// The request as it was then.
    pub request: ApprovalRequest,
    /// How often it was tried in vain to pass it on.
    pub attempts: u32,
}

/// What has become of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalState {
    /// It waits for an approver, or was withdrawn: then nobody has asked again in time.
    Waiting,
    /// Somebody has decided.
    Decided {
        /// Who.
        by: Decider,
        /// When, Unix seconds.
        at: u64,
        /// What.
        verdict: ApprovalVerdict,
    },
}

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decider {
    /// The name, for lists and logs.
    pub name: String,
    /// The names and groups of the rule's approvers by which they may; `None`: they have the hub's
    /// folder, and need none.
    pub through: Option<Vec<String>>,
}

/// What has come of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalOutcome {
    /// It stands.
    Decided(ApprovalRequest),
    /// The request is not open to it: nobody waits for it any more, or it was to be granted and is
    /// decided.
    Closed(ApprovalRequest),
    /// There is no such request.
    Unknown,
}

/// What an approver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApprovalVerdict {
    /// Until then, Unix seconds.
    Granted(u64),
    /// No; with a reason, if there is one.
    Refused(Option<String>),
}

impl ApprovalRequest {
    /// Whether it waits for an approver.
    pub fn waits(&self, now: u64) -> bool {
        self.state == ApprovalState::Waiting && now < self.ask.waits_until
    }

    /// Until when it is granted, if it is.
    pub fn granted_until(&self, now: u64) -> Option<u64> {
        match &self.state {
            ApprovalState::Decided {
                verdict: ApprovalVerdict::Granted(until),
                ..
            } if now < *until => Some(*until),
            _ => None,
        }
    }

    /// Until when it is granted under a rule as it is now, if it is: whoever has granted it could still
    /// approve, and it lasts no longer than the rule says, in seconds.
    pub fn granted_under(&self, approvers: &[String], most: u64, now: u64) -> Option<u64> {
        let ApprovalState::Decided { by, at, .. } = &self.state else {
            return None;
        };
        let may_approve = by
            .through
            .as_ref()
            .is_none_or(|through| through.iter().any(|name| approvers.contains(name)));
        let until = self.granted_until(now)?.min(at.saturating_add(most));
        (may_approve && now < until).then_some(until)
    }

    /// Whether an approver has refused it.
    pub fn was_refused(&self) -> bool {
        let ApprovalState::Decided { verdict, .. } = &self.state else {
            return false;
        };
        matches!(verdict, ApprovalVerdict::Refused(_))
    }

    /// What it is, in a word.
    pub fn word(&self, now: u64) -> &'static str {
        match &self.state {
            ApprovalState::Waiting if self.waits(now) => "waiting",
            ApprovalState::Waiting => "withdrawn",
            ApprovalState::Decided {
                verdict: ApprovalVerdict::Granted(until),
                ..
            } if now < *until => "granted",
            ApprovalState::Decided {
                verdict: ApprovalVerdict::Granted(_),
                ..
            } => "over",
            ApprovalState::Decided { .. } => "refused",
        }
    }
}
