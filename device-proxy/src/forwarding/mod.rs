//! What is carried to a target, a stream or a connection of a session, in the log: one line when it
//! opens, one when it ends. All that are open are in a table, for operators.

mod table;

pub(crate) use table::{Forwardings, LastError, Open, Opening, Totals};

use std::error::Error;

use common::identity::StreamId;
use common::session::{ConnectionId, SessionId};
use common::telemetry::About;
use common::tunnel::Outcome;
use common::{log_about, report, telemetry};

use crate::target::Target;

/// In what the bytes travel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// In a stream of its own; its id, if its URL has one.
    Stream(Option<StreamId>),
    /// As a connection of a session.
    Session(SessionId, ConnectionId),
}

/// What is carried to a target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forwarding<'a> {
    /// In what.
    pub(crate) way: Way,
    /// The name by which the target was asked for; printable.
    pub(crate) name: &'a str,
    /// Where it leads.
    pub(crate) target: &'a Target,
}

impl Forwarding<'_> {
    /// It is open.
    fn log_opened(&self) {
        log_about!(audit info, self.about(), "{} opened", self.kind());
    }

    /// It has ended: normally if both sides had sent all they wanted.
    fn log_ended<E: Error>(&self, outcome: &Outcome<E>, is_normal: bool) {
        #[cfg(feature = "otel")]
        self.send_span(outcome, is_normal);
        let (about, kind) = (self.about(), self.kind());
        let ended = if is_normal { "closed" } else { "broken" };
        macro_rules! event {
            ($level:ident) => {
                log_about!(
                    audit $level,
                    about,
                    sent = outcome.sent,
                    received = outcome.received,
                    seconds = telemetry::seconds(outcome.duration),
                    "{kind} {ended}: {}", report::chain(&outcome.end)
                )
            };
        }
        if is_normal {
            event!(info);
        } else {
            event!(warn);
        }
    }

    /// The same as a span of OpenTelemetry.
    #[cfg(feature = "otel")]
    fn send_span<E: Error>(&self, outcome: &Outcome<E>, is_normal: bool) {
        use common::otel::{Span, Trace, is_on, send};
        let trace = match self.way {
            Way::Stream(id) => id.map(Trace::Stream),
            Way::Session(id, _) => Some(Trace::Session(id)),
        };
        if let Some(trace) = trace.filter(|_| is_on()) {
            send(Span {
                trace,
                is_root: false,
                name: "forwarding",
                duration: outcome.duration,
                attributes: vec![
                    ("name", self.name.to_owned()),
                    ("target", self.target.to_string()),
                ],
                bytes: Some([("sent", outcome.sent), ("received", outcome.received)]),
                end: report::chain(&outcome.end),
                is_failure: !is_normal,
            });
        }
    }

    fn kind(&self) -> &'static str {
        match self.way {
            Way::Stream(_) => "stream",
            Way::Session(..) => "connection",
        }
    }

    /// What its lines are about.
    pub(crate) fn about(&self) -> About<'_> {
        let (stream, session, connection) = match &self.way {
            Way::Stream(id) => (id.as_ref(), None, None),
            Way::Session(session, connection) => (None, Some(session), Some(connection)),
        };
        About::stream(stream, &self.name)
            .target(self.target)
            .within(session, connection)
    }
}
