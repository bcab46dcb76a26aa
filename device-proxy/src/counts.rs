//! What the program counts, for its admin listener. Labels have fixed sets of values: no target's
//! name, stream or session is one.

use std::sync::Arc;

use common::session::RefusedCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Counters = Family<[(&'static str, &'static str); 1], Counter>;

/// What one run of the program has counted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Families>);

#[derive(Debug)]
struct Families {
    hub_session_up: Gauge,
    hub_sessions_opened: Counter,
    hub_sessions_ended: Counters,
    hub_attempts_failed: Counters,
    stream_requests: Counter,
    streams_rejected: Counters,
    targets_failed: Counter,
    connections_refused: Counters,
    sessions: Counters,
}

impl Default for Families {
    fn default() -> Self {
        let new = Self {
            hub_session_up: Gauge::default(),
            hub_sessions_opened: Counter::default(),
            hub_sessions_ended: Family::default(),
            hub_attempts_failed: Family::default(),
            stream_requests: Counter::default(),
            streams_rejected: Family::default(),
            targets_failed: Counter::default(),
            connections_refused: Family::default(),
            sessions: Family::default(),
        };
        // A series that begins with its first event has no rate there.
        let begin = |family: &Counters, name, values: &[&'static str]| {
            for value in values {
                drop(family.get_or_create(&[(name, *value)]));
            }
        };
        let rejections = Rejection::ALL.map(Rejection::name);
        begin(&new.streams_rejected, "reason", &rejections);
        let refusals = ["target_refused", "target_timed_out", "limit"];
        begin(&new.connections_refused, "reason", &refusals);
        begin(
            &new.hub_sessions_ended,
            "reason",
            &["lost", "renewed", "stopped"],
        );
        begin(
            &new.hub_attempts_failed,
            "reason",
            &["unreachable", "refused"],
        );
        begin(
            &new.sessions,
            "event",
            &SessionEvent::ALL.map(SessionEvent::name),
        );
        new
    }
}

/// Why a stream was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The hub named a streaming endpoint that it may not name.
    Endpoint,
    /// It is of a kind, in session mode or plain, that may not be used.
    Mode,
    /// No new stream is accepted now.
    NotNow,
    /// No target has its name.
    NoTarget,
    /// There are as many as there may be.
    Limit,
    /// A rule for targets forbids it.
    Rule,
    /// Its target could not be reached.
    Unreachable,
    /// It was accepted, and our leg could not be opened.
    Leg,
    /// It was accepted, and came to no session.
    Session,
}

impl Rejection {
    const ALL: [Self; 9] = [
        Self::Endpoint,
        Self::Mode,
        Self::NotNow,
        Self::NoTarget,
        Self::Limit,
        Self::Rule,
        Self::Unreachable,
        Self::Leg,
        Self::Session,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Mode => "mode",
            Self::NotNow => "not_now",
            Self::NoTarget => "no_target",
            Self::Limit => "limit",
            Self::Rule => "rule",
            Self::Unreachable => "unreachable",
            Self::Leg => "leg",
            Self::Session => "session",
        }
    }
}

/// What happened to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionEvent {
    /// It has begun.
    Opened,
    /// It has lost its stream.
    Detached,
    /// It goes on over another stream.
    Resumed,
    /// It had to make room.
    Evicted,
    /// It has ended.
    Ended,
}

impl SessionEvent {
    const ALL: [Self; 5] = [
        Self::Opened,
        Self::Detached,
        Self::Resumed,
        Self::Evicted,
        Self::Ended,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Detached => "detached",
            Self::Resumed => "resumed",
            Self::Evicted => "evicted",
            Self::Ended => "ended",
        }
    }
}

/// The hub session that is up; dropped, it is not.
#[must_use]
pub(crate) struct Up(Counts);

impl Drop for Up {
    fn drop(&mut self) {
        self.0.0.hub_session_up.set(0);
    }
}

impl Counts {
    /// A hub session is up.
    pub(crate) fn hub_session(&self) -> Up {
        self.0.hub_sessions_opened.inc();
        self.0.hub_session_up.set(1);
        Up(self.clone())
    }

    /// Whether a hub session is up.
    pub(crate) fn is_hub_session_up(&self) -> bool {
        self.0.hub_session_up.get() > 0
    }

    /// It has ended.
    pub(crate) fn hub_session_ended(&self, reason: &'static str) {
        one(&self.0.hub_sessions_ended, "reason", reason);
    }

    /// An attempt to open one has failed: the hub has refused us, or was not reached.
    pub(crate) fn hub_attempt_failed(&self, is_refused: bool) {
        let reason = if is_refused { "refused" } else { "unreachable" };
        one(&self.0.hub_attempts_failed, "reason", reason);
    }

    /// A stream is asked for.
    pub(crate) fn stream_requested(&self) {
        self.0.stream_requests.inc();
    }

    /// It is not served.
    pub(crate) fn rejected(&self, rejection: Rejection) {
        one(&self.0.streams_rejected, "reason", rejection.name());
        if rejection == Rejection::Unreachable {
            self.0.targets_failed.inc();
        }
    }

    /// A connection in a session is refused, with this code.
    pub(crate) fn connection_refused(&self, code: RefusedCode) {
        let (reason, is_target) = match code {
            RefusedCode::TargetRefused => ("target_refused", true),
            RefusedCode::TimedOut => ("target_timed_out", true),
            RefusedCode::Unreachable => ("target_unreachable", true),
            RefusedCode::Limit => ("limit", false),
            RefusedCode::Withdrawn => ("not_now", false),
            _ => ("other", false),
        };
        one(&self.0.connections_refused, "reason", reason);
        if is_target {
            self.0.targets_failed.inc();
        }
    }

    /// Something happened to a session.
    pub(crate) fn session(&self, event: SessionEvent) {
        one(&self.0.sessions, "event", event.name());
    }

    /// Adds all of it to what a program counts.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let families = &*self.0;
        macro_rules! register {
            ($($name:literal $field:ident $help:literal,)+) => {
                $(registry.register($name, $help, families.$field.clone());)+
            };
        }
        register! {
            "hub_session_up" hub_session_up "Whether the session with the hub is up",
            "hub_sessions_opened" hub_sessions_opened "Sessions with the hub that were opened; more than one: it was connected again",
            "hub_sessions_ended" hub_sessions_ended "Sessions with the hub that have ended, by the reason",
            "hub_attempts_failed" hub_attempts_failed "Attempts to open a session with the hub that have failed, by the reason",
            "stream_requests" stream_requests "Streams that the hub has asked for",
            "streams_rejected" streams_rejected "Streams that were asked for and not served, by the reason",
            "target_failures" targets_failed "Connections to targets that could not be opened",
            "connections_refused" connections_refused "Connections in sessions that were refused, by the reason",
            "session_events" sessions "What happened to sessions",
        }
    }
}

fn one(family: &Counters, name: &'static str, value: &'static str) {
    family.get_or_create(&[(name, value)]).inc();
}
