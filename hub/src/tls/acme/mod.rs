//! A certificate that a CA signs by ACME (RFC 8555), with challenges that the HTTPS listener answers
//! (TLS-ALPN-01, RFC 8737). The protocol is the library's, `instant-acme`; ours are the connections
//! to the CA, the files, the answers to challenges, and when to ask.
//!
//! All of the hub's certificates have one key, which stays in the data folder: so an enrolment code,
//! which names it, survives a renewal. Before there is a certificate, TLS handshakes are refused,
//! since clients try again then, and would give up at a certificate that they cannot trust; only a
//! hub that had a CA of its own before shows what that signs, to the devices that know it.

mod account;
mod advice;
mod attempts;
mod challenge;
mod error;
mod http;
mod issued;
mod keep;
mod name;
mod order;
mod store;

use std::path::PathBuf;
use std::time::Duration;

pub use challenge::{Challenges, PROTOCOL};
pub use error::AcmeError;
pub use keep::Acme;
pub use name::{NameError, check_name};
#[cfg(unix)]
pub(crate) use store::ACCOUNT;
pub(crate) use store::{FOLDER, KEY};

/// The directory of the CA where none is named, Let's Encrypt's.
pub const LETS_ENCRYPT: &str = instant_acme::LetsEncrypt::Production.url();

/// How a certificate is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcmeSettings {
    /// The URL of the CA's directory.
    pub directory: String,
    /// Where the CA reaches the operator: URLs, `mailto:` mostly.
    pub contacts: Vec<String>,
    /// PEM file of roots beside the system's: of a private CA.
    pub ca_file: Option<PathBuf>,
}

/// One request to the CA, with its answer.
const REQUEST: Duration = Duration::from_secs(30);
/// An answer's body: certificate chains have some KiB.
const ANSWER: usize = 256 << 10;
/// How long the CA may take to validate, and again to sign.
const POLL: Duration = Duration::from_secs(90);
/// Everything from the account to the certificate.
const ORDER: Duration = Duration::from_secs(5 * 60);
/// How often the clock is looked at while nothing is due: timers stand still while a machine sleeps.
const LOOK: Duration = Duration::from_secs(3600);
