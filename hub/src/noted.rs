//! What was changed in the registry, by this process or by an operator's command beside it, is
//! reported: the registry keeps a note of each change, in the transaction that makes it, until the
//! audit log has it.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::events::{ApprovalStep, Change, Event, Events, Fault};
use crate::registry::{Note, RegistryError};
use crate::state::HubState;

/// How often the registry is asked.
const LOOK: Duration = Duration::from_millis(500);
/// Notes that are taken at once.
const BATCH: usize = 500;

/// Reports changes for ever.
///
/// Ends by being dropped; what was not reported then, the next hub reports.
pub async fn follow(state: HubState) {
    tokio::join!(report_changes(&state), look_after_audit(&state.events));
}

/// A disk that hangs is noticed also while nobody opens a stream.
async fn look_after_audit(events: &Events) {
    let Some(audit) = events.audit() else { return };
    let mut ticks = interval(LOOK);
    loop {
        ticks.tick().await;
        // It reports itself.
        audit.health();
    }
}

async fn report_changes(state: &HubState) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reported, mut has_failed) = (0, false);
    loop {
        ticks.tick().await;
        match look(state, &mut reported).await {
            Ok(()) => has_failed = false,
            Err(error) if !has_failed => {
                has_failed = true;
                state
                    .events
                    .emit(Event::Fault(Fault::ChangesNotFollowed(&error)));
            }
            Err(_) => {}
        }
    }
}

async fn look(state: &HubState, reported: &mut u64) -> Result<(), RegistryError> {
    loop {
        let notes = state.registry.notes(BATCH).await?;
        let Some(last) = notes.last().map(|note| note.id) else {
            return Ok(());
        };
        // A database that was put back to an earlier state counts from there.
        if last < *reported {
            *reported = 0;
        }
        for note in notes.iter().filter(|note| note.id > *reported) {
            report(&state.events, note);
        }
        *reported = last;
        // A hub that is killed before the log is on the disk reports them again.
        if let Some(audit) = state.events.audit()
            && !audit.is_stored().await
        {
            return Ok(());
        }
        state.registry.forget_notes(last).await?;
    }
}

fn report(events: &Events, note: &Note) {
    let what = serde_json::from_str(&note.what).unwrap_or(Value::Null);
    let given = |name: &str| what.get(name).and_then(Value::as_str);
    let number = |name: &str| what.get(name).and_then(Value::as_u64);
    let text = |name: &str| given(name).unwrap_or_default();
    let step = match note.operation.as_str() {
        "ApprovalRequested" => ApprovalStep::Asked {
            reason: given("reason"),
            seconds: number("seconds"),
        },
        "ApprovalGranted" => ApprovalStep::Granted {
            by: text("by"),
            until: number("until"),
        },
        "ApprovalRefused" => ApprovalStep::Refused {
            by: text("by"),
            because: given("because"),
        },
        _ => return events.emit(Event::Changed(change(note))),
    };
    match &note.device {
        Some(device) => events.emit(Event::Approval {
            id: text("id"),
            device,
            target: text("target"),
            policy: note.policy.as_deref().unwrap_or_default(),
            step,
        }),
        // Its row is damaged.
        None => events.emit(Event::Changed(change(note))),
    }
}

fn change(note: &Note) -> Change<'_> {
    Change {
        id: note.id,
        time: &note.time,
        operation: &note.operation,
        device: note.device.as_ref(),
        policy: note.policy.as_deref(),
        what: &note.what,
        actor: note.actor.as_deref(),
    }
}
