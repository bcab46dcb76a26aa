//! One inner connection on the device: dial the session's target, and pipe. No other
//! target can be reached over it.

use std::io;
use std::sync::Arc;

use common::boxed::boxed;
use common::net::{DialError, Dialer};
use common::session::{ConnectionId, RefusedCode, run_connection};
use common::tunnel::{LocalSocket, Traffic};
use common::{log_about, report};

use super::{Entry, Sessions};
use crate::echo;
use crate::forwarding::{Forwarding, Way};
use crate::target::Target;

/// Serves one connection to its end.
pub(super) async fn serve(
    dialer: Dialer,
    sessions: Arc<Sessions>,
    entry: Arc<Entry>,
    id: ConnectionId,
) {
    let live = &entry.live;
    let refuse = |code: RefusedCode, text: &str| {
        let forwarding = forwarding(&entry, id);
        log_about!(
            warn,
            forwarding.about(),
            "connection refused: {code}{}",
            with_colon(text)
        );
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
    match &entry.target {
        Target::Echo => carry(&entry, id, Box::new(echo::socket(false))).await,
        Target::Tcp { host, port } => {
            let dialled = tokio::select! {
                dialled = boxed(|| Target::dial(&dialer, host, *port)) => dialled,
                () = live.given_up(id) => {
                    let forwarding = forwarding(&entry, id);
                    log_about!(debug, forwarding.about(), "the service gave it up");
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

/// The connection, as the log names it.
fn forwarding(entry: &Entry, id: ConnectionId) -> Forwarding<'_> {
    Forwarding {
        way: Way::Session(entry.live.id(), id),
        name: &entry.name,
        target: &entry.target,
    }
}

async fn carry(entry: &Entry, id: ConnectionId, local: Box<dyn LocalSocket>) {
    let live = &entry.live;
    live.opened(id);
    let forwarding = forwarding(entry, id);
    forwarding.log_opened();
    let traffic = Traffic::default();
    let outcome = run_connection(live, id, local, &traffic).await;
    forwarding.log_ended(&outcome, outcome.end.is_normal());
}
