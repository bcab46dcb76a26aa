//! One inner connection on the device: dial the session's target, and pipe. No other
//! target can be reached over it.

use std::sync::Arc;

use common::boxed::boxed;
use common::session::{Code, ConnectionEnd, ConnectionId, RefusedCode, run_connection};
use common::tunnel::{End, LocalSocket, Outcome};
use common::{log_about, report};

use super::{Entry, Sessions};
use crate::forwarding::{Forwarding, Way};
use crate::requests::Desk;

/// Serves one connection to its end.
pub(super) async fn serve(
    desk: Arc<Desk>,
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
        let why = format!("{}: {code}{}", entry.name, with_colon(text));
        desk.forwardings.failed(&why);
        live.refuse(id, code, text.to_owned());
    };
    if !desk.policy().accept {
        return refuse(RefusedCode::Withdrawn, "it accepts no new stream now");
    }
    if !live.has_memory() {
        return refuse(RefusedCode::Limit, "no memory is left for it (--memory)");
    }
    let Ok(_share) = entry.connections.try_acquire() else {
        return refuse(RefusedCode::Limit, "the rest is for other sessions");
    };
    let Ok(_permit) = sessions.connections.try_acquire() else {
        return refuse(RefusedCode::Limit, "");
    };
    let reached = tokio::select! {
        reached = boxed(|| entry.target.reach(desk.dialer(), false)) => reached,
        () = live.given_up(id) => {
            let forwarding = forwarding(&entry, id);
            log_about!(debug, forwarding.about(), "the service gave it up");
            return live.release(id);
        }
    };
    match reached {
        Ok(socket) => carry(&desk, &entry, id, socket).await,
        Err(error) => refuse(error.code(), &report::chain(&error)),
    }
}

fn with_colon(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
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

async fn carry(desk: &Desk, entry: &Entry, id: ConnectionId, local: Box<dyn LocalSocket>) {
    let live = &entry.live;
    live.opened(id);
    let opened = desk.forwardings.open(&forwarding(entry, id));
    tokio::select! {
        outcome = run_connection(live, id, local, opened.traffic()) => {
            let is_caused = matches!(
                outcome.end,
                ConnectionEnd::SessionOver(Code::Stopping | Code::Withdrawn)
            );
            opened.log_ended(&outcome, outcome.end.is_normal(), is_caused);
        }
        // Dropping the other has reset both sides.
        () = opened.closed() => {
            let outcome = Outcome {
                sent: opened.traffic().sent(),
                received: opened.traffic().received(),
                duration: opened.duration(),
                end: End::ByOperator,
            };
            opened.log_ended(&outcome, false, true);
        }
    }
}
