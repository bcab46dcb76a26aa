//! One inner connection on the device: dial the session's target, and pipe. No other
//! target can be reached over it.

use std::io;
use std::sync::Arc;

use common::dial::DialError;
use common::report;
use common::session::{ConnectionEnd, ConnectionId, RefusedCode, pipe};
use common::telemetry::AUDIT;
use common::tunnel::{LocalSocket, Outcome, Traffic};

use super::{Entry, Sessions};
use crate::echo;
use crate::target::Target;

/// Serves one connection to its end.
pub(super) async fn serve(sessions: Arc<Sessions>, entry: Arc<Entry>, id: ConnectionId) {
    let (live, name, target) = (&entry.live, &entry.name, &entry.target);
    let session = live.id();
    let refuse = |code: RefusedCode, text: &str| {
        tracing::warn!(%session, connection = %id, name, %target, "connection refused: {code}{}", with_colon(text));
        live.refuse(id, code, text.to_owned());
    };
    if !live.has_memory() {
        return refuse(RefusedCode::Limit, "no memory is left for it (--memory)");
    }
    let Ok(_share) = entry.connections.try_acquire() else {
        return refuse(RefusedCode::Limit, "the rest is for other sessions");
    };
    let Ok(_permit) = sessions.connections.try_acquire() else {
        return refuse(RefusedCode::Limit, "");
    };
    match target {
        Target::Echo => carry(&entry, id, Box::new(echo::socket(false))).await,
        Target::Tcp { host, port } => {
            let dialled = tokio::select! {
                dialled = Target::dial(host, *port) => dialled,
                () = live.given_up(id) => {
                    tracing::debug!(%session, connection = %id, name, %target, "the service gave it up");
                    return live.release(id);
                }
            };
            match dialled {
                Ok(socket) => carry(&entry, id, Box::new(socket)).await,
                Err(error) => refuse(refused_code(&error), &report::chain(&error)),
            }
        }
    }
}

fn with_colon(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    }
}

fn refused_code(error: &DialError) -> RefusedCode {
    match error {
        DialError::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
            RefusedCode::TargetRefused
        }
        DialError::Timeout { .. } => RefusedCode::TimedOut,
        _ => RefusedCode::Unreachable,
    }
}

async fn carry(entry: &Entry, id: ConnectionId, local: Box<dyn LocalSocket>) {
    let (live, name, target) = (&entry.live, &entry.name, &entry.target);
    let session = live.id();
    live.opened(id);
    tracing::info!(name: AUDIT, %session, connection = %id, name, %target, "connection opened");
    let traffic = Traffic::default();
    let Outcome {
        sent,
        received,
        duration,
        end,
    } = pipe(live, id, local, &traffic).await;
    let seconds = format!("{:.1}", duration.as_secs_f32());
    let how = report::chain(&end);
    match end {
        ConnectionEnd::Finished => {
            tracing::info!(name: AUDIT, %session, connection = %id, name, %target, sent, received, seconds = %seconds, "connection closed: {how}");
        }
        _ => {
            tracing::warn!(name: AUDIT, %session, connection = %id, name, %target, sent, received, seconds = %seconds, "connection broken: {how}");
        }
    }
}
