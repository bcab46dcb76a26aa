//! A test stream: whether one can be opened, how long a round trip takes, and how much comes through.

use std::sync::Mutex;
use std::time::Duration;

use common::doctor::{Check, Examination};
use common::identity::{DeviceIdentity, StreamName};
use common::locks::lock;
use common::report;
use common::verdict::Verdict;
use common::websocket::Incoming;
use common::wire::initiation::Timeouts;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::credential::token_target;
use super::device::Seen;
use crate::config::{DoctorConfig, ECHO_STREAM};
use crate::echo::{self, EchoEvent, EchoReport};
use crate::echo_plan::{EchoPlan, Payload};
use crate::hub_api::InitiateError;
use crate::sample_output::SampleOutput;
use crate::stream::{OpenStream, ServiceLeg, StreamFailure, StreamOpener};

const STREAM: (&str, &str) = ("stream", "test stream");
const ROUND_TRIP: (&str, &str) = ("round-trip", "round trip");
const THROUGHPUT: (&str, &str) = ("throughput", "throughput");

/// All checks of a test stream.
pub(super) const ALL: [(&str, &str); 3] = [STREAM, ROUND_TRIP, THROUGHPUT];

/// Messages of a round trip test, and the bytes in each.
const PINGS: u64 = 5;
const PING_SIZE: usize = 64;
/// Bytes of a throughput test: enough to fill the path.
const BYTES: u64 = 4 << 20;
/// Slower than this each way, a desktop is no pleasure any more. MiB/s.
const SLOW: f64 = 0.1;

/// Which target a test stream goes to.
fn target(config: &DoctorConfig, seen: &Seen) -> (String, bool) {
    if let Some(target) = &config.target {
        return (target.to_string(), true);
    }
    if let Some(target) = token_target(config) {
        return (target, true);
    }
    match &seen.targets {
        Some(targets) if !targets.iter().any(|name| name == ECHO_STREAM) => {
            match targets.iter().find(|name| *name != "*") {
                Some(first) => (first.clone(), true),
                None => ("TestStream".to_owned(), true),
            }
        }
        Some(_) => (ECHO_STREAM.to_owned(), true),
        // Nobody has said that there is one.
        None => (ECHO_STREAM.to_owned(), false),
    }
}

/// Opens a stream and tests it. May be dropped.
pub(super) async fn examine(
    config: &DoctorConfig,
    identity: &DeviceIdentity,
    seen: &Seen,
    examination: &mut Examination<'_>,
) {
    let rest = [ROUND_TRIP, THROUGHPUT];
    let (target, is_certain) = target(config, seen);
    if seen.session.as_deref() == Some("always") {
        return examination.skip(&ALL, "the device takes sessions alone (--session always)");
    }
    let opener = StreamOpener::new(&config.hub, SampleOutput::Off);
    let (Ok(opener), Ok(name)) = (opener, StreamName::parse(&target)) else {
        return examination.skip(&ALL, "there is no target for it");
    };
    let timeouts = Timeouts {
        connect: Duration::ZERO,
        response: config.limit,
    };
    let begun = Instant::now();
    let opening = opener.open_within(identity, &name, timeouts);
    let opened = match timeout(config.limit * 3, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            let check = refused(&error.failure, &target, is_certain);
            let is_unknown = !check.is_failed();
            examination.add(check.called(STREAM.1).since(begun));
            let why = if is_unknown {
                "there is no echo target"
            } else {
                "a stream has to be opened first"
            };
            return examination.skip(&rest, why);
        }
        Err(_) => {
            let check = Check::failed(STREAM.0, format!("no stream to {target} in time"))
                .remedy("look at the hub's log and the device's, for this device's name");
            examination.add(check.called(STREAM.1).since(begun));
            return examination.skip(&rest, "a stream has to be opened first");
        }
    };
    let check = Check::ok(STREAM.0, format!("to {target} is open at both ends"));
    examination.add(check.called(STREAM.1).since(begun));
    if target != ECHO_STREAM {
        banner(opened.leg, &target, config.limit, examination).await;
        return examination.skip(&[THROUGHPUT], "the device has no echo target (--echo)");
    }
    if round_trip(opened, config.limit, examination).await {
        let opening = opener.open_within(identity, &name, timeouts);
        match timeout(config.limit * 3, opening).await {
            Ok(Ok(opened)) => throughput(opened, config.limit, examination).await,
            Ok(Err(error)) => {
                let check = Check::failed(THROUGHPUT.0, report::chain(&error));
                examination.add(check.called(THROUGHPUT.1));
            }
            Err(_) => examination.skip(&[THROUGHPUT], "no second stream in time"),
        }
    } else {
        examination.skip(&[THROUGHPUT], "a round trip has to work first");
    }
}

/// Why there is no stream.
fn refused(failure: &StreamFailure, target: &str, is_certain: bool) -> Check {
    let detail = report::chain(failure);
    let failed = Check::failed(STREAM.0, detail);
    match failure {
        StreamFailure::Initiate(InitiateError::Rejected) if !is_certain => Check::skipped(
            STREAM.0,
            "the device rejects one to echo: it has no such target, for instance by device-proxy --echo",
        ),
        StreamFailure::Initiate(InitiateError::Rejected) => Check::failed(
            STREAM.0,
            format!("the device rejects a stream to {target}"),
        )
        .remedy("its log says why: no target of that name, or one that it cannot reach"),
        StreamFailure::Initiate(error) if error.verdict() == Verdict::AskPerson => failed,
        StreamFailure::Place(_) => failed.remedy(
            "add that host to --streaming-hosts if it is the hub's, and to that of device-proxy",
        ),
        StreamFailure::Endpoint(_) => failed.remedy(
            "streams need a WebSocket to that host: what stands before it has to let `Upgrade: websocket` through",
        ),
        _ => failed,
    }
}

/// What a target says first.
async fn banner(
    mut leg: ServiceLeg,
    target: &str,
    limit: Duration,
    examination: &mut Examination<'_>,
) {
    let (id, title) = ROUND_TRIP;
    let begun = Instant::now();
    let first = std::future::poll_fn(|cx| leg.poll_incoming(cx));
    let check = match timeout(limit.min(Duration::from_secs(3)), first).await {
        Ok(Ok(Incoming::Data(data))) => {
            let bytes = data.into_bytes();
            let line = bytes
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            let line: String = String::from_utf8_lossy(line).chars().take(60).collect();
            Check::ok(id, format!("{target} says {}", line.trim()))
        }
        Ok(Ok(Incoming::Closed(close))) => Check::failed(
            id,
            format!("{target} closes the stream at once ({})", close.code),
        )
        .remedy("look at the log of that service on the device"),
        Ok(Err(error)) => Check::failed(id, format!("the stream is lost: {error}"))
            .remedy("look at the hub's log and the device's, for this device's name"),
        Err(_) => Check::skipped(id, format!("{target} does not speak first")),
    };
    examination.add(check.called(title).since(begun));
}

/// Whether messages come back.
async fn round_trip(
    opened: OpenStream,
    limit: Duration,
    examination: &mut Examination<'_>,
) -> bool {
    let plan = EchoPlan::Pings {
        count: Some(PINGS),
        payload: Payload::Pattern(PING_SIZE),
        interval: Duration::ZERO,
    };
    let (id, title) = ROUND_TRIP;
    let begun = Instant::now();
    let stop = CancellationToken::new();
    let testing = echo::run_on(opened.leg, &plan, &stop, |_| ());
    let check = match timeout(limit, testing).await {
        Ok(EchoReport {
            failure: None,
            times,
            ..
        }) => Check::ok(id, times.to_string()),
        Ok(EchoReport {
            failure: Some(failure),
            received,
            ..
        }) => Check::failed(
            id,
            format!(
                "{received} of {PINGS} messages came back: {}",
                report::chain(&failure)
            ),
        )
        .remedy("look at the device's log, for this device's name"),
        Err(_) => Check::failed(
            id,
            format!(
                "the stream stalls: nothing came back within {} s",
                limit.as_secs_f32()
            ),
        )
        .remedy(
            "a firewall or proxy may hold the WebSocket's bytes back, or the echo target hangs",
        ),
    };
    examination.add(check.called(title).since(begun))
}

/// How much comes through.
async fn throughput(opened: OpenStream, limit: Duration, examination: &mut Examination<'_>) {
    let (id, title) = THROUGHPUT;
    let begun = Instant::now();
    let stop = CancellationToken::new();
    let came = Mutex::new(0u64);
    let plan = EchoPlan::Throughput { total: BYTES };
    let observer = |event: EchoEvent<'_>| {
        if let EchoEvent::Progress { received } = event {
            *lock(&came) = received;
        }
    };
    let result = timeout(limit, echo::run_on(opened.leg, &plan, &stop, observer)).await;
    let came = *lock(&came);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = came as f64 / f64::from(1 << 20) / begun.elapsed().as_secs_f64().max(1e-9);
    let check = match result {
        Ok(EchoReport {
            failure: Some(failure),
            ..
        }) => Check::failed(
            id,
            format!(
                "broke after {came} of {BYTES} bytes: {}",
                report::chain(&failure)
            ),
        )
        .remedy("the path loses long transfers: look at the hub's log and the device's"),
        Ok(report) if report.throughput() >= SLOW => Check::ok(
            id,
            format!(
                "{:.1} MiB/s each way, at once, every byte checked",
                report.throughput()
            ),
        ),
        Err(_) if came == 0 => Check::failed(
            id,
            format!(
                "the stream stalls: no byte came back within {} s",
                limit.as_secs_f32()
            ),
        )
        .remedy("small messages pass and large ones do not: look at the path's MTU"),
        Err(_) if rate >= SLOW => Check::ok(
            id,
            format!("{rate:.1} MiB/s each way, at once, as long as there was time"),
        ),
        Ok(_) | Err(_) => Check::warning(id, format!("{rate:.2} MiB/s each way: a slow path"))
            .remedy("compare with the network itself, and with another device"),
    };
    examination.add(check.called(title).since(begun));
}
