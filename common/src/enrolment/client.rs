//! Redeeming a code.

use std::fmt;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{ANSWER, Invitation, PATH, members};
use crate::identity::DeviceId;
use crate::limits;
use crate::net::{DialError, Dialer, ExchangeError, exchange_with_body};
use crate::outside;
use crate::secret::Secret;
use crate::tls::CertificateProblem;
use crate::verdict::Verdict;
use crate::wire::problem::Problem;

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

/// Redeems a code once; `dialer` has [`pinned_config`](crate::tls::pinned_config) with the code's
/// fingerprint, and for a device its certificate. `device` is the wanted id, `suggested` the one to
/// take if the code names none either. Ends within [`limits::DIAL`], twice. When the future is dropped, the code may have been
/// redeemed: the same device may redeem it again.
///
/// # Errors
/// [`RedeemError`].
pub async fn redeem(
    invitation: &Invitation,
    device: Option<&DeviceId>,
    suggested: Option<&DeviceId>,
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
        (members::DEVICE): device.map(DeviceId::as_str),
        (members::SUGGESTED): suggested.map(DeviceId::as_str),
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
