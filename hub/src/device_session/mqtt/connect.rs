//! The first packet: who is it, and can it prove that?

use common::boxed::boxed;
use common::clock::unix_now;
use common::identity::DeviceIdentity;
use common::mqtt::{ConnectReturnCode, Packet, PacketIo, ReadError, Transport, packet};
use common::wire::topics::{self, UserNameError};
use tokio::time::Duration;

use crate::admission::Place;
use crate::auth::{AuthError, Authenticator, ClientChain, DevicePrincipal, DeviceProof};
use crate::limits;

/// Largest first packet: CONNECT with user name, SAS token and a small will. Strangers get no
/// more: with TLS, 16 KiB is what each makes a hub hold. With the head of a WebSocket message
/// it fits into 4 KiB.
pub(super) const CONNECT_PACKET: usize = 4000;

/// Longest keep-alive that is honoured: 1.5 times IoT Hub's largest client value.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(1767);

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// It had not sent one when others needed its place among strangers.
    #[error("closed before its CONNECT came: others need its place")]
    Displaced,
    /// It took longer than a stranger may.
    #[error("no CONNECT came in time")]
    Late,
    /// The first packet was another one.
    #[error("no CONNECT came: another packet came first")]
    OtherPacket,
    /// The connection ended before.
    #[error("no CONNECT came: the connection ended")]
    Ended,
    /// It was no MQTT client, or was lost.
    #[error("no CONNECT came")]
    Unreadable(#[source] ReadError),
    /// Its CONNECT was not acceptable.
    #[error("CONNECT of {identity} refused")]
    Connect {
        /// Who it claimed to be; printable.
        identity: String,
        /// Why it is not believed.
        #[source]
        reason: Reason,
    },
}

impl Refused {
    /// Names it among a fixed set of words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Connect { reason, .. } => match reason {
                Reason::Version(_) => "version",
                Reason::UserName(_) | Reason::ClientId => "malformed",
                Reason::Auth(error) => error.kind(),
            },
            _ => "no_connect",
        }
    }
}

/// Why a CONNECT is not acceptable.
#[derive(Debug, thiserror::Error)]
pub(super) enum Reason {
    /// It is of another version of MQTT.
    #[error(transparent)]
    Version(ReadError),
    /// Its user name names no identity.
    #[error(transparent)]
    UserName(#[from] UserNameError),
    /// It names two identities.
    #[error("the client id is not the user name's identity")]
    ClientId,
    /// It does not prove its identity.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

impl Reason {
    /// What MQTT says of it. 5 brings SDK clients back with a fresh token; 3 says that it is not
    /// their fault.
    fn code(&self) -> ConnectReturnCode {
        match self {
            Self::Version(_) => ConnectReturnCode::UnacceptableProtocolVersion,
            Self::ClientId => ConnectReturnCode::IdentifierRejected,
            Self::Auth(AuthError::Registry(_)) => ConnectReturnCode::ServerUnavailable,
            Self::UserName(_) | Self::Auth(_) => ConnectReturnCode::NotAuthorized,
        }
    }
}

/// A device that may come in.
pub(super) struct Admitted {
    /// Who it is, proven.
    pub principal: DevicePrincipal,
    /// How long it may be silent.
    pub silence: Duration,
    /// It wants nothing of earlier connections, and leaves nothing to later ones.
    pub clean_session: bool,
}

/// Reads CONNECT and judges it. A refusal has been answered already; an admission has
/// not: [`accept`] does, once presence is taken. `place` is the peer's among strangers. May be
/// dropped; the connection is then of no more use.
///
/// # Errors
/// [`Refused`].
pub(super) async fn connect<S: Transport>(
    io: &mut PacketIo<S>,
    certificate: Option<&ClientChain>,
    auth: &Authenticator,
    place: &Place,
) -> Result<Admitted, Refused> {
    let connect = match io.read().await {
        Ok(Some(Packet::Connect(connect))) => connect,
        Ok(Some(_)) => return Err(Refused::OtherPacket),
        Ok(None) => return Err(Refused::Ended),
        Err(error @ ReadError::Version) => {
            return refuse(io, place, "an unknown device", Reason::Version(error)).await;
        }
        Err(error) => return Err(Refused::Unreadable(error)),
    };
    boxed(|| judge(io, connect, certificate, auth, place)).await
}

async fn judge<S: Transport>(
    io: &mut PacketIo<S>,
    connect: packet::Connect,
    certificate: Option<&ClientChain>,
    auth: &Authenticator,
    place: &Place,
) -> Result<Admitted, Refused> {
    let user_name = connect.user_name().unwrap_or_default();
    let identity = match topics::identity_from_user_name(user_name) {
        Ok(identity) => identity,
        Err(error) => return refuse(io, place, connect.client_id(), error.into()).await,
    };
    if connect.client_id() != identity.to_string() {
        return refuse(io, place, &identity.to_string(), Reason::ClientId).await;
    }
    match prove(&connect, &identity, certificate, auth).await {
        Ok(principal) => Ok(Admitted {
            principal,
            silence: silence(connect.keep_alive()),
            clean_session: connect.clean_session(),
        }),
        Err(error) => refuse(io, place, &identity.to_string(), error.into()).await,
    }
}

async fn prove(
    connect: &packet::Connect,
    identity: &DeviceIdentity,
    certificate: Option<&ClientChain>,
    auth: &Authenticator,
) -> Result<DevicePrincipal, AuthError> {
    let password = connect.password().filter(|password| !password.is_empty());
    let token;
    let proof = match (password, certificate) {
        (Some(password), _) => {
            token = std::str::from_utf8(password).map_err(|_| AuthError::Missing)?;
            DeviceProof::Token(token)
        }
        (None, Some(certificate)) => DeviceProof::Certificate(certificate),
        (None, None) => return Err(AuthError::Missing),
    };
    auth.device(identity, proof, unix_now()).await
}

/// 1.5 times the keep-alive, as MQTT says; none means the most there is.
fn silence(keep_alive: u16) -> Duration {
    match keep_alive {
        0 => KEEP_ALIVE_MAX,
        seconds => (Duration::from_secs(seconds.into()) * 3 / 2).min(KEEP_ALIVE_MAX),
    }
}

fn connack(code: ConnectReturnCode, session_present: bool) -> Vec<u8> {
    packet::Connack::builder()
        .session_present(session_present)
        .return_code(code)
        .build()
        .map(|connack| connack.to_continuous_buffer())
        .unwrap_or_default()
}

async fn refuse<S: Transport>(
    io: &mut PacketIo<S>,
    place: &Place,
    identity: &str,
    reason: Reason,
) -> Result<Admitted, Refused> {
    // The connection ends in any case.
    let _ = place.refused().await;
    let _ = io.write(&connack(reason.code(), false)).await;
    io.shutdown().await;
    Err(Refused::Connect {
        identity: identity
            .chars()
            .filter(|c| !common::outside::is_unprintable(*c))
            .take(300)
            .collect(),
        reason,
    })
}

/// Answers an admitted CONNECT, with whether there are subscriptions of earlier connections. Not
/// to be dropped, or the connection is of no more use.
///
/// # Errors
/// The connection's.
pub(super) async fn accept<S: Transport>(
    io: &mut PacketIo<S>,
    session_present: bool,
) -> std::io::Result<()> {
    io.write(&connack(ConnectReturnCode::Accepted, session_present))
        .await
}

/// Refuses an admitted CONNECT because of the hub itself: the device shall try again. May be
/// dropped; the connection is then of no more use.
pub(super) async fn unavailable<S: Transport>(io: &mut PacketIo<S>) {
    let code = ConnectReturnCode::ServerUnavailable;
    let refusing = async {
        let _ = io.write(&connack(code, false)).await;
        io.shutdown().await;
    };
    let _ = tokio::time::timeout(limits::SESSION_WRITE, refusing).await;
}
