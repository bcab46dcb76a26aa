//! Which devices and modules exist, how each proves its identity, and which shared
//! access policies there are. A trait for each noun, so that who needs one asks for that, and
//! another store can take SQLite's place.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity};

pub mod activity;
pub mod credentials;

mod approvals;
mod authorities;
mod changes;
mod enrolments;
mod identities;
mod jobs;
mod messages;
mod notes;
mod policies;
mod queries;
mod rules;
mod scope;
mod sessions;
mod sqlite;
mod store;
mod tokens;
mod twins;
mod usage;

pub use activity::{Activity, ActivityRecord};
pub use approvals::{
    ApprovalAsk, ApprovalNews, ApprovalOutcome, ApprovalRequest, ApprovalState, ApprovalVerdict,
    Approvals, Decider, KEPT, REFUSAL_STANDS, WAITING_PER_CALLER,
};
pub use authorities::{Authorities, Authority, AuthorityAdded};
pub use changes::{ChangeLog, Changes};
pub use enrolments::{Claim, Enrolment, EnrolmentError, EnrolmentOf, Enrolments, Redeemed};
pub use identities::{
    Authentication, Cursor, Identities, Identity, IdentitySettings, IfMatch, Page, Statistics,
    Status, Thumbprint,
};
pub use jobs::{
    DeviceJobError, DeviceJobStatus, Job, JobCounts, JobEnd, JobError, JobFilter, JobId, JobKind,
    JobPlace, JobResult, JobStatus, Jobs, NewJob,
};
pub use messages::{Message, Messages, NewMessage};
pub use notes::{Actor, Note, Notes};
pub use policies::{Permissions, Policies, Policy, PolicyKey};
pub use queries::{JobRow, JobRows, QueryWork, Scan, TwinQueries, TwinSnapshot};
pub use rules::{TwinChange, TwinPatch, TwinRuleError};
pub use scope::ScopeError;
pub use sessions::{Sessions, Subscriptions};
pub use sqlite::SqliteRegistry;
pub use store::StoreError;
pub use tokens::{
    Holder, IssuedToken, IssuedTokens, Login, OpenStreams, ShutOut, TOKENS_PER_PERSON, random_id,
};
pub use twins::{DesiredChange, DeviceTwin, Members, Metadata, OnDesired, Section, Twin, Twins};
pub use usage::Usage;

/// The whole registry.
#[async_trait]
pub trait Registry:
    Identities
    + Twins
    + TwinQueries
    + Jobs
    + JobRows
    + Messages
    + Sessions
    + Policies
    + Authorities
    + Enrolments
    + IssuedTokens
    + Approvals
    + ChangeLog
    + Usage
    + Notes
{
    /// Waits until all that devices have written to their twins and subscriptions is stored, also
    /// for those that have gone. May be dropped: what is left is still carried out as long as the
    /// runtime lives.
    async fn settle(&self);

    /// The same registry for somebody, whom the notes of changes name.
    fn acting(&self, actor: &Actor) -> Arc<dyn Registry>;
}

/// Whom a row of the database is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A device or module.
    Identity(DeviceIdentity),
    /// A row whose id is damaged itself.
    Unknown,
    /// A shared access policy.
    Policy(String),
    /// A CA of devices.
    Authority(String),
    /// A token that was issued by name.
    Token(String),
    /// A request for access.
    Approval(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity(id) => write!(f, "{id}"),
            Self::Unknown => f.write_str("an identity"),
            Self::Policy(name) => write!(f, "the shared access policy {name:?}"),
            Self::Authority(name) => write!(f, "the CA {name:?}"),
            Self::Token(id) => write!(f, "the token {id}"),
            Self::Approval(id) => write!(f, "the request {id}"),
        }
    }
}

fn repair(owner: &Owner) -> &'static str {
    match owner {
        Owner::Identity(_) => "delete the identity and create it again",
        Owner::Authority(_) => "remove the CA and add it again",
        Owner::Token(_) => "revoke it, and issue another one",
        Owner::Unknown | Owner::Policy(_) | Owner::Approval(_) => {
            "restore the database from a backup"
        }
    }
}

/// Why the registry did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// There is no such identity.
    #[error("{0} does not exist")]
    NotFound(DeviceIdentity),
    /// There is one already.
    #[error("{0} already exists")]
    AlreadyExists(DeviceIdentity),
    /// It was changed in between.
    #[error("{0} has another etag: it was changed in between")]
    PreconditionFailed(DeviceIdentity),
    /// A twin would no longer keep its rules.
    #[error(transparent)]
    TwinRule(#[from] TwinRuleError),
    /// What the database holds of one identity or policy cannot be read.
    #[error("{what} of {owner} in the database is damaged; {}", repair(owner))]
    Damaged {
        /// Whose.
        owner: Owner,
        /// Which part.
        what: &'static str,
    },
    /// A device cannot have this parent.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// Too many messages wait for a device.
    #[error("too many messages wait for {0}: at most {most} may", most = crate::limits::MESSAGES_WAITING)]
    QueueFull(DeviceId),
    /// There is no such job, or none can be made.
    #[error(transparent)]
    Job(#[from] JobError),
    /// An enrolment code is not redeemed.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// Too many queries are at work, for too long.
    #[error("too many queries are running; try again later")]
    Busy,
    /// A query would have taken too long.
    #[error("the query takes too long; add a condition on deviceId or on a tag")]
    TooLong,
    /// The store failed. How it did is for the operator: no client gets more than this sentence.
    #[error("the registry's store failed")]
    Store(#[from] StoreError),
}
