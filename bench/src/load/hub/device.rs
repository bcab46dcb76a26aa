//! Device sessions over MQTT: one that answers stream requests, and thousands that are idle, report
//! properties, or answer direct methods.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::identity::{DeviceId, DeviceIdentity, RequestId};
use common::mqtt::{self, ConnectReturnCode, MqttError, Packet, PacketIo, packet};
use common::net::{self, TlsHostStream};
use common::websocket::WebSocketBytes;
use common::wire::method::{self, MethodRequest, MethodResponse};
use common::wire::stream::{self, StreamAnswer, StreamRequest};
use common::wire::twin::{TwinRequest, TwinResponse};
use common::wire::{topics, twin};
use common::{limits, sas_token};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{self, interval_at};
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use super::super::statistics::round;
use super::super::{LoadError, within};
use super::{Hub, hub};

/// The filters of device-proxy; the last one only with answers.
const FILTERS: [&str; 4] = [
    stream::REQUEST_FILTER,
    stream::RESPONSE_FILTER,
    twin::RESPONSE_FILTER,
    method::FILTER,
];
/// Limit of connecting one session.
const CONNECT: Duration = Duration::from_secs(60);
/// Limit of the answer to a ping at the end.
const PONG: Duration = Duration::from_secs(30);
/// An interval that does not end.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// Longer than any session is held: silent sessions are dropped after 1.5 times this.
const KEEP_ALIVE: u16 = 1170;

/// What a session runs over: TLS, or a WebSocket in it.
type HubStream = Either<TlsHostStream, WebSocketBytes<TlsHostStream>>;

/// One device's session.
pub struct Session {
    io: PacketIo<HubStream>,
    /// The calls of direct methods that it has answered.
    answered: u64,
}

impl Session {
    /// Connects: TLS, CONNECT and SUBSCRIBE. `answers`: it takes direct methods.
    ///
    /// # Errors
    /// [`LoadError::Hub`] when the hub cannot be reached or refuses this device.
    pub async fn connect(
        at: &Hub,
        connection: &DeviceConnectionString,
        answers: bool,
    ) -> Result<Self, LoadError> {
        let host = connection.connect_host();
        let stream = if at.websocket {
            Either::Right(net::mqtt(&at.dialer, host).await.map_err(hub)?)
        } else {
            let tls = at.dialer.tls(host.name(), at.mqtts_port).await;
            Either::Left(tls.map_err(hub)?)
        };
        let mut session = Self {
            io: PacketIo::new(stream, limits::MQTT_PACKET),
            answered: 0,
        };
        let filters = if answers { &FILTERS[..] } else { &FILTERS[..3] };
        session.write(&hello(connection)).await?;
        match session.packet().await? {
            Packet::Connack(answer) if answer.return_code() == ConnectReturnCode::Accepted => {}
            other => return Err(unexpected(&other)),
        }
        session.write(&mqtt::subscribe(2, filters)).await?;
        match session.packet().await? {
            Packet::Suback(_) => Ok(session),
            other => Err(unexpected(&other)),
        }
    }

    async fn write(&mut self, packet: &Result<Vec<u8>, MqttError>) -> Result<(), LoadError> {
        let bytes = packet
            .as_ref()
            .map_err(|error| LoadError::Hub(format!("a packet cannot be encoded: {error:?}")))?;
        self.io.write(bytes).await.map_err(hub)
    }

    async fn packet(&mut self) -> Result<Packet, LoadError> {
        match self.io.read().await {
            Ok(Some(packet)) => Ok(packet),
            Ok(None) => Err(LoadError::Hub("it ended a device's session".to_owned())),
            Err(error) => Err(hub(error)),
        }
    }

    /// Waits for the next stream request and accepts it.
    ///
    /// # Errors
    /// [`LoadError::Hub`] when the session ends.
    pub async fn accept(&mut self) -> Result<StreamRequest, LoadError> {
        loop {
            let Packet::Publish(publish) = self.packet().await? else {
                continue;
            };
            let request = StreamRequest::from_topic(publish.topic_name()).map_err(hub)?;
            let answer = StreamAnswer {
                request_id: request.request_id.clone(),
                accepted: true,
            };
            self.write(&mqtt::publish(&answer.to_topic())).await?;
            return Ok(request);
        }
    }

    /// Reports a property in the twin; the number is the request's id too.
    async fn report(&mut self, number: u64) -> Result<(), LoadError> {
        let request = TwinRequest::PatchReported(RequestId::from(number));
        let patch = json!({ "load": { "number": number, "state": "as usual" } });
        let topic = request.to_topic();
        self.write(&mqtt::publish_with(&topic, patch.to_string().as_bytes()))
            .await
    }

    /// Takes what the hub sends: a call of a method is answered, a report has been stored.
    async fn take(&mut self, packet: &Packet) -> Result<Taken, LoadError> {
        let Packet::Publish(publish) = packet else {
            return match packet {
                Packet::Pingresp => Ok(Taken::Pong),
                _ => Err(unexpected(packet)),
            };
        };
        let topic = publish.topic_name();
        if let Some(call) = MethodRequest::from_topic(topic) {
            let answer = MethodResponse {
                request_id: call.request_id,
                status: 200,
            };
            let payload = br#"{"done":true}"#;
            self.write(&mqtt::publish_with(&answer.to_topic(), payload))
                .await?;
            self.answered += 1;
            return Ok(Taken::Call);
        }
        match TwinResponse::from_topic(topic) {
            Some(response) if response.is_success() => Ok(Taken::Report),
            _ => Err(unexpected(packet)),
        }
    }

    /// Reports so often, beginning after `phase`, and answers methods, until `over`.
    async fn live(
        mut self,
        report_every: Option<Duration>,
        phase: Duration,
        over: CancellationToken,
    ) -> Result<Self, LoadError> {
        let every = report_every.unwrap_or(NEVER);
        let mut ticks = interval_at(time::Instant::now() + phase, every);
        let mut reported: Option<Instant> = None;
        let mut number = 0;
        loop {
            tokio::select! {
                () = over.cancelled() => return Ok(self),
                packet = self.packet() => {
                    if matches!(self.take(&packet?).await?, Taken::Report) {
                        reported = None;
                    }
                }
                _ = ticks.tick(), if report_every.is_some() => match reported {
                    None => {
                        number += 1;
                        self.report(number).await?;
                        reported = Some(Instant::now());
                    }
                    Some(at) if at.elapsed() > PONG => {
                        return Err(LoadError::Late { doing: "a report", limit: PONG });
                    }
                    Some(_) => {}
                },
            }
        }
    }

    /// Checks that the hub still answers.
    async fn ping(&mut self) -> Result<(), LoadError> {
        let ping = packet::Pingreq::builder().build();
        self.write(&ping.map(|ping| ping.to_continuous_buffer()))
            .await?;
        loop {
            let packet = self.packet().await?;
            if matches!(self.take(&packet).await?, Taken::Pong) {
                return Ok(());
            }
        }
    }
}

/// What the hub has sent to a device.
enum Taken {
    Call,
    Report,
    Pong,
}

fn unexpected(packet: &Packet) -> LoadError {
    LoadError::Hub(format!("it said {packet:?}"))
}

fn hello(connection: &DeviceConnectionString) -> Result<Vec<u8>, MqttError> {
    let identity = &connection.identity;
    let host = connection.host.name();
    let mut connect = packet::Connect::builder()
        .client_id(identity.to_string())?
        .user_name(topics::user_name(host, identity, "stream-load"))?
        .clean_session(true)
        .keep_alive(KEEP_ALIVE);
    if let DeviceCredential::Key { key, policy } = &connection.credential {
        let resource = format!(
            "{}/{}",
            connection.host.url_host(),
            identity.resource_path()
        );
        let expiry = unix_now() + limits::SAS_TOKEN_LIFE.as_secs();
        let token = sas_token::mint(&resource, key, policy.as_deref(), expiry);
        connect = connect.password(token.expose())?;
    }
    Ok(connect.build()?.to_continuous_buffer())
}

/// Which devices are held, and how.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Number of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// How many connect at the same time.
    pub concurrency: usize,
    /// How often each reports a property in its twin.
    pub report_every: Option<Duration>,
    /// Whether each answers direct methods, with 200 and a small object. With neither, they are
    /// idle.
    pub answers: bool,
}

/// Connects devices, calls `ready` with the rate, and holds them until `stop` ends. The hub must
/// then answer a ping of each.
///
/// # Errors
/// [`LoadError`] of the first device that is refused, whose report is, or which is not connected at
/// the end.
pub async fn hold(
    at: Hub,
    held: Held,
    ready: impl FnOnce(&Value),
    stop: impl Future<Output = ()>,
) -> Result<Value, LoadError> {
    let Held {
        first,
        count,
        concurrency,
        report_every,
        answers,
    } = held;
    let at = Arc::new(at);
    let places = Arc::new(Semaphore::new(concurrency));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for number in first..first.saturating_add(count) {
        let id = format!("{}-{number}", at.device.identity.device.as_str());
        let connection = DeviceConnectionString {
            identity: DeviceIdentity::of_device(DeviceId::parse(&id).map_err(hub)?),
            ..at.device.clone()
        };
        let (at, places) = (Arc::clone(&at), Arc::clone(&places));
        tasks.spawn(async move {
            let _place = places.acquire_owned().await.map_err(|_| LoadError::Lost)?;
            within(
                CONNECT,
                "a device's connecting",
                Session::connect(&at, &connection, answers),
            )
            .await
        });
    }
    let mut sessions = Vec::new();
    while let Some(done) = tasks.join_next().await {
        sessions.push(done.map_err(|_| LoadError::Lost)??);
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut result = json!({
        "connected": sessions.len(),
        "seconds": seconds,
        "per_second": round(sessions.len() as f64 / seconds),
    });
    ready(&result);
    if answers || report_every.is_some() {
        sessions = live(sessions, report_every, stop).await?;
    } else {
        stop.await;
    }
    for session in &mut sessions {
        within(PONG, "a device's ping", session.ping()).await?;
    }
    if let Some(result) = result.as_object_mut() {
        result.insert("alive".into(), json!(sessions.len()));
        let answered: u64 = sessions.iter().map(|session| session.answered).sum();
        result.insert("answered".into(), json!(answered));
    }
    Ok(result)
}

/// Has each session report and answer, until `stop` ends.
async fn live(
    sessions: Vec<Session>,
    report_every: Option<Duration>,
    stop: impl Future<Output = ()>,
) -> Result<Vec<Session>, LoadError> {
    let over = CancellationToken::new();
    // Their reports are spread over the time between two of one.
    let step = report_every
        .unwrap_or_default()
        .div_f64(sessions.len().max(1) as f64);
    let mut tasks = JoinSet::new();
    let mut phase = Duration::ZERO;
    for session in sessions {
        tasks.spawn(session.live(report_every, phase, over.clone()));
        phase += step;
    }
    let mut sessions = Vec::new();
    tokio::select! {
        () = stop => over.cancel(),
        // Before its time, only a session ends that has failed.
        Some(failed) = tasks.join_next() => sessions.push(failed.map_err(|_| LoadError::Lost)??),
    }
    while let Some(done) = tasks.join_next().await {
        sessions.push(done.map_err(|_| LoadError::Lost)??);
    }
    Ok(sessions)
}
