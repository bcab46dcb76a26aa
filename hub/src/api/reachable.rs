//! `GET /access/devices` (`docs/protocol.md`, "Operators by name"): the devices to which the caller may
//! open streams now, and their targets. People, and whom else the access file governs, may run no
//! query, which would show them devices that are not theirs.

use http::HeaderMap;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{gate, queries};
use crate::access::{Decision, Rules, Wanted, Who};
use crate::answer::{Answer, List};
use crate::auth::{AuthError, Caller};
use crate::documents;
use crate::refusal::Refusal;
use crate::state::HubState;

/// The list. It has no other form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call;

/// What is read of each device: what the list shows of it, and what the rules look at.
const QUERY: &str = "SELECT deviceId, status, connectionState, lastActivityTime, tags, \
                     properties.reported.deviceStreams AS deviceStreams FROM devices";

/// Answers with one page, in which devices are left out that the caller may not reach: it may be
/// empty, and not the last one. May be dropped.
///
/// # Errors
/// [`Refusal`] of the registry's family.
pub async fn handle(
    state: &HubState,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Answer, Refusal> {
    let Caller::Service(principal) = caller else {
        // The router lets only services come here.
        return Err(AuthError::Permission.into_refusal());
    };
    let body = json!({ "query": QUERY }).to_string();
    let page = queries::handle(state, &*state.registry, headers, body.as_bytes()).await?;
    let (head, body) = page.into_parts();
    let Ok(body) = body.collect().await;
    let rows: Vec<Value> = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let rules = state.access.now();
    let who = gate::governed(rules.as_deref(), principal);
    let mut list = List::default();
    for mut row in rows {
        let reach = match (who, &rules) {
            (None, _) => Reach::of_anybody(&row),
            (Some(who), Some(rules)) => Reach::by(rules, who, &row),
            // Without a file, somebody that has logged in once may do nothing.
            (Some(_), None) => continue,
        };
        if reach.is_nothing() {
            continue;
        }
        if let Some(fields) = row.as_object_mut() {
            // They are the rules' matter.
            fields.remove("tags");
            fields.insert("access".to_owned(), reach.to_document());
        }
        list.push(&row);
    }
    let mut answer = list.into_answer();
    answer.headers_mut().extend(head.headers);
    Ok(answer)
}

/// What of a device can be reached.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reach {
    targets: Vec<String>,
    /// Once somebody has approved it.
    with_approval: Vec<String>,
}

/// What a device says of its targets.
fn reported(row: &Value) -> Vec<String> {
    let targets = row.pointer("/deviceStreams/targets");
    let targets = targets.and_then(Value::as_array).into_iter().flatten();
    let texts = targets.filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

impl Reach {
    /// No rule is about the caller: all targets.
    fn of_anybody(row: &Value) -> Self {
        let targets = match reported(row) {
            none if none.is_empty() => vec!["*".to_owned()],
            targets => targets,
        };
        Self {
            targets,
            with_approval: Vec::new(),
        }
    }

    /// As the rules have it at this moment. Of a device that does not say which targets it has, these
    /// are as the rules name them.
    fn by(rules: &Rules, who: Who<'_>, row: &Value) -> Self {
        let mut reach = Self::default();
        let id = row.get("deviceId").and_then(Value::as_str);
        let Some(Ok(identity)) = id.map(|id| documents::id(id, None)) else {
            return reach;
        };
        let wanted = Wanted {
            identity: &identity,
            target: None,
            device: row,
            now: OffsetDateTime::now_utc(),
        };
        let targets = match reported(row) {
            none if none.is_empty() => rules.targets(who, &wanted),
            targets => targets,
        };
        for target in targets {
            let wanted = Wanted {
                target: Some(&target),
                ..wanted
            };
            match rules.decide(who, &wanted) {
                Decision::Allowed => reach.targets.push(target),
                Decision::WithApproval(_) => reach.with_approval.push(target),
                Decision::Denied(_) => {}
            }
        }
        reach
    }

    fn is_nothing(&self) -> bool {
        self.targets.is_empty() && self.with_approval.is_empty()
    }

    fn to_document(&self) -> Value {
        json!({ "targets": self.targets, "withApproval": self.with_approval })
    }
}
