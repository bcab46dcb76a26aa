//! Why a stream could not be had, by what a person would do about it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::hub_address::HubAddress;
use common::identity::DeviceIdentity;
use common::limits;
use common::net::{Via, inspection};
use common::tls::BadCertificate;
use common::verdict::Verdict;
use common::wire::access::{APPROVAL_HEADER, ISSUED};
use common::wire::initiation::{ResultError, Timeouts};
use common::wire::problem::{ErrorCode, Problem};
use http::{HeaderMap, StatusCode, header};

use super::client::Unreachable;

/// Longest text of a hub that is repeated to a person.
const SHOWN: usize = 200;

/// When a hub is asked again that does not say when, while an approver is waited for.
const APPROVAL_AGAIN: Duration = Duration::from_secs(2);

/// How far our clock is from the hub's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skew {
    /// Ours is ahead by this.
    Ahead(Duration),
    /// Ours is behind by this.
    Behind(Duration),
}

impl std::fmt::Display for Skew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (time, word) = match self {
            Self::Ahead(time) => (time, "ahead of"),
            Self::Behind(time) => (time, "behind"),
        };
        write!(f, "{} min {word}", time.as_secs() / 60)
    }
}

impl Skew {
    /// The difference, if it is more than SAS tokens forgive.
    fn find(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        let date = headers.get(header::DATE)?.to_str().ok()?;
        let date = httpdate::parse_http_date(date).ok()?;
        match now.duration_since(date) {
            Ok(ahead) => (ahead > limits::CLOCK_SKEW).then_some(Self::Ahead(ahead)),
            Err(error) => {
                let behind = error.duration();
                (behind > limits::CLOCK_SKEW).then_some(Self::Behind(behind))
            }
        }
    }
}

/// Why a stream could not be had. Each, with its cause, is one sentence with what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitiateError {
    /// Nothing answers at the hub's address.
    #[error("hub {hub} cannot be reached (is it running, and is HostName right?)")]
    Unreachable {
        /// Host and port.
        hub: String,
        /// Why.
        #[source]
        why: Unreachable,
    },
    /// The hub's certificate is not acceptable.
    #[error("hub {hub} cannot be trusted{via}{}", inspection(via, bad.problem))]
    Certificate {
        /// Host and port.
        hub: String,
        /// What is wrong with it.
        #[source]
        bad: Box<BadCertificate>,
        /// What it was reached through.
        via: Via,
    },
    /// The proxy on the way does not lead to the hub. The text names both, and what to do.
    #[error("{0}")]
    Proxy(String),
    /// The hub took the request and sent no answer.
    #[error("hub {hub} did not answer within {} s; try again, and look at the hub's log", limit.as_secs_f32())]
    Silent {
        /// Host and port.
        hub: String,
        /// The limit that passed.
        limit: Duration,
    },
    /// The device does not take the stream.
    #[error(
        "the device rejected it; its log says why (no target of that stream name, target not reachable, too many streams, or a rule of the device)"
    )]
    Rejected,
    /// The device is not connected.
    #[error(
        "the device is not connected to the hub (waited {} s); start device-proxy there, and check that the device is enabled", waited.as_secs_f32()
    )]
    DeviceOffline {
        /// How long the hub was asked to wait.
        waited: Duration,
    },
    /// The hub does not know the device.
    #[error(
        "the hub knows no device `{0}`; ids have case, and `stream-hub device list` shows them"
    )]
    UnknownDevice(String),
    /// The hub does not know the module.
    #[error(
        "the hub knows no module `{0}`; ids have case, and `stream-hub module list` shows them"
    )]
    UnknownModule(String),
    /// The device is connected, but does not answer.
    #[error(
        "the device did not answer within {} s; is it busy, or hangs its target?", waited.as_secs_f32()
    )]
    NoAnswer {
        /// How long the hub was asked to wait.
        waited: Duration,
    },
    /// Too many streams, or too fast.
    #[error("the hub throttles (429{}); try again later, or ask for less at once", because(.why))]
    Throttled {
        /// What the hub says about it: which limit it is.
        why: Option<String>,
        /// When the hub wants to be asked again, if it says so.
        retry_after: Option<Duration>,
    },
    /// The hub does not accept our token because of the time.
    #[error(
        "the hub refuses our token (401), since this machine's clock is {skew} the hub's; set it right"
    )]
    ClockSkew {
        /// By how much.
        skew: Skew,
    },
    /// The connection string's ready-made token is over.
    #[error(
        "the SharedAccessSignature in the connection string has expired; get a new one, or use a key"
    )]
    TokenExpired,
    /// The hub does not accept our token.
    #[error(
        "the hub refuses the connection string's key (401): the key is not that of policy `{policy}`, the policy does not exist or lacks the permission ServiceConnect, or HostName is not the hub's own name"
    )]
    Unauthorised {
        /// Whose key it should be.
        policy: String,
    },
    /// The hub does not accept our token, which is for a part of the hub.
    #[error(
        "the hub refuses the token (401): it is for {path} and nothing else, or the key of policy `{policy}` has changed since; ask for another one, as `stream-hub token create` prints it"
    )]
    Narrow {
        /// What it is for.
        path: String,
        /// Whose key has signed it.
        policy: String,
    },
    /// A token that was issued by name is not one any more.
    #[error(
        "the hub refuses the token (401): it was revoked, or is another hub's; ask for another one, or log in again with `service-proxy login --hub`"
    )]
    Revoked,
    /// The person has to log in again. The text says where, and why.
    #[error("{0}")]
    LoggedOut(String),
    /// The token was not renewed, which may pass. The text says where, and why.
    #[error("{0}")]
    NotRenewed(String),
    /// It waits for an approver.
    #[error("the hub has somebody approve it first: request {id} waits")]
    ApprovalPending {
        /// The request.
        id: String,
        /// When the hub wants to be asked again.
        retry_after: Duration,
    },
    /// An approver has refused it.
    #[error("it was not approved: {0}")]
    ApprovalRefused(String),
    /// The hub's access file does not allow it.
    #[error("the hub does not allow it: {0}")]
    AccessDenied(String),
    /// Any other refusal.
    #[error("the hub refuses with status {status}{}", .message.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What the hub says about it.
        message: Option<String>,
    },
    /// The connection string's ready-made token cannot stand in a request.
    #[error(
        "the SharedAccessSignature in the connection string has characters that cannot be sent; get a new one, or use a key"
    )]
    BadToken,
    /// The answer is none that the protocol knows.
    #[error(
        "hub {hub} does not answer as expected (is HostName really a hub with device streams?)"
    )]
    Answer {
        /// Host and port.
        hub: String,
        /// What is wrong with the answer.
        #[source]
        fault: AnswerError,
    },
}

/// Why an answer is none that the protocol knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// A success whose headers do not give the stream.
    #[error(transparent)]
    Headers(#[from] ResultError),
    /// A 404 that does not say what was not found.
    #[error("it answers with 404 and no error code")]
    BareNotFound,
    /// The answer is too large.
    #[error("its answer is too large")]
    TooLarge,
}

impl InitiateError {
    /// Names it among a fixed set of reasons.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Unauthorised { .. }
            | Self::Narrow { .. }
            | Self::TokenExpired
            | Self::BadToken
            | Self::Revoked
            | Self::LoggedOut(_)
            | Self::NotRenewed(_)
            | Self::ClockSkew { .. } => "unauthorised",
            Self::AccessDenied(_) | Self::ApprovalRefused(_) => "denied",
            Self::ApprovalPending { .. } => "unapproved",
            Self::UnknownDevice(_) | Self::UnknownModule(_) => "unknown_device",
            Self::Unreachable { .. } | Self::Certificate { .. } | Self::Proxy(_) => "unreachable",
            Self::Silent { .. } | Self::Refused { .. } | Self::Answer { .. } => "hub",
            Self::Rejected => "rejected",
            Self::DeviceOffline { .. } => "device_offline",
            Self::NoAnswer { .. } => "no_answer",
            Self::Throttled { .. } => "throttled",
        }
    }

    /// What can cure it. A person has to act on what is wrong with the credential; another one may
    /// be in the connection string's file by now.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unauthorised { .. }
            | Self::Narrow { .. }
            | Self::TokenExpired
            | Self::Revoked
            | Self::LoggedOut(_)
            | Self::AccessDenied(_)
            | Self::ApprovalRefused(_)
            | Self::BadToken => Verdict::AskPerson,
            Self::UnknownDevice(_) | Self::UnknownModule(_) => Verdict::Never,
            Self::Unreachable { .. }
            | Self::Certificate { .. }
            | Self::Proxy(_)
            | Self::Silent { .. }
            | Self::Rejected
            | Self::DeviceOffline { .. }
            | Self::NoAnswer { .. }
            | Self::Throttled { .. }
            | Self::ClockSkew { .. }
            | Self::NotRenewed(_)
            | Self::ApprovalPending { .. }
            | Self::Refused { .. }
            | Self::Answer { .. } => Verdict::Retry,
        }
    }
}

impl InitiateError {
    /// Whether another credential may be accepted.
    pub(super) fn is_about_credential(&self) -> bool {
        match self {
            // The same person is allowed no more by another token.
            Self::LoggedOut(_) | Self::AccessDenied(_) | Self::ApprovalRefused(_) => false,
            error => error.verdict() == Verdict::AskPerson,
        }
    }
}

/// Of whom an answer speaks.
pub(super) struct Whom<'a> {
    pub(super) hub: &'a HubAddress,
    pub(super) policy: &'a str,
    /// What our token is for, if that is not the whole hub.
    pub(super) token_path: Option<String>,
    pub(super) token_expired: bool,
    /// The device or module, if the call is about one.
    pub(super) identity: Option<&'a DeviceIdentity>,
    pub(super) timeouts: Timeouts,
}

/// An HTTP answer that is not a result.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Refusal {
    /// What it means; `now` is our clock.
    pub(super) fn into_error(self, whom: &Whom<'_>, now: SystemTime) -> InitiateError {
        let problem = Problem::from_body(&self.body);
        match self.status {
            StatusCode::UNAUTHORIZED => match Skew::find(&self.headers, now) {
                Some(skew) => return InitiateError::ClockSkew { skew },
                None if whom.token_expired => return InitiateError::TokenExpired,
                None if whom.policy.starts_with(ISSUED) => return InitiateError::Revoked,
                None => {
                    let policy = whom.policy.to_owned();
                    return match &whom.token_path {
                        None => InitiateError::Unauthorised { policy },
                        Some(path) => InitiateError::Narrow {
                            path: path.clone(),
                            policy,
                        },
                    };
                }
            },
            StatusCode::TOO_MANY_REQUESTS => {
                return InitiateError::Throttled {
                    why: problem.message.as_deref().map(shown),
                    retry_after: retry_after(&self.headers, now),
                };
            }
            _ => {}
        }
        let code = self.code();
        let is = |wanted: ErrorCode| code == Some(wanted.number);
        if is(ErrorCode::APPROVAL_REFUSED) {
            let message = problem.message.as_deref().map_or_else(String::new, shown);
            return InitiateError::ApprovalRefused(message);
        }
        if is(ErrorCode::APPROVAL_PENDING)
            && let Some(id) = self.headers.get(APPROVAL_HEADER)
            && let Ok(id) = id.to_str()
        {
            return InitiateError::ApprovalPending {
                id: shown(id),
                retry_after: retry_after(&self.headers, now).unwrap_or(APPROVAL_AGAIN),
            };
        }
        if is(ErrorCode::ACCESS_DENIED) {
            let message = problem.message.as_deref().map_or_else(String::new, shown);
            return InitiateError::AccessDenied(message);
        }
        let Some(identity) = whom.identity else {
            return self.other(whom, problem.message);
        };
        if is(ErrorCode::DEVICE_NOT_ONLINE) {
            InitiateError::DeviceOffline {
                waited: whom.timeouts.connect,
            }
        } else if is(ErrorCode::DEVICE_NOT_FOUND) {
            InitiateError::UnknownDevice(identity.device.to_string())
        } else if is(ErrorCode::MODULE_NOT_FOUND) {
            InitiateError::UnknownModule(identity.to_string())
        } else if is(ErrorCode::GATEWAY_TIMEOUT) {
            InitiateError::NoAnswer {
                waited: whom.timeouts.response,
            }
        } else {
            self.other(whom, problem.message)
        }
    }

    fn other(&self, whom: &Whom<'_>, message: Option<String>) -> InitiateError {
        let shown = message.as_deref().map(shown);
        if self.status == StatusCode::NOT_FOUND && shown.is_none() {
            return InitiateError::Answer {
                hub: whom.hub.to_string(),
                fault: AnswerError::BareNotFound,
            };
        }
        InitiateError::Refused {
            status: self.status,
            message: shown,
        }
    }

    /// IoT Hub's code: the body's, or by its name in the header.
    pub(super) fn code(&self) -> Option<u32> {
        if let Some(number) = Problem::from_body(&self.body).number {
            return Some(number);
        }
        let name = self.headers.get("iothub-errorcode")?.to_str().ok()?;
        ErrorCode::by_name(name.trim()).map(|code| code.number)
    }
}

/// What may be shown of a text of the hub's.
fn shown(text: &str) -> String {
    let printable = text.chars();
    printable
        .filter(|c| !common::outside::is_unprintable(*c))
        .take(SHOWN)
        .collect()
}

/// A reason behind a status.
pub(crate) fn because(why: &Option<String>) -> String {
    why.as_ref()
        .map_or_else(String::new, |why| format!(": {why}"))
}

/// Seconds or a date; dates that have passed mean now.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
