//! One attempt: reach the hub, prove who we are, subscribe.

use std::io;

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::mqtt::{
    self, ConnectReturnCode, MqttError, Packet, PacketIo, ReadError, SubackReturnCode, packet,
};
use common::net::{self, DialError, TlsHostStream};
use common::sas_token;
use common::secret::Secret;
use common::verdict::Verdict;
use common::websocket::WebSocketBytes;
use common::wire::{method, stream, topics, twin};
use tokio::time::{Duration, Instant, timeout};
use tokio_util::either::Either;

use crate::config::Config;
use crate::limits;
use crate::transport::Transport;

/// A byte stream to the hub: TLS, or a WebSocket in it.
pub type HubStream = Either<TlsHostStream, WebSocketBytes<TlsHostStream>>;

/// A connected, subscribed MQTT session.
pub struct Connected {
    /// Its packets.
    pub io: PacketIo<HubStream>,
    /// When to connect again with a fresh token; `None` when there is none to mint.
    pub renew_at: Option<Instant>,
    /// The hub has twins, and answers requests about ours.
    pub has_twin: bool,
    /// What the hub has sent already: it may know our subscriptions from before.
    pub early: Vec<Packet>,
}

/// So many messages are taken before the answer to SUBSCRIBE: more than a hub has stream
/// requests open for one device that has just come.
const EARLY: usize = 64;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host cannot be reached or trusted.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The WebSocket under MQTT cannot be opened.
    #[error(transparent)]
    WebSocket(#[from] net::ConnectError),
    /// The hub does not take our CONNECT.
    #[error("the hub {host} refused {identity} ({code:?})")]
    Refused {
        /// The hub.
        host: String,
        /// Who we claimed to be.
        identity: String,
        /// CONNACK's code.
        code: ConnectReturnCode,
    },
    /// The hub does not grant stream requests.
    #[error("the hub {host} does not offer device streams")]
    NoStreams {
        /// The hub.
        host: String,
    },
    /// The hub sent nothing.
    #[error("the hub {host} did not answer within {} s", limits::MQTT_HANDSHAKE.as_secs())]
    Timeout {
        /// The hub.
        host: String,
    },
    /// The connection broke.
    #[error("the connection to the hub {host} broke")]
    Lost {
        /// The hub.
        host: String,
        /// How.
        #[source]
        source: io::Error,
    },
    /// The other side does not speak MQTT 3.1.1 as a hub does.
    #[error("{host} does not speak MQTT as an IoT hub does")]
    NotAHub {
        /// The host.
        host: String,
    },
}

impl ConnectError {
    /// What can cure it; a person, where the hub does not believe us: perhaps our clock is wrong,
    /// perhaps our key.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Dial(error) => error.verdict(),
            Self::WebSocket(error) => error.verdict(),
            Self::Refused { code, .. } => match code {
                ConnectReturnCode::ServerUnavailable => Verdict::Retry,
                ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNameOrPassword => {
                    Verdict::AskPerson
                }
                _ => Verdict::Never,
            },
            Self::NoStreams { .. } | Self::NotAHub { .. } => Verdict::Never,
            Self::Timeout { .. } | Self::Lost { .. } => Verdict::Retry,
        }
    }
}

/// Connects once; everything ends within the limits of dialling and of the MQTT
/// handshake. Dropping the future gives the attempt up.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(config: &Config) -> Result<Connected, ConnectError> {
    let stream = reach(config).await?;
    let host = config.connection.host.to_string();
    let io = PacketIo::new(stream, limits::MQTT_PACKET);
    match timeout(limits::MQTT_HANDSHAKE, handshake(io, config, &host)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout { host }),
    }
}

async fn reach(config: &Config) -> Result<HubStream, ConnectError> {
    let host = config.connection.connect_host();
    Ok(match config.transport {
        Transport::Mqtt => Either::Left(config.dialer.tls(host.name(), config.mqtts_port).await?),
        Transport::MqttWs => Either::Right(net::mqtt(&config.dialer, host).await?),
    })
}

async fn handshake(
    mut io: PacketIo<HubStream>,
    config: &Config,
    host: &str,
) -> Result<Connected, ConnectError> {
    let lost = |source| ConnectError::Lost {
        host: host.to_owned(),
        source,
    };
    let (hello, renew_after) = hello(&config.connection).map_err(|_| not_a_hub(host))?;
    io.write(&hello).await.map_err(lost)?;
    match next(&mut io, host).await? {
        Packet::Connack(answer) if answer.return_code() == ConnectReturnCode::Accepted => {}
        Packet::Connack(answer) => {
            return Err(ConnectError::Refused {
                host: host.to_owned(),
                identity: config.connection.identity.to_string(),
                code: answer.return_code(),
            });
        }
        _ => return Err(not_a_hub(host)),
    }
    io.write(&mqtt::subscribe(2, &FILTERS).map_err(|_| not_a_hub(host))?)
        .await
        .map_err(lost)?;
    let mut early = Vec::new();
    let answer = loop {
        match next(&mut io, host).await? {
            message @ Packet::Publish(_) if early.len() < EARLY => early.push(message),
            other => break other,
        }
    };
    let has_twin = match answer {
        Packet::Suback(answer) => {
            let codes = answer.return_codes();
            if codes.first() == Some(&SubackReturnCode::Failure) {
                return Err(ConnectError::NoStreams {
                    host: host.to_owned(),
                });
            }
            codes
                .get(TWIN_PLACE)
                .is_some_and(|code| *code != SubackReturnCode::Failure)
        }
        _ => return Err(not_a_hub(host)),
    };
    Ok(Connected {
        io,
        has_twin,
        early,
        renew_at: renew_after.map(|time| Instant::now() + time),
    })
}

fn not_a_hub(host: &str) -> ConnectError {
    ConnectError::NotAHub {
        host: host.to_owned(),
    }
}

async fn next(io: &mut PacketIo<HubStream>, host: &str) -> Result<Packet, ConnectError> {
    match io.read().await {
        Ok(Some(packet)) => Ok(packet),
        Ok(None) => Err(ConnectError::Lost {
            host: host.to_owned(),
            source: io::ErrorKind::UnexpectedEof.into(),
        }),
        Err(ReadError::Lost(source)) => Err(ConnectError::Lost {
            host: host.to_owned(),
            source,
        }),
        Err(_) => Err(not_a_hub(host)),
    }
}

/// CONNECT, and after which time its token should be replaced.
fn hello(connection: &DeviceConnectionString) -> Result<(Vec<u8>, Option<Duration>), MqttError> {
    let identity = &connection.identity;
    let host = connection.host.name();
    let client = concat!("device-proxy%2F", env!("CARGO_PKG_VERSION"));
    let keep_alive = u16::try_from(limits::MQTT_KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX);
    let mut connect = packet::Connect::builder()
        .client_id(identity.to_string())?
        .user_name(topics::user_name(host, identity, client))?
        // As every SDK: the hub keeps what it can while we are away.
        .clean_session(false)
        .keep_alive(keep_alive);
    let (token, renew_after) = token(connection);
    if let Some(token) = token {
        connect = connect.password(token.expose())?;
    }
    Ok((connect.build()?.to_continuous_buffer(), renew_after))
}

fn token(connection: &DeviceConnectionString) -> (Option<Secret>, Option<Duration>) {
    match &connection.credential {
        DeviceCredential::X509 => (None, None),
        DeviceCredential::Token(token) => (Some(token.clone()), None),
        DeviceCredential::Key { key, policy } => {
            let resource = format!(
                "{}/{}",
                connection.host.url_host(),
                connection.identity.resource_path()
            );
            let expiry = unix_now() + limits::SAS_TOKEN_LIFE.as_secs();
            let token = sas_token::mint(&resource, key, policy.as_deref(), expiry);
            // At 80 to 90 % of its life, so that many devices do not come back at once.
            let [spread] = common::random::bytes::<1>();
            let share = 0.8 + f64::from(spread) / 2560.0;
            (Some(token), Some(limits::SAS_TOKEN_LIFE.mul_f64(share)))
        }
    }
}

/// What is subscribed, in one packet: streams as the C SDK asks for them, the twin and methods.
const FILTERS: [&str; 5] = [
    stream::REQUEST_FILTER,
    stream::RESPONSE_FILTER,
    twin::RESPONSE_FILTER,
    twin::DESIRED_FILTER,
    method::FILTER,
];
/// Where the twin's filter stands among them.
const TWIN_PLACE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use common::tls::BadCertificate;

    #[test]
    fn the_subscription_is_the_c_sdks_with_twin_and_methods() {
        let hex: String = mqtt::subscribe(2, &FILTERS)
            .unwrap()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            "828b010002001624696f746875622f73747265616d732f504f53542f2300001524696f746875622f73747265616d732f7265732f2300001224696f746875622f7477696e2f7265732f2300002724696f746875622f7477696e2f50415443482f70726f706572746965732f646573697265642f2300001624696f746875622f6d6574686f64732f504f53542f2300"
        );
    }

    #[test]
    fn connect_is_as_the_dossier_says() {
        let text = "HostName=myhub.example.net;DeviceId=dev1;ModuleId=m;SharedAccessKey=AAEC";
        let connection = DeviceConnectionString::parse(text).unwrap();
        let (bytes, renew) = hello(&connection).unwrap();
        assert_eq!(bytes[0], 0x10);
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.contains("myhub.example.net/dev1/m/?api-version=2020-09-30&DeviceClientType=")
        );
        assert!(text.contains(
            "SharedAccessSignature sr=myhub.example.net%2Fdevices%2Fdev1%2Fmodules%2Fm&sig="
        ));
        let life = limits::SAS_TOKEN_LIFE;
        assert!(renew.unwrap() >= life.mul_f64(0.8) && renew.unwrap() <= life.mul_f64(0.91));
    }

    #[test]
    fn verdicts() {
        let certificate = |cause| {
            let cause = rustls::Error::InvalidCertificate(cause);
            ConnectError::Dial(DialError::Certificate {
                host: "h".into(),
                port: 1,
                bad: BadCertificate::find(&cause).unwrap(),
                via: net::Via::default(),
            })
            .verdict()
        };
        use rustls::CertificateError as C;
        assert_eq!(certificate(C::UnknownIssuer), Verdict::Never);
        assert_eq!(certificate(C::NotValidForName), Verdict::Never);
        assert_eq!(certificate(C::NotValidYet), Verdict::Retry);
        let refused = |code| {
            ConnectError::Refused {
                host: "h".into(),
                identity: "d".into(),
                code,
            }
            .verdict()
        };
        assert_eq!(
            refused(ConnectReturnCode::NotAuthorized),
            Verdict::AskPerson
        );
        assert_eq!(
            refused(ConnectReturnCode::ServerUnavailable),
            Verdict::Retry
        );
        assert_eq!(
            refused(ConnectReturnCode::IdentifierRejected),
            Verdict::Never
        );
    }
}
