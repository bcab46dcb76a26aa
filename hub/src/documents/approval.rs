//! Requests for access as JSON documents: over REST, for the webhook and in lists.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::registry::{ApprovalRequest, ApprovalState, ApprovalVerdict};

/// The whole document, as it is at `now`, Unix seconds.
pub fn write(request: &ApprovalRequest, now: u64) -> Value {
    let ApprovalRequest { id, ask, asked, .. } = request;
    let mut document = json!({
        "id": id,
        "state": request.word(now),
        "caller": ask.caller,
        "deviceId": ask.identity.device.as_str(),
        "target": ask.target.as_str(),
        "asked": time(*asked),
        "approvers": ask.by,
        "seconds": ask.lasts,
    });
    let Some(fields) = document.as_object_mut() else {
        return document;
    };
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    if let Some(module) = &ask.identity.module {
        set("moduleId", module.as_str().into());
    }
    if let Some(reason) = &ask.reason {
        set("reason", reason.as_str().into());
    }
    match &request.state {
        ApprovalState::Waiting => {
            set("waitsUntil", time(ask.waits_until).into());
        }
        ApprovalState::Decided { by, at, verdict } => {
            set("decidedBy", by.name.as_str().into());
            set("decided", time(*at).into());
            match verdict {
                ApprovalVerdict::Granted(until) => {
                    set("until", time(*until).into());
                }
                ApprovalVerdict::Refused(Some(because)) => {
                    set("because", because.as_str().into());
                }
                ApprovalVerdict::Refused(None) => {}
            }
        }
    }
    document
}

/// A moment as UTC, from Unix seconds.
pub fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(seconds);
    let text = moment.ok().and_then(|moment| moment.format(&Rfc3339).ok());
    text.unwrap_or_else(|| seconds.to_string())
}
