//! Why a client of the proxy gets no tunnel, as a reply of SOCKS5 (RFC 1928, section 6) and as a
//! status of HTTP.

use common::report;
use common::session::{ConnectionEnd, RefusedCode};
use fast_socks5::ReplyError;
use http::StatusCode;

use crate::hub_api::InitiateError;
use crate::session::RouteError;
use crate::stream::StreamFailure;
use crate::tunnel::{NotOpened, Outcome, TooManyDevices};

/// Why a client gets no tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of reason it is.
    pub kind: Kind,
    /// One sentence for a person.
    pub text: String,
}

/// What kind of reason there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is not understood.
    Malformed,
    /// Only connections are made.
    Command,
    /// The request names an address, or none that is known.
    AddressType,
    /// The name is none of a device.
    NotAllowed,
    /// There is no such device, or its target cannot be reached.
    Unreachable,
    /// The device is not connected, or has no room now.
    Unavailable,
    /// The device or its target refuses.
    Refused,
    /// Something did not answer in time.
    TimedOut,
    /// Anything else, such as a hub that cannot be reached.
    Failed,
}

impl Kind {
    /// The reply of SOCKS5.
    pub(super) fn reply(self) -> ReplyError {
        match self {
            Self::Malformed | Self::Failed => ReplyError::GeneralFailure,
            Self::Command => ReplyError::CommandNotSupported,
            Self::AddressType => ReplyError::AddressTypeNotSupported,
            Self::NotAllowed => ReplyError::ConnectionNotAllowed,
            Self::Unreachable | Self::Unavailable => ReplyError::HostUnreachable,
            Self::Refused => ReplyError::ConnectionRefused,
            Self::TimedOut => ReplyError::TtlExpired,
        }
    }

    /// The status of HTTP.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Command => StatusCode::METHOD_NOT_ALLOWED,
            Self::AddressType | Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Unreachable | Self::Refused | Self::Failed => StatusCode::BAD_GATEWAY,
        }
    }
}

impl Refusal {
    pub(super) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// What a client is answered when there is no way to the device; `None` when nobody is to be
    /// answered.
    pub(super) fn of_outcome(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Unrouted(error) => Some(Self::new(of_route(error), report::chain(error))),
            Outcome::NotOpened { why, .. } => {
                let text = format!("no connection: {}", report::chain(why));
                Some(Self::new(of_not_opened(why), text))
            }
            Outcome::Stopped => Some(Self::new(Kind::Unavailable, "service-proxy stops")),
            Outcome::ClientLeft
            | Outcome::InSession { .. }
            | Outcome::InStream { .. }
            | Outcome::Cut { .. } => None,
        }
    }
}

impl From<TooManyDevices> for Refusal {
    fn from(error: TooManyDevices) -> Self {
        Self::new(Kind::Unavailable, error.to_string())
    }
}

fn of_route(error: &RouteError) -> Kind {
    match error {
        RouteError::Session { .. } => Kind::Unavailable,
        RouteError::Stream(error) => match &*error.failure {
            StreamFailure::Initiate(error) => of_initiate(error),
            StreamFailure::Throttled { .. } | StreamFailure::Unapproved { .. } => Kind::Unavailable,
            StreamFailure::Session(_) | StreamFailure::Place(_) | StreamFailure::Endpoint(_) => {
                Kind::Failed
            }
        },
    }
}

fn of_initiate(error: &InitiateError) -> Kind {
    match error {
        InitiateError::UnknownDevice(_) | InitiateError::UnknownModule(_) => Kind::Unreachable,
        InitiateError::DeviceOffline { .. } | InitiateError::Throttled { .. } => Kind::Unavailable,
        InitiateError::Rejected => Kind::Refused,
        InitiateError::AccessDenied(_) | InitiateError::ApprovalRefused(_) => Kind::NotAllowed,
        InitiateError::ApprovalPending { .. } => Kind::Unavailable,
        InitiateError::NoAnswer { .. } | InitiateError::Silent { .. } => Kind::TimedOut,
        InitiateError::Unreachable { .. }
        | InitiateError::Certificate { .. }
        | InitiateError::Proxy(_)
        | InitiateError::ClockSkew { .. }
        | InitiateError::TokenExpired
        | InitiateError::Revoked
        | InitiateError::LoggedOut(_)
        | InitiateError::NotRenewed(_)
        | InitiateError::Unauthorised { .. }
        | InitiateError::Narrow { .. }
        | InitiateError::Refused { .. }
        | InitiateError::BadToken
        | InitiateError::Answer { .. } => Kind::Failed,
    }
}

fn of_not_opened(why: &NotOpened) -> Kind {
    match why {
        NotOpened::Interrupted => Kind::Unavailable,
        NotOpened::Refused(ConnectionEnd::Refused { code, .. }) => match code {
            RefusedCode::TargetRefused => Kind::Refused,
            RefusedCode::Unreachable => Kind::Unreachable,
            RefusedCode::TimedOut => Kind::TimedOut,
            RefusedCode::Withdrawn | RefusedCode::Denied => Kind::NotAllowed,
            _ => Kind::Unavailable,
        },
        NotOpened::Refused(_) => Kind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_reason_has_a_reply_and_a_status() {
        for (kind, reply, status) in [
            (Kind::Malformed, 1, 400),
            (Kind::Failed, 1, 502),
            (Kind::NotAllowed, 2, 403),
            (Kind::Unreachable, 4, 502),
            (Kind::Unavailable, 4, 503),
            (Kind::Refused, 5, 502),
            (Kind::TimedOut, 6, 504),
            (Kind::Command, 7, 405),
            (Kind::AddressType, 8, 403),
        ] {
            assert_eq!(kind.reply().as_u8(), reply, "{kind:?}");
            assert_eq!(kind.status().as_u16(), status, "{kind:?}");
        }
        let offline = InitiateError::DeviceOffline {
            waited: Duration::ZERO,
        };
        assert_eq!(of_initiate(&offline), Kind::Unavailable);
        let unknown = InitiateError::UnknownDevice("d".to_owned());
        assert_eq!(of_initiate(&unknown), Kind::Unreachable);
    }
}
