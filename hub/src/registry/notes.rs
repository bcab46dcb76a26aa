//! Notes of what was changed, and by whom: for the audit log of the hub, which may be another
//! process than the one that has changed it.

use std::net::SocketAddr;

use async_trait::async_trait;
use common::identity::DeviceIdentity;
use serde_json::{Value, json};

use super::RegistryError;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Counts up for ever.
    pub id: u64,
    /// When it was, RFC 3339.
    pub time: String,
    /// What was done.
    pub operation: String,
    /// To this identity,
    pub device: Option<DeviceIdentity>,
    /// or to this shared access policy.
    pub policy: Option<String>,
    /// What of it; no values.
    pub what: String,
    /// Who has done it, as JSON; `None`: a program that is not ours.
    pub actor: Option<String>,
}

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A command on the data folder.
    Command {
        /// Its name, without what it is about.
        name: String,
        /// The user that has called it.
        user: String,
    },
    /// A caller of the REST API.
    Service {
        /// The shared access policy.
        policy: String,
        /// Who that is, where more is known.
        person: Option<String>,
        /// The address that the call came from.
        peer: SocketAddr,
    },
    /// Somebody with an enrolment code.
    Enrolment {
        /// The address that the call came from.
        peer: SocketAddr,
    },
}

impl Actor {
    /// As the notes have it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Command { name, user } => json!({ "command": name, "user": user }),
            Self::Service {
                policy,
                person: None,
                peer,
            } => json!({ "policy": policy, "callerAddress": peer }),
            Self::Service {
                policy,
                person: Some(person),
                peer,
            } => json!({ "policy": policy, "person": person, "callerAddress": peer }),
            Self::Enrolment { peer } => json!({ "enrolmentFrom": peer }),
        }
    }
}

/// The registry's notes.
#[async_trait]
pub trait Notes: Send + Sync + 'static {
    /// The oldest ones, so many at most. Cheap when there are none. May be dropped.
    async fn notes(&self, most: usize) -> Result<Vec<Note>, RegistryError>;

    /// Forgets those up to this one. May be dropped: they are forgotten all the same.
    async fn forget_notes(&self, upto: u64) -> Result<(), RegistryError>;

    /// Adds one of something that is no change of the registry. May be dropped: it is added all the
    /// same.
    async fn add_note(
        &self,
        operation: &'static str,
        device: Option<DeviceIdentity>,
        policy: Option<String>,
        what: String,
    ) -> Result<(), RegistryError>;
}
