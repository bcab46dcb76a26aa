//! One inner connection on the device: dial the session's target, and pipe. No other
//! target can be reached over it.

use std::sync::Arc;

use common::boxed::boxed;
use common::locks::lock;
use common::session::{Code, ConnectionEnd, ConnectionId, RefusedCode, run_connection};
use common::tunnel::{End, LocalSocket, Outcome};
use common::{log_about, report};

use super::{Entry, Sessions};
use crate::admission::{Request, out_of_hours};
use crate::forwarding::{Forwarding, Opening, Way};
use crate::reports::Reported;
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
        desk.counts.connection_refused(code);
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
    let Some(_permit) = sessions.connections.try_acquire() else {
        return refuse(RefusedCode::Limit, "limits.connections");
    };
    let about_to_open = desk.forwardings.opening();
    // The rules are those of now, not of the time at which the session was opened.
    let policy = desk.policy();
    let opening = async {
        let caller = entry.caller();
        let wanted = Request {
            name: &entry.name,
            target: &entry.target,
            caller: caller.as_ref(),
        };
        let admitted = desk.admission.admit(&policy, &wanted).await;
        let admitted = admitted.map_err(|denied| (denied.code(), denied.outward()))?;
        let permits = |address| policy.addresses.permit(&entry.target, address);
        let reached = entry.target.reach(desk.dialer(), &permits, false).await;
        let reached = reached.map_err(|error| (error.code(), report::chain(&error)))?;
        Ok((admitted.pace(reached), admitted))
    };
    let opened = tokio::select! {
        opened = boxed(|| opening) => opened,
        () = live.given_up(id) => {
            let forwarding = forwarding(&entry, id);
            log_about!(debug, forwarding.about(), "the service gave it up");
            return live.release(id);
        }
    };
    match opened {
        // Held to the end of the connection, too.
        Ok((socket, _admitted)) => carry(&desk, &entry, id, socket, about_to_open).await,
        Err((code, text)) => refuse(code, &text),
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

async fn carry(
    desk: &Desk,
    entry: &Entry,
    id: ConnectionId,
    local: Box<dyn LocalSocket>,
    about_to_open: Opening,
) {
    let live = &entry.live;
    live.opened(id);
    let opened = desk.forwardings.open(&forwarding(entry, id));
    drop(about_to_open);
    let reported = Reported {
        target: entry.name.clone(),
        session: live.id().to_string(),
        stream: *lock(&entry.stream),
        connection: u64::from(id.0),
    };
    desk.reports.opened(&reported);
    let report_end = |ended_by: &str, reason: String| {
        let traffic = opened.traffic();
        let bytes = (traffic.received(), traffic.sent());
        let duration = opened.duration();
        desk.reports
            .ended(&reported, bytes, duration, ended_by, reason);
    };
    let ended = async {
        tokio::select! {
            () = opened.closed() => End::ByOperator,
            () = out_of_hours(desk.watch(), &entry.name, &entry.target) => End::OutOfHours,
        }
    };
    tokio::select! {
        outcome = run_connection(live, id, local, opened.traffic()) => {
            let is_caused = matches!(
                outcome.end,
                ConnectionEnd::SessionOver(Code::Stopping | Code::Withdrawn)
            );
            report_end(ended_by(&outcome.end), report::chain(&outcome.end).to_string());
            opened.log_ended(&outcome, outcome.end.is_normal(), is_caused);
        }
        // Dropping the other has reset both sides.
        end = ended => {
            let outcome = Outcome {
                sent: opened.traffic().sent(),
                received: opened.traffic().received(),
                duration: opened.duration(),
                end,
            };
            report_end(decided_by(&outcome.end), report::chain(&outcome.end).to_string());
            opened.log_ended(&outcome, false, true);
        }
    }
}

/// Who has decided here that a connection ends, in one word.
fn decided_by(end: &End) -> &'static str {
    match end {
        End::ByOperator => "operator",
        // Its rules.
        _ => "device",
    }
}

/// Which end has ended a connection, in one word.
fn ended_by(end: &ConnectionEnd) -> &'static str {
    match end {
        ConnectionEnd::Finished => "both",
        ConnectionEnd::LocalFailed(_) | ConnectionEnd::Refused { .. } => "device",
        ConnectionEnd::PeerReset => "service",
        // Only a device does so: the target is not to be reached any more.
        ConnectionEnd::SessionOver(Code::Withdrawn) => "device",
        ConnectionEnd::SessionOver(_) => "session",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rules_of_the_device_end_is_the_device_s() {
        for (end, who) in [
            (End::OutOfHours, "device"),
            (End::Withdrawn, "device"),
            (End::ByOperator, "operator"),
        ] {
            assert_eq!(decided_by(&end), who, "{end}");
        }
        let over = |code| ended_by(&ConnectionEnd::SessionOver(code));
        assert_eq!(over(Code::Withdrawn), "device");
        assert_eq!(over(Code::Expired), "session");
    }
}
