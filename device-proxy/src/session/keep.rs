//! Keeps one session: opens the connections that the service asks for, and ends the session when it
//! was detached for too long or the program stops.

use std::sync::Arc;

use common::optional::or_never;
use common::session::{Code, Over};
use common::{limits, log_about, telemetry};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Entry, Sessions, connection};
use crate::counts::SessionEvent;
use crate::requests::Desk;

/// Runs as long as the session, and to the end of its connections.
pub(super) async fn keep(desk: Arc<Desk>, sessions: Arc<Sessions>, entry: Arc<Entry>) {
    let live = &entry.live;
    let began = Instant::now();
    let mut turns = live.turns();
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let mut served: u64 = 0;
    loop {
        let detached = live.detached_since();
        let expires = detached.map(|since| since + sessions.grace());
        tokio::select! {
            id = live.next_incoming() => match id {
                Some(id) => {
                    served += 1;
                    let desk = Arc::clone(&desk);
                    let (sessions, entry) = (Arc::clone(&sessions), Arc::clone(&entry));
                    let cut = cut.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = connection::serve(desk, sessions, entry, id) => {}
                            () = cut.cancelled() => {}
                        }
                    });
                }
                None => break,
            },
            // A session that attaches or detaches has another time to expire.
            _ = turns.changed() => {}
            () = or_never(expires.map(sleep_until)) => live.reset(Code::Expired, ""),
            () = or_never(detached.map(|since| desk.dial_ahead(since))) => {}
            () = desk.withdrawn(&entry.name, &entry.target) => live.reset(Code::Withdrawn, ""),
            () = desk.stop.cancelled() => live.reset(Code::Stopping, ""),
        }
    }
    connections.close();
    // Targets take what had come before an orderly end, as long as they take something.
    let mut held = live.held();
    loop {
        tokio::select! {
            () = connections.wait() => break,
            () = sleep(limits::LEG_DELIVER) => {
                if std::mem::replace(&mut held, live.held()) == live.held() {
                    break;
                }
            }
            () = desk.stop.cancelled() => break,
        }
    }
    cut.cancel();
    connections.wait().await;
    sessions.remove(live.id());
    desk.counts.session(SessionEvent::Ended);
    let about = entry.about();
    let seconds = telemetry::seconds(began.elapsed());
    match live.over() {
        Some(Over::Ended) => {
            log_about!(
                audit info,
                about,
                connections = served,
                seconds,
                "session closed"
            );
        }
        Some(Over::PeerBroke(code, text)) if text.is_empty() => {
            log_about!(
                audit info,
                about,
                connections = served,
                seconds,
                "session ended by the service: {code}"
            );
        }
        Some(Over::PeerBroke(code, text)) => {
            log_about!(
                audit warn,
                about,
                connections = served,
                seconds,
                "session ended by the service: {code} ({text})"
            );
        }
        Some(Over::Broken(code)) => {
            log_about!(
                audit warn,
                about,
                connections = served,
                seconds,
                "session ended: {code}"
            );
        }
        None => {}
    }
}
