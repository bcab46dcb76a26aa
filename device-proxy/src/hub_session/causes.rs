//! Why an identity can have been refused: CONNACK gives no reason.

use std::fmt;

use common::connection_string::DeviceCredential;
use common::identity::DeviceId;

use crate::clock_check::Skew;
use crate::config::Config;

/// Why an identity can have been refused, and what to look at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{proof}, or the identity does not exist there (ids have case), or it is disabled, or the hub goes by another name than {hub}; {clocks}. See `stream-hub device show {device}` and `stream-hub device connection-string {device}`"
)]
pub struct Causes {
    proof: Proof,
    /// The name by which we know the hub.
    hub: String,
    device: DeviceId,
    clocks: Clocks,
}

impl Causes {
    /// For the credential of this configuration; `skew` is `None` if the hub's time is not known.
    pub(crate) fn new(config: &Config, skew: Option<Skew>) -> Self {
        let connection = &config.connection;
        Self {
            proof: match &connection.credential {
                DeviceCredential::Key {
                    policy: Some(_), ..
                } => Proof::PolicyKey,
                DeviceCredential::Key { .. } => Proof::Key,
                DeviceCredential::Token(_) => Proof::Token,
                DeviceCredential::X509 => Proof::Certificate,
            },
            hub: connection.host.name().to_owned(),
            device: connection.identity.device.clone(),
            clocks: match skew {
                Some(_) => Clocks::Agree,
                None => Clocks::Unknown,
            },
        }
    }
}

/// With what we proved who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    PolicyKey,
    Key,
    Token,
    Certificate,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PolicyKey => "the policy's key is wrong or the policy lacks DeviceConnect",
            Self::Key => "the key is wrong",
            Self::Token => "the SAS token is wrong or has expired",
            Self::Certificate => "the certificate's thumbprint is not the registered one, or no CA of the hub has signed it for this id (its common name), or it has expired or is revoked",
        })
    }
}

/// What comparing our clock with the hub's has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clocks {
    Agree,
    Unknown,
}

impl fmt::Display for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agree => "the clocks agree",
            Self::Unknown => "the clocks could not be compared",
        })
    }
}
