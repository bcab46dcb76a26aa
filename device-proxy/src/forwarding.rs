//! What is carried to a target, a stream or a connection of a session, in the log: one line when it
//! opens, one when it ends.

use std::error::Error;

use common::identity::StreamId;
use common::report;
use common::session::{ConnectionId, SessionId};
use common::telemetry::{self, AUDIT};
use common::tunnel::Outcome;

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
    pub(crate) fn log_opened(&self) {
        let Self { way, name, target } = self;
        match way {
            Way::Stream(id) => {
                let stream = id.map(tracing::field::display);
                tracing::info!(name: AUDIT, %name, %target, stream, "stream opened");
            }
            Way::Session(session, connection) => {
                tracing::info!(name: AUDIT, %session, %connection, %name, %target, "connection opened");
            }
        }
    }

    /// It has ended: normally if both sides had sent all they wanted.
    pub(crate) fn log_ended<E: Error>(&self, outcome: &Outcome<E>, is_normal: bool) {
        let Self { way, name, target } = self;
        let (what, session, connection, stream) = match way {
            Way::Stream(id) => ("stream", None, None, *id),
            Way::Session(session, connection) => {
                ("connection", Some(session), Some(connection), None)
            }
        };
        let ended = if is_normal { "closed" } else { "broken" };
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    name: AUDIT,
                    session = session.map(display),
                    connection = connection.map(display),
                    %name,
                    %target,
                    stream = stream.map(display),
                    sent = outcome.sent,
                    received = outcome.received,
                    seconds = telemetry::seconds(outcome.duration),
                    "{what} {ended}: {}", report::chain(&outcome.end)
                )
            };
        }
        if is_normal {
            event!(info);
        } else {
            event!(warn);
        }
    }
}
