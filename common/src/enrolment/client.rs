//! Redeeming a code.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{ANSWER, Invitation, PATH, members};
use crate::backoff::Backoff;
use crate::identity::DeviceId;
use crate::limits;
use crate::net::{DialError, Dialer, ExchangeError, exchange_with_body};
use crate::outside;
use crate::report;
use crate::secret::Secret;
use crate::tls::CertificateProblem;
use crate::verdict::Verdict;
use crate::wire::problem::Problem;

/// How often a code is tried while the hub cannot be reached.
const ATTEMPTS: usize = 4;
/// The waits between the attempts.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Why a code was not redeemed.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    /// The hub cannot be reached.
    #[error(transparent)]
    Dial(DialError),
    /// What is reached is not the hub that made the code.
    #[error(
        "{hub} does not show the certificate that the code names: it is another hub, its certificate has changed since, or something on the way opens TLS; make a new code with `stream-hub enrol`"
    )]
    OtherHub {
        /// What was reached.
        hub: String,
    },
    /// The hub was reached and gave no answer in time.
    #[error("{hub} did not answer within {} s", limits::DIAL.as_secs())]
    Timeout {
        /// Who.
        hub: String,
    },
    /// The connection was lost, or the answer is not HTTP.
    #[error("{hub} gave no answer to the code")]
    Exchange {
        /// Who.
        hub: String,
        /// What was wrong.
        #[source]
        source: ExchangeError,
    },
    /// The hub does not take the code.
    #[error("{hub} refuses the code ({status}): {reason}")]
    Refused {
        /// Who.
        hub: String,
        /// The HTTP status.
        status: u16,
        /// The hub's words, without control characters.
        reason: String,
    },
    /// The answer is not that of a hub that enrols.
    #[error("{hub} answered what no hub with enrolment does; is it an older one, or Azure's?")]
    OtherAnswer {
        /// Who.
        hub: String,
    },
}

impl RedeemError {
    /// Whether the same code may work in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Dial(error) => matches!(error.verdict(), Verdict::Retry),
            Self::Timeout { .. } | Self::Exchange { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::OtherHub { .. } | Self::OtherAnswer { .. } => false,
        }
    }
}

/// What a code was redeemed for.
#[derive(Clone)]
pub struct Enrolled {
    /// The device that is registered now; `None`: the code was an operator's.
    pub device: Option<String>,
    /// How to connect: a device's says `x509=true`.
    pub connection_string: Secret,
    /// PEM of the CA to trust, if the hub has one of its own.
    pub authorities: Option<String>,
}

impl fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enrolled({:?})", self.device)
    }
}

/// When a code may be tried again after an answer that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// Always: the hub knows the device by its key, and answers the same again.
    SameKey,
    /// Only when it was not sent: an operator's code is used up by the answer that was lost.
    Unsent,
}

impl Repeats {
    fn allow(self, error: &RedeemError) -> bool {
        error.is_passing() && (self == Self::SameKey || matches!(error, RedeemError::Dial(_)))
    }
}

/// The id that a device would like to have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The one that it must have.
    pub device: Option<&'a DeviceId>,
    /// The one to take if the code names none either.
    pub suggested: Option<&'a DeviceId>,
}

/// Redeems a code; `dialer` has [`pinned_config`](crate::tls::pinned_config) with the code's
/// fingerprint, and for a device its certificate. While the hub cannot be reached it is tried again,
/// some times, as far as `repeats` allows; each attempt ends within twice [`limits::DIAL`]. When the
/// future is dropped, the code may have been redeemed: the same device may redeem it again.
///
/// # Errors
/// [`RedeemError`].
pub async fn redeem(
    invitation: &Invitation,
    wanted: Wanted<'_>,
    dialer: &Dialer,
    repeats: Repeats,
) -> Result<Enrolled, RedeemError> {
    let mut backoff = Backoff::new(DELAYS.0, DELAYS.1);
    for _ in 1..ATTEMPTS {
        match redeem_once(invitation, wanted, dialer).await {
            Err(error) if repeats.allow(&error) => {
                tracing::warn!("{}; trying again", report::chain(&error));
                sleep(backoff.next_delay()).await;
            }
            redeemed => return redeemed,
        }
    }
    redeem_once(invitation, wanted, dialer).await
}

async fn redeem_once(
    invitation: &Invitation,
    wanted: Wanted<'_>,
    dialer: &Dialer,
) -> Result<Enrolled, RedeemError> {
    let address = &invitation.hub;
    let hub = || address.to_string();
    let mut stream = dialer
        .tls(address.name(), address.https_port())
        .await
        .map_err(|error| match error {
            // Without the certificate of the code there is no other verdict than this.
            DialError::Certificate { ref bad, .. } if bad.problem == CertificateProblem::Other => {
                RedeemError::OtherHub { hub: hub() }
            }
            error => RedeemError::Dial(error),
        })?;
    let body = json!({
        (members::CODE): invitation.code.secret().expose(),
        (members::DEVICE): wanted.device.map(DeviceId::as_str),
        (members::SUGGESTED): wanted.suggested.map(DeviceId::as_str),
    });
    let body = Secret::new(body.to_string());
    let request = Secret::new(format!(
        "POST {PATH} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{}",
        hub(),
        body.expose().len(),
        body.expose(),
    ));
    let exchanging = exchange_with_body(&mut stream, request.expose().as_bytes(), ANSWER);
    let (head, body) = timeout(limits::DIAL, exchanging)
        .await
        .map_err(|_| RedeemError::Timeout { hub: hub() })?
        .map_err(|source| RedeemError::Exchange { hub: hub(), source })?;
    if !head.status().is_success() {
        let reason = Problem::from_body(&body).message;
        let reason = reason.unwrap_or_else(|| "it gives no reason".to_owned());
        return Err(RedeemError::Refused {
            hub: hub(),
            status: head.status().as_u16(),
            reason: outside::printable(&reason).into_owned(),
        });
    }
    let body: Option<Value> = serde_json::from_slice(&body).ok();
    let text = |name: &str| Some(body.as_ref()?.get(name)?.as_str()?.to_owned());
    let connection_string = text(members::CONNECTION_STRING).map(Secret::new);
    Ok(Enrolled {
        device: text(members::DEVICE),
        connection_string: connection_string.ok_or(RedeemError::OtherAnswer { hub: hub() })?,
        authorities: text(members::AUTHORITIES),
    })
}
