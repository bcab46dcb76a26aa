//! What a hub counts of its events. Every label has a fixed set of values: nothing here grows with
//! the fleet, so no device, stream, policy or address is one.

mod labels;

use std::sync::Arc;
use std::time::Duration;

use common::admin::latency_buckets;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Connection, Event, Fault, InSession, JobOutcome, Meters, MethodOutcome, Outcome};
use crate::limits;

pub use self::labels::{Bound, Who};

/// Labels of one series: names and values that stand in this program's text.
type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;

/// Makes histograms of seconds.
#[derive(Debug, Clone, Copy)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(latency_buckets())
    }
}

/// What one hub has counted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Families>);

#[derive(Debug)]
struct Families {
    stream_requests: Counters<1>,
    streams_established: Counter,
    streams_unpaired: Counters<1>,
    streams_ended: Counters<1>,
    stream_opening: Histogram,
    stream_duration: Histogram,
    device_sessions: Family<Labels<1>, Gauge>,
    device_sessions_opened: Counters<1>,
    device_sessions_ended: Counters<1>,
    auth_refused: Counters<2>,
    enrolments: Counters<1>,
    connections_accepted: Counters<1>,
    connections_failed: Counters<1>,
    requests: Counters<2>,
    request_seconds: Family<Labels<1>, Histogram, Seconds>,
    methods: Counters<1>,
    jobs: Counters<1>,
    twin_writes: Counters<1>,
    telemetry: Counter,
    limits: Counters<1>,
    faults: Counters<1>,
    certificate_failures: Counter,
    registry_seconds: Family<Labels<1>, Histogram, Seconds>,
    meters: Meters,
}

impl Default for Families {
    fn default() -> Self {
        let new = Self {
            stream_requests: Family::default(),
            streams_established: Counter::default(),
            streams_unpaired: Family::default(),
            streams_ended: Family::default(),
            stream_opening: Seconds.new_metric(),
            // Up to a week: an ssh session that somebody left open.
            stream_duration: Histogram::new([
                0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0,
            ]),
            device_sessions: Family::default(),
            device_sessions_opened: Family::default(),
            device_sessions_ended: Family::default(),
            auth_refused: Family::default(),
            enrolments: Family::default(),
            connections_accepted: Family::default(),
            connections_failed: Family::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(Seconds),
            methods: Family::default(),
            jobs: Family::default(),
            twin_writes: Family::default(),
            telemetry: Counter::default(),
            limits: Family::default(),
            faults: Family::default(),
            certificate_failures: Counter::default(),
            registry_seconds: Family::new_with_constructor(Seconds),
            meters: Meters::default(),
        };
        new.begin_at_zero();
        new
    }
}

impl Families {
    /// A series that begins with its first event has no rate there: those that are watched begin
    /// with zero.
    fn begin_at_zero(&self) {
        let begin = |family: &Counters<1>, name, values: &[&'static str]| {
            for value in values {
                drop(family.get_or_create(&[(name, *value)]));
            }
        };
        let outcomes = [
            "accepted",
            "rejected",
            "not_online",
            "no_answer",
            "given_up",
            "throttled",
            "stopping",
            "revoked",
            "audit",
            "failed",
        ];
        begin(&self.stream_requests, "outcome", &outcomes);
        let reasons = [
            "late",
            "closed",
            "lost",
            "no_socket",
            "evicted",
            "revoked",
            "grant_over",
            "grant_taken_back",
        ];
        begin(&self.streams_unpaired, "reason", &reasons);
        let ends = ["closed", "aborted", "lost", "undelivered", "quota", "hub"];
        begin(&self.streams_ended, "end", &ends);
        for transport in TRANSPORTS {
            drop(
                self.device_sessions
                    .get_or_create(&[("transport", transport)]),
            );
        }
        begin(&self.device_sessions_opened, "transport", &TRANSPORTS);
        let ends = ["disconnected", "lost", "silent", "displaced", "revoked"];
        begin(&self.device_sessions_ended, "end", &ends);
        let methods = ["answered", "not_answered", "given_up"];
        begin(&self.methods, "outcome", &methods);
        begin(&self.jobs, "event", &["made", "cancelled", "ended"]);
        begin(&self.twin_writes, "by", &["service", "device"]);
        begin(&self.connections_failed, "reason", &["tls", "tls_slow"]);
        begin(&self.connections_accepted, "listener", &LISTENERS);
        begin(&self.limits, "limit", &Bound::ALL.map(Bound::name));
        begin(
            &self.limits,
            "limit",
            &limits::Limit::ALL.map(limits::Limit::name),
        );
        begin(
            &self.faults,
            "kind",
            &[
                "accept",
                "registry",
                "damaged",
                "not_stored",
                "audit",
                "other",
            ],
        );
        let labels = [("who", Who::Leg.name()), ("reason", "refused")];
        drop(self.auth_refused.get_or_create(&labels));
        for who in [Who::Device, Who::Service] {
            for reason in ["unknown", "wrong_key", "expired"] {
                let labels = [("who", who.name()), ("reason", reason)];
                drop(self.auth_refused.get_or_create(&labels));
            }
        }
        for access in ["read", "write"] {
            drop(self.registry_seconds.get_or_create(&[("access", access)]));
        }
    }
}

/// What carries a device's session.
const TRANSPORTS: [&str; 2] = ["mqtt", "mqtt-ws"];
/// Where connections come in.
const LISTENERS: [&str; 3] = ["https", "mqtts", "amqps"];

/// Something that is there until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Present(Gauge);

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Counts {
    /// The meters of open streams.
    pub fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// A device's session is there.
    pub fn device_session(&self, transport: &'static str) -> Present {
        let gauge = self
            .0
            .device_sessions
            .get_or_create_owned(&[("transport", transport)]);
        gauge.inc();
        Present(gauge)
    }

    /// The listener of this name has accepted a connection.
    pub fn accepted(&self, listener: &'static str) {
        let labels = [("listener", listener)];
        self.0.connections_accepted.get_or_create(&labels).inc();
    }

    /// A stream was refused before its device was asked, and before it had an id.
    pub fn stream_not_asked(&self, kind: &'static str) {
        let labels = [("outcome", kind)];
        self.0.stream_requests.get_or_create(&labels).inc();
    }

    /// Something was refused, closed or kept waiting by this limit.
    pub fn bound(&self, bound: Bound) {
        let labels = [("limit", bound.name())];
        self.0.limits.get_or_create(&labels).inc();
    }

    /// Somebody was not believed.
    pub fn not_believed(&self, who: Who, reason: &'static str) {
        let labels = [("who", who.name()), ("reason", reason)];
        self.0.auth_refused.get_or_create(&labels).inc();
    }

    /// A request was answered. `route` is the resource's name, never its path.
    pub fn request(&self, route: &'static str, status: http::StatusCode, time: Duration) {
        let class = match status.as_u16() {
            100..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        let labels = [("route", route), ("code", class)];
        self.0.requests.get_or_create(&labels).inc();
        let seconds = self.0.request_seconds.get_or_create(&[("route", route)]);
        seconds.observe(time.as_secs_f64());
    }

    /// The registry has done what was asked, or not.
    pub fn registry(&self, access: &'static str, time: Duration) {
        let seconds = self.0.registry_seconds.get_or_create(&[("access", access)]);
        seconds.observe(time.as_secs_f64());
    }

    /// Counts an event.
    pub(super) fn count(&self, event: &Event<'_>) {
        let families = &*self.0;
        let one = |family: &Counters<1>, name, value| {
            family.get_or_create(&[(name, value)]).inc();
        };
        match event {
            Event::DeviceConnected { transport, .. } => {
                one(&families.device_sessions_opened, "transport", transport);
            }
            Event::DeviceDisconnected {
                kind, telemetry, ..
            } => {
                one(&families.device_sessions_ended, "end", kind);
                families.telemetry.inc_by(*telemetry);
            }
            Event::DeviceRefused { kind, .. } => self.not_believed(Who::Device, kind),
            Event::ServiceRefused { kind, .. } => self.not_believed(Who::Service, kind),
            Event::DeviceEnrolled { .. } => one(&families.enrolments, "outcome", "device"),
            Event::OperatorEnrolled { .. } => one(&families.enrolments, "outcome", "operator"),
            Event::NotEnrolled { .. } => one(&families.enrolments, "outcome", "refused"),
            Event::AmqpRefused { .. } => one(&families.connections_failed, "reason", "amqp"),
            Event::Stream(_, outcome) => self.count_stream(outcome),
            Event::Method(_, outcome) => one(
                &families.methods,
                "outcome",
                match outcome {
                    MethodOutcome::Answered { .. } => "answered",
                    MethodOutcome::NotAnswered(_) => "not_answered",
                    MethodOutcome::GivenUp => "given_up",
                },
            ),
            Event::TwinChanged { .. } => one(&families.twin_writes, "by", "service"),
            Event::InSession(_, InSession::Reported { .. }) => {
                one(&families.twin_writes, "by", "device");
            }
            Event::Job(_, outcome) => one(
                &families.jobs,
                "event",
                match outcome {
                    JobOutcome::Made { .. } => "made",
                    JobOutcome::Cancelled { .. } => "cancelled",
                    JobOutcome::Ended { .. } => "ended",
                },
            ),
            Event::Limited { over, .. } => one(&families.limits, "limit", over.limit.name()),
            Event::Connection(connection) => self.count_connection(connection),
            Event::Fault(fault) => one(
                &families.faults,
                "kind",
                match fault {
                    Fault::NotAccepted { .. } => "accept",
                    Fault::Registry(_) | Fault::ChangesNotFollowed(_) | Fault::JobsNotRun(_) => {
                        "registry"
                    }
                    Fault::Damaged(_) | Fault::LeftOut(_) => "damaged",
                    Fault::ActivityNotStored { .. } | Fault::WritesNotStored => "not_stored",
                    Fault::Audit(fault) if fault.is_fault() => "audit",
                    // It is the end of one.
                    Fault::Audit(_) => return,
                    _ => "other",
                },
            ),
            Event::Certificate(
                super::Certificate::NotRenewed(_)
                | super::Certificate::NotReloaded(_)
                | super::Certificate::NotPublished(_),
            )
            | Event::Acme(super::Acme::Failed { .. } | super::Acme::NotKept(_)) => {
                families.certificate_failures.inc();
            }
            _ => {}
        }
    }

    fn count_stream(&self, outcome: &Outcome<'_>) {
        let families = &*self.0;
        let request = |outcome| {
            let labels = [("outcome", outcome)];
            families.stream_requests.get_or_create(&labels).inc();
        };
        match outcome {
            Outcome::Accepted => request("accepted"),
            Outcome::Rejected => request("rejected"),
            Outcome::NotAnswered { kind, .. } => request(kind),
            Outcome::GivenUp => request("given_up"),
            Outcome::Established { opening } => {
                families.streams_established.inc();
                families.stream_opening.observe(opening.as_secs_f64());
            }
            Outcome::Unpaired { kind, .. } => {
                let labels = [("reason", *kind)];
                families.streams_unpaired.get_or_create(&labels).inc();
                if *kind == "evicted" {
                    self.bound(Bound::Unjoined);
                }
            }
            Outcome::Closed { kind, duration, .. } => {
                let labels = [("end", *kind)];
                families.streams_ended.get_or_create(&labels).inc();
                families.stream_duration.observe(duration.as_secs_f64());
            }
        }
    }

    fn count_connection(&self, connection: &Connection<'_>) {
        let reason = match connection {
            Connection::TlsFailed(_) => "tls",
            Connection::TlsTooSlow => "tls_slow",
            Connection::NoConnect { .. } => "no_connect",
            Connection::AmqpNotRefused { .. } => "amqp",
            Connection::HttpDisplaced { .. } => "displaced",
            Connection::HttpFailed { .. } => "http",
            // It is a request's outcome, and counted there.
            Connection::RequestRefused { .. } => return,
        };
        let labels = [("reason", reason)];
        self.0.connections_failed.get_or_create(&labels).inc();
    }

    /// Adds all families to those of a program.
    pub fn register(&self, registry: &mut Registry) {
        let families = &*self.0;
        macro_rules! register {
            ($($name:literal $field:ident $help:literal,)+) => {
                $(registry.register($name, $help, families.$field.clone());)+
            };
        }
        register! {
            "stream_requests" stream_requests "Stream initiations of services, by what became of them",
            "streams_established" streams_established "Streams whose two legs have met",
            "streams_unpaired" streams_unpaired "Accepted streams that ended before their legs had met, by the reason",
            "streams_ended" streams_ended "Established streams that have ended, by how they did",
            "stream_opening_seconds" stream_opening "Time from a stream's initiation until both of its legs were there",
            "stream_duration_seconds" stream_duration "How long established streams were open",
            "device_sessions" device_sessions "Sessions of devices that are open, by what carries them",
            "device_sessions_opened" device_sessions_opened "Sessions of devices that were opened, by what carries them",
            "device_sessions_ended" device_sessions_ended "Sessions of devices that have ended, by how they did",
            "auth_refused" auth_refused "Credentials that were not believed, by whose they were to be and why",
            "enrolments" enrolments "Enrolment codes, by what became of them",
            "connections_accepted" connections_accepted "Connections that were accepted, by listener",
            "connections_failed" connections_failed "Connections that did not come to what they were for, by the reason",
            "http_requests" requests "Requests over HTTPS, by resource and class of the status",
            "http_request_seconds" request_seconds "Time from the head of a request over HTTPS to the head of its answer, by resource",
            "methods" methods "Calls of direct methods, by what became of them",
            "jobs" jobs "Jobs, by what happened to them",
            "twin_writes" twin_writes "Changes of twins, by who made them",
            "telemetry_messages" telemetry "Telemetry messages of device sessions that have ended",
            "limit_hits" limits "How often a limit has refused, closed or replaced something",
            "faults" faults "What the hub could not do by a mistake of its own or of its machine",
            "certificate_failures" certificate_failures "Attempts to renew or reload the hub's certificate that have failed",
            "registry_seconds" registry_seconds "Time that the registry has taken for a call",
        }
    }
}

#[cfg(test)]
mod tests;
