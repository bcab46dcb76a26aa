//! Streams without proxies: initiations per second, and idle streams.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::identity::StreamName;
use common::limits;
use common::net::{self, Dialer, TlsHostStream};
use common::secret::Secret;
use common::websocket::{Data, Incoming, WebSocket};
use common::wire::initiation::Timeouts;
use common::wire::streaming_endpoint::StreamingEndpoint;
use serde_json::{Value, json};
use service_proxy::hub_api::HubApi;
use tokio::task::JoinSet;

use super::super::statistics::{round, summary};
use super::super::{LoadError, within};
use super::device::Session;
use super::{Hub, hub, service};

type Leg = WebSocket<TlsHostStream>;

/// Limit of one stream, from its initiation to its first echo.
const STREAM: Duration = Duration::from_secs(30);
/// Streams that are opened at the same time.
const TOGETHER: usize = 16;

/// A service that uses the hub's API as service-proxy does.
struct Service {
    api: HubApi,
    name: StreamName,
    at: Hub,
}

impl Service {
    fn new(at: &Hub, service_file: &Path) -> Result<Self, LoadError> {
        Ok(Self {
            api: HubApi::new(&service(service_file)?, None, &at.dialer),
            name: StreamName::parse("bench").map_err(hub)?,
            at: at.clone(),
        })
    }

    /// Initiates a stream; returns the URL and the token of the service's leg.
    async fn initiate(&self) -> Result<(String, Secret), LoadError> {
        let timeouts = Timeouts {
            connect: Duration::ZERO,
            response: Duration::from_secs(15),
        };
        let identity = &self.at.device.identity;
        let endpoint = self
            .api
            .initiate(identity, &self.name, timeouts)
            .await
            .map_err(hub)?;
        Ok((endpoint.url, endpoint.token))
    }
}

/// Initiations for `seconds`, `concurrency` at a time, each accepted by the device at once. The
/// legs are not opened, and the hub keeps only the newest of these streams; the run ends at half
/// of the hub's limit of streams.
///
/// # Errors
/// [`LoadError`] of the first that fails.
pub async fn initiations(
    at: Hub,
    service_file: &Path,
    concurrency: u32,
    seconds: f64,
) -> Result<Value, LoadError> {
    let patience = Duration::try_from_secs_f64(seconds)
        .map_err(|_| LoadError::Usage("that is no number of seconds"))?;
    let service = Arc::new(Service::new(&at, service_file)?);
    let mut session = Session::connect(&at, &at.device, false).await?;
    let device = tokio::spawn(async move { while session.accept().await.is_ok() {} });
    // Opens the client's connections before the measurement.
    for _ in 0..concurrency {
        within(STREAM, "an initiation", service.initiate()).await?;
    }
    let most = limits::STREAMS_PER_HUB / 2 / concurrency.max(1) as usize;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..concurrency {
        let service = Arc::clone(&service);
        tasks.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < patience && times.len() < most {
                let from = Instant::now();
                within(STREAM, "an initiation", service.initiate()).await?;
                times.push(from.elapsed());
            }
            Ok::<_, LoadError>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.map_err(|_| LoadError::Lost)??);
    }
    let took = started.elapsed().as_secs_f64();
    device.abort();
    let per_second = round(times.len() as f64 / took);
    let mut result = summary(times);
    if let Some(result) = result.as_object_mut() {
        result.insert("per_second".into(), json!(per_second));
    }
    Ok(result)
}

/// Opens `count` streams, each with one echo from leg to leg, calls `ready`, and holds them until
/// `stop` ends. All must be alive then.
///
/// # Errors
/// [`LoadError`] of the first stream that cannot be opened, or is not alive at the end.
pub async fn hold(
    at: Hub,
    service_file: &Path,
    count: usize,
    ready: impl FnOnce(&Value),
    stop: impl Future<Output = ()>,
) -> Result<Value, LoadError> {
    let service = Arc::new(Service::new(&at, service_file)?);
    let mut session = Session::connect(&at, &at.device, false).await?;
    let dialer = at.dialer.clone();
    let device = tokio::spawn(async move {
        let mut legs = JoinSet::new();
        while let Ok(request) = session.accept().await {
            legs.spawn(echo(request.url, request.token, dialer.clone()));
        }
    });
    let started = Instant::now();
    let mut opening = JoinSet::new();
    // These tasks answer the hub's pings.
    let mut held = JoinSet::new();
    for number in 0..count {
        if number >= TOGETHER {
            keep(&mut held, opening.join_next().await)?;
        }
        let service = Arc::clone(&service);
        opening.spawn(async move { within(STREAM, "a stream", open(&service)).await });
    }
    while !opening.is_empty() {
        keep(&mut held, opening.join_next().await)?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let result = json!({
        "streams": count,
        "seconds": seconds,
        "per_second": round(count as f64 / seconds),
    });
    ready(&result);
    stop.await;
    if held.try_join_next().is_some() || device.is_finished() {
        return Err(LoadError::Hub("it ended a stream that was idle".to_owned()));
    }
    Ok(result)
}

fn keep(
    held: &mut JoinSet<()>,
    opened: Option<Result<Result<Leg, LoadError>, tokio::task::JoinError>>,
) -> Result<(), LoadError> {
    let mut leg = opened
        .ok_or(LoadError::Lost)?
        .map_err(|_| LoadError::Lost)??;
    held.spawn(async move { while receive(&mut leg).await.is_ok() {} });
    Ok(())
}

async fn leg(dialer: &Dialer, url: &str, token: &Secret) -> Result<Leg, LoadError> {
    let endpoint = StreamingEndpoint::parse(url).map_err(hub)?;
    net::leg(dialer, &endpoint, token).await.map_err(hub)
}

/// Opens the service's side of a stream, to its first echo.
async fn open(service: &Service) -> Result<Leg, LoadError> {
    let (url, token) = service.initiate().await?;
    let mut leg = leg(&service.at.dialer, &url, &token).await?;
    send(&mut leg, Bytes::from_static(b"x")).await?;
    if receive(&mut leg).await?.as_ref() != b"x" {
        return Err(LoadError::Wrong { at: 0 });
    }
    Ok(leg)
}

/// The device's side: echoes everything.
async fn echo(url: String, token: Secret, dialer: Dialer) -> Result<(), LoadError> {
    let mut leg = leg(&dialer, &url, &token).await?;
    loop {
        let bytes = receive(&mut leg).await?;
        send(&mut leg, bytes).await?;
    }
}

async fn send(leg: &mut Leg, bytes: Bytes) -> Result<(), LoadError> {
    poll_fn(|cx| leg.poll_ready(cx)).await.map_err(hub)?;
    leg.start_send(Data::binary(bytes)).map_err(hub)?;
    poll_fn(|cx| leg.poll_flush(cx)).await.map_err(hub)
}

async fn receive(leg: &mut Leg) -> Result<Bytes, LoadError> {
    match poll_fn(|cx| leg.poll_incoming(cx)).await.map_err(hub)? {
        Incoming::Data(data) => Ok(data.into_bytes()),
        Incoming::Closed(_) => Err(LoadError::Hub("it closed a leg".to_owned())),
    }
}
