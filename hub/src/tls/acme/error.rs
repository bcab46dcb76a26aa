//! Why there is no new certificate.

use std::io;
use std::path::PathBuf;

use common::outside::printable;
use common::tls::TlsConfigError;
use instant_acme::{Error, Problem};

use super::http::HttpFault;
use super::{NameError, ORDER};

/// The prefix of ACME's own error types (RFC 8555, section 6.7).
const ACME: &str = "urn:ietf:params:acme:error:";
/// Characters of a CA's text that are repeated.
const TEXT: usize = 500;

/// Why there is no certificate, or no new one.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// No CA signs for the hub's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The roots by which the CA is verified cannot be used.
    #[error("the CA of --acme cannot be verified")]
    Roots(#[source] TlsConfigError),
    /// There are no roots.
    #[error(
        "the CA of --acme cannot be verified, since this machine has no root certificates: install the system's (ca-certificates), or name the CA's with --acme-ca-file"
    )]
    NoRoots,
    /// A file cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file holds something else; it is not overwritten, since it may be precious.
    #[error(
        "{} does not hold what stream-hub has put there; put the right file there, or remove it so that a new one is made",
        .0.display()
    )]
    Unreadable(PathBuf),
    /// A key, a request or a challenge's certificate cannot be made.
    #[error("cannot make a key or a certificate")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not fit, or the provider refuses them.
    #[error("the certificate cannot be used")]
    Unusable(#[from] rustls::Error),
    /// The CA has signed something else.
    #[error("the CA's certificate cannot be used: {0}")]
    Other(&'static str),
    /// The CA was not reached.
    #[error(transparent)]
    Away(Box<HttpFault>),
    /// The CA does not know the account (any more).
    #[error("the CA does not know the account")]
    NoAccount,
    /// The CA refuses.
    #[error("the CA refuses: {text}")]
    Refused {
        /// The kind of refusal, without the prefix of ACME's own.
        kind: String,
        /// The CA's words, without control characters.
        text: String,
    },
    /// The CA has not found this hub under its name.
    #[error(
        "the CA came to {host} on port 443 and did not find this hub there: {text}; does the name lead to this machine, from the internet too, and port 443 to the hub's HTTPS listener?"
    )]
    NotFound {
        /// The host name.
        host: String,
        /// The CA's words, without control characters.
        text: String,
    },
    /// The CA has other ways of validation only.
    #[error("the CA does not offer TLS-ALPN-01 for this name")]
    NoChallenge,
    /// The CA took too long.
    #[error("the CA did not sign within {} s", ORDER.as_secs())]
    Timeout,
    /// What the CA answers is not ACME.
    #[error("the CA's answer cannot be used: {0}")]
    Protocol(String),
}

impl AcmeError {
    /// What has failed, in words that stay the same as long as it does.
    pub fn kind(&self) -> String {
        match self {
            Self::Refused { kind, .. } => kind.clone(),
            Self::NotFound { .. } => "validation".to_owned(),
            other => common::report::chain(other),
        }
    }

    /// Whether it may have cost the CA something: it counts that, and locks out who comes again soon.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Away(_))
    }

    /// Whether what was given is at fault, and not the world.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Roots(_) | Self::NoRoots)
    }
}

impl From<TlsConfigError> for AcmeError {
    fn from(error: TlsConfigError) -> Self {
        match error {
            TlsConfigError::NoRoots => Self::NoRoots,
            error => Self::Roots(error),
        }
    }
}

impl From<Error> for AcmeError {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => problem.into(),
            Error::Timeout(_) => Self::Timeout,
            Error::Other(other) => match other.downcast::<HttpFault>() {
                Ok(fault) => Self::Away(fault),
                Err(other) => Self::Protocol(shown(&other.to_string())),
            },
            error => Self::Protocol(shown(&error.to_string())),
        }
    }
}

impl From<Problem> for AcmeError {
    fn from(problem: Problem) -> Self {
        let kind = kind(&problem);
        match kind.as_str() {
            "accountDoesNotExist" => Self::NoAccount,
            _ => Self::Refused {
                text: text(&problem),
                kind,
            },
        }
    }
}

fn kind(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.strip_prefix(ACME).unwrap_or(kind);
    shown(kind)
}

/// Text that the CA has had a part in.
fn shown(text: &str) -> String {
    printable(text).chars().take(TEXT).collect()
}

/// What the CA says, and of which kind it is.
pub(super) fn text(problem: &Problem) -> String {
    let mut text = problem.detail.clone().unwrap_or_default();
    for part in &problem.subproblems {
        if let Some(detail) = &part.detail {
            text += "; ";
            text += detail;
        }
    }
    format!("{} ({})", shown(&text), kind(problem))
}

/// A failure with this file.
pub(super) fn io_error(
    what: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(io::Error) -> AcmeError {
    let path = path.to_owned();
    move |source| AcmeError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use common::net::HttpsError;

    use super::*;

    fn problem(json: &str) -> AcmeError {
        let problem: Problem = serde_json::from_str(json).unwrap();
        Error::Api(problem).into()
    }

    #[test]
    fn a_ca_s_words_are_repeated_without_control_characters_and_not_for_ever() {
        let error = problem(
            r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\u001b[2J"}"#,
        );
        assert_eq!(
            error.to_string(),
            "the CA refuses: too many[2J (rateLimited)"
        );
        assert_eq!(error.kind(), "rateLimited");
        let long = problem(&format!(
            r#"{{"type": "t", "detail": "{}"}}"#,
            "x".repeat(9999)
        ));
        assert!(long.to_string().len() < 600);
        let odd =
            serde_json::from_str::<instant_acme::ChallengeStatus>("\"\\u001b[2J\"").unwrap_err();
        let odd = AcmeError::from(Error::Json(odd)).to_string();
        assert!(odd.contains("[2J") && !odd.contains('\u{1b}'), "{odd}");
        let unknown = problem(r#"{"type": "urn:ietf:params:acme:error:accountDoesNotExist"}"#);
        assert!(matches!(unknown, AcmeError::NoAccount));
    }

    #[test]
    fn a_ca_that_is_away_is_no_refusal() {
        let fault = HttpFault::Https(HttpsError::Timeout {
            host: "ca.example".to_owned(),
            limit: super::super::REQUEST,
        });
        let error = AcmeError::from(Error::Other(Box::new(fault)));
        assert!(matches!(error, AcmeError::Away(_)) && !error.is_refusal());
        assert!(problem(r#"{"type": "t", "detail": "d"}"#).is_refusal());
    }
}
