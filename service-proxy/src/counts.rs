//! What the process counts, for its admin listener. There is one of it, as there is one admin
//! listener: it is counted where tunnels, sessions and streams are, however they were begun. Labels
//! have fixed sets of values: no device, target or forward is one.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use common::admin::{Metrics, NotReady, Program, latency_buckets};
use common::clock::unix_now;
use common::locks::lock;
use common::tunnel::Traffic;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

type Counters = Family<[(&'static str, &'static str); 1], Counter>;

/// What a process has counted.
#[derive(Debug)]
pub(crate) struct Counts {
    connections: Gauge,
    connections_accepted: Counter,
    tunnels_opened: Counters,
    tunnels_ended: Counters,
    failures: Counters,
    opening: Histogram,
    sessions: Gauge,
    sessions_interrupted: Gauge,
    session_events: Counters,
    streams: Counters,
    contact: Gauge,
    carried: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<u64, Arc<Traffic>>,
    last: u64,
    /// Bytes to devices and from them, of tunnels that have ended.
    ended: (u64, u64),
}

impl Table {
    fn bytes(&self) -> (u64, u64) {
        let open = self.open.values();
        open.fold(self.ended, |(to, from), traffic| {
            (to + traffic.sent(), from + traffic.received())
        })
    }
}

/// The counts of this process.
pub(crate) fn counts() -> &'static Counts {
    static COUNTS: OnceLock<Counts> = OnceLock::new();
    COUNTS.get_or_init(Counts::new)
}

/// In what a tunnel travels.
const WAYS: [&str; 2] = ["session", "stream"];
/// How tunnels end.
const ENDS: [&str; 3] = ["closed", "broken", "stopped"];

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEvent {
    /// It has lost its stream.
    Interrupted,
    /// It goes on over another stream.
    Resumed,
    /// It was given up.
    Lost,
}

/// A tunnel that is open; its bytes count as long as it is, and from then on.
#[derive(Debug)]
#[must_use]
pub(crate) struct Counted {
    number: u64,
    traffic: Arc<Traffic>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut table = lock(&counts().carried);
        // In one step: a sum never becomes smaller.
        if table.open.remove(&self.number).is_some() {
            table.ended.0 += self.traffic.sent();
            table.ended.1 += self.traffic.received();
        }
    }
}

/// One of some things that are there, as long as this is not dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Present(Gauge);

impl Present {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Counts {
    fn new() -> Self {
        let new = Self {
            connections: Gauge::default(),
            connections_accepted: Counter::default(),
            tunnels_opened: Family::default(),
            tunnels_ended: Family::default(),
            failures: Family::default(),
            opening: Histogram::new(latency_buckets()),
            sessions: Gauge::default(),
            sessions_interrupted: Gauge::default(),
            session_events: Family::default(),
            streams: Family::default(),
            contact: Gauge::default(),
            carried: Arc::default(),
        };
        // A series that begins with its first event has no rate there.
        let begin = |family: &Counters, name, values: &[&'static str]| {
            for value in values {
                drop(family.get_or_create(&[(name, *value)]));
            }
        };
        begin(&new.tunnels_opened, "in", &WAYS);
        begin(&new.tunnels_ended, "end", &ENDS);
        begin(
            &new.session_events,
            "event",
            &["opened", "interrupted", "resumed", "lost", "ended"],
        );
        let failures = ["device_offline", "rejected", "unreachable", "unauthorised"];
        begin(&new.failures, "reason", &failures);
        begin(&new.streams, "outcome", &["opened", "failed"]);
        new
    }

    /// A local connection is there.
    pub(crate) fn connection(&self) -> Present {
        self.connections_accepted.inc();
        Present::new(&self.connections)
    }

    /// A tunnel begins to be carried, whose bytes are counted here.
    pub(crate) fn carry(&self, traffic: &Arc<Traffic>) -> Counted {
        let traffic = Arc::clone(traffic);
        let mut table = lock(&self.carried);
        table.last += 1;
        let number = table.last;
        table.open.insert(number, Arc::clone(&traffic));
        Counted { number, traffic }
    }

    /// The device has opened a tunnel, in a session or in a stream of its own, so long after it was
    /// asked for.
    pub(crate) fn tunnel_opened(&self, is_in_session: bool, after: Duration) {
        let way = if is_in_session { "session" } else { "stream" };
        one(&self.tunnels_opened, "in", way);
        self.opening.observe(after.as_secs_f64());
    }

    /// It has ended: normally, or broken, or with the program.
    pub(crate) fn tunnel_ended(&self, end: &'static str) {
        one(&self.tunnels_ended, "end", end);
    }

    /// There is no tunnel.
    pub(crate) fn tunnel_failed(&self, reason: &'static str) {
        one(&self.failures, "reason", reason);
    }

    /// A session is there.
    pub(crate) fn session(&self) -> Present {
        one(&self.session_events, "event", "opened");
        Present::new(&self.sessions)
    }

    /// A session is there, and interrupted.
    pub(crate) fn interrupted(&self) -> Present {
        Present::new(&self.sessions_interrupted)
    }

    /// Something happened to a session.
    pub(crate) fn session_event(&self, event: SessionEvent) {
        let event = match event {
            SessionEvent::Interrupted => "interrupted",
            SessionEvent::Resumed => "resumed",
            SessionEvent::Lost => "lost",
        };
        one(&self.session_events, "event", event);
    }

    /// A session has ended in order, or by the device.
    pub(crate) fn session_ended(&self) {
        one(&self.session_events, "event", "ended");
    }

    /// A stream was opened, or not.
    pub(crate) fn stream(&self, is_open: bool) {
        let outcome = if is_open { "opened" } else { "failed" };
        one(&self.streams, "outcome", outcome);
        if is_open {
            self.contact.set(i64::try_from(unix_now()).unwrap_or(0));
        }
    }

    fn register(&self, registry: &mut Registry) {
        macro_rules! register {
            ($($name:literal $field:ident $help:literal,)+) => {
                $(registry.register($name, $help, self.$field.clone());)+
            };
        }
        register! {
            "connections" connections "Local connections that are open",
            "connections_accepted" connections_accepted "Local connections that were accepted",
            "tunnels_opened" tunnels_opened "Tunnels that the device has opened, by what they travel in",
            "tunnels_ended" tunnels_ended "Tunnels that were open and have ended, by how they did",
            "tunnel_failures" failures "Local connections that came to no tunnel, by the reason",
            "tunnel_opening_seconds" opening "Time until the device has opened a tunnel",
            "sessions" sessions "Sessions with devices, interrupted ones included",
            "sessions_interrupted" sessions_interrupted "Sessions that are interrupted and being opened again",
            "session_events" session_events "What happened to sessions",
            "streams" streams "Streams that were asked of the hub, by what became of them",
            "last_stream_timestamp_seconds" contact "When a stream was last opened through a hub, in seconds of Unix time; 0: never",
        }
        registry.register_collector(Box::new(Bytes(Arc::clone(&self.carried))));
    }
}

fn one(family: &Counters, name: &'static str, value: &'static str) {
    family.get_or_create(&[(name, value)]).inc();
}

/// What tunnels carry, added up when somebody asks.
#[derive(Debug)]
struct Bytes(Arc<Mutex<Table>>);

impl Collector for Bytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (open, (to, from)) = {
            let table = lock(&self.0);
            (table.open.len(), table.bytes())
        };
        let gauge = encoder.encode_descriptor(
            "tunnels",
            "Tunnels that are open, or being opened in a session",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(open).unwrap_or(i64::MAX)).encode(gauge)?;
        let mut bytes = encoder.encode_descriptor(
            "bytes",
            "Bytes that tunnels have carried, by where they went",
            None,
            MetricType::Counter,
        )?;
        for (direction, count) in [("to_device", to), ("from_device", from)] {
            let labels = [("direction", direction)];
            ConstCounter::new(count).encode(bytes.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// A service-proxy that listens, as its admin listener shows it.
pub(crate) struct Observed {
    metrics: Metrics,
    /// Cancelled as soon as it listens.
    listening: CancellationToken,
    stop: CancellationToken,
}

impl Observed {
    /// It is ready once `listening` is cancelled, and until `stop` is. Whether a hub or device can be
    /// reached is no matter of that: it is found out for each connection, and a client that is
    /// refused learns more than one that finds no port.
    pub(crate) fn new(listening: &CancellationToken, stop: &CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            metrics: Metrics::new("service_proxy", env!("CARGO_PKG_VERSION"), |registry| {
                counts().register(registry);
            }),
            listening: listening.clone(),
            stop: stop.clone(),
        })
    }
}

impl Program for Observed {
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn not_ready(&self) -> Pin<Box<dyn Future<Output = NotReady> + Send + '_>> {
        let is_listening = self.listening.is_cancelled();
        let reasons = [
            (!is_listening).then_some("the local ports are not bound yet"),
            self.stop
                .is_cancelled()
                .then_some("service-proxy is stopping"),
        ];
        let reasons = reasons.into_iter().flatten().map(str::to_owned).collect();
        Box::pin(std::future::ready(reasons))
    }
}
