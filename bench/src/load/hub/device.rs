//! Device sessions over MQTT and TLS: one that answers stream requests, and thousands of idle ones.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::identity::{DeviceId, DeviceIdentity, RequestId};
use common::mqtt::{self, ConnectReturnCode, MqttError, Packet, PacketIo, packet};
use common::wire::stream::{self, StreamAnswer, StreamRequest};
use common::wire::twin::{TwinRequest, TwinResponse};
use common::wire::{topics, twin};
use common::{limits, sas_token};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::super::statistics::round;
use super::super::{LoadError, within};
use super::{Hub, hub};

/// The filters of device-proxy.
const FILTERS: [&str; 3] = [
    stream::REQUEST_FILTER,
    stream::RESPONSE_FILTER,
    twin::RESPONSE_FILTER,
];
/// Limit of connecting one session.
const CONNECT: Duration = Duration::from_secs(60);
/// Limit of the answer to a ping at the end.
const PONG: Duration = Duration::from_secs(30);
/// Reports at the same time, at most.
const REPORTERS: usize = 64;
/// Longer than any session is held: silent sessions are dropped after 1.5 times this.
const KEEP_ALIVE: u16 = 1170;

/// One device's session.
pub struct Session {
    io: PacketIo<TlsStream<TcpStream>>,
}

impl Session {
    /// Connects: TLS, CONNECT and SUBSCRIBE.
    ///
    /// # Errors
    /// [`LoadError::Hub`] when the hub cannot be reached or refuses this device.
    pub async fn connect(at: &Hub, connection: &DeviceConnectionString) -> Result<Self, LoadError> {
        let host = connection.connect_host().name();
        let stream = at.dialer.tls(host, at.mqtts_port).await.map_err(hub)?;
        let mut session = Self {
            io: PacketIo::new(stream, limits::MQTT_PACKET),
        };
        session.write(&hello(connection)).await?;
        match session.packet().await? {
            Packet::Connack(answer) if answer.return_code() == ConnectReturnCode::Accepted => {}
            other => return Err(unexpected(&other)),
        }
        session.write(&mqtt::subscribe(2, &FILTERS)).await?;
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

    /// Reports a property in the twin, as often as this is called with another number.
    async fn report(&mut self, number: u64) -> Result<(), LoadError> {
        let request = TwinRequest::PatchReported(RequestId::from(number));
        let patch = json!({ "load": { "number": number, "state": "as usual" } });
        let topic = request.to_topic();
        self.write(&mqtt::publish_with(&topic, patch.to_string().as_bytes()))
            .await?;
        match self.packet().await? {
            Packet::Publish(publish)
                if TwinResponse::from_topic(publish.topic_name())
                    .is_some_and(|response| response.is_success()) =>
            {
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Checks that the hub still answers.
    async fn ping(&mut self) -> Result<(), LoadError> {
        let ping = packet::Pingreq::builder().build();
        self.write(&ping.map(|ping| ping.to_continuous_buffer()))
            .await?;
        match self.packet().await? {
            Packet::Pingresp => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
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
    /// How often each reports a property in its twin; `None`: they are idle.
    pub report_every: Option<Duration>,
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
                Session::connect(&at, &connection),
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
    match report_every {
        None => stop.await,
        Some(every) => sessions = report(sessions, every, stop).await?,
    }
    for session in &mut sessions {
        within(PONG, "a device's ping", session.ping()).await?;
    }
    if let Some(result) = result.as_object_mut() {
        result.insert("alive".into(), json!(sessions.len()));
    }
    Ok(result)
}

/// Has each session report, one after the other in each of some groups, until `stop` ends.
async fn report(
    mut sessions: Vec<Session>,
    every: Duration,
    stop: impl Future<Output = ()>,
) -> Result<Vec<Session>, LoadError> {
    let over = CancellationToken::new();
    let size = sessions.len().div_ceil(REPORTERS).max(1);
    let mut tasks = JoinSet::new();
    while !sessions.is_empty() {
        let mut group = sessions.split_off(sessions.len().saturating_sub(size));
        let over = over.clone();
        let mut ticks = interval(every.div_f64(group.len() as f64));
        tasks.spawn(async move {
            for round in 1.. {
                for session in &mut group {
                    tokio::select! {
                        () = over.cancelled() => return Ok(group),
                        _ = ticks.tick() => {}
                    }
                    within(PONG, "a report", session.report(round)).await?;
                }
            }
            Ok(group)
        });
    }
    stop.await;
    over.cancel();
    while let Some(done) = tasks.join_next().await {
        sessions.extend(done.map_err(|_| LoadError::Lost)??);
    }
    Ok(sessions)
}
