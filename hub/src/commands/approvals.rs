//! `approvals …`: access that somebody has to approve, for who has the hub's folder.

use std::collections::HashSet;
use std::time::Duration;

use common::clock::unix_now;
use common::table::Columns;
use serde_json::Value;

use super::{CommandError, Session};
use crate::cli::{ApprovalsCommand, Form};
use crate::documents::approval::{time, write};
use crate::registry::{ApprovalOutcome, ApprovalRequest, ApprovalVerdict, Decider};

/// How often `watch` looks.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(
    session: &mut Session<'_>,
    command: ApprovalsCommand,
) -> Result<(), CommandError> {
    match command {
        ApprovalsCommand::List { all, form } => list(session, all, form).await,
        ApprovalsCommand::Grant { id, lasts } => {
            let request = find(session, &id).await?;
            let (lasts, most) = (lasts.map(|lasts| lasts.as_secs()), request.ask.most);
            let lasts = lasts.map_or(request.ask.lasts, |lasts| lasts.min(most));
            let until = unix_now().saturating_add(lasts);
            decide(session, &id, ApprovalVerdict::Granted(until)).await?;
            session.say(&format!(
                "granted {} of {} to {} until {}",
                request.ask.target,
                request.ask.identity,
                request.ask.caller,
                time(until),
            ));
            Ok(())
        }
        ApprovalsCommand::Refuse { id, because } => {
            let request = find(session, &id).await?;
            decide(session, &id, ApprovalVerdict::Refused(because)).await?;
            session.say(&format!(
                "refused {} of {} to {}",
                request.ask.target, request.ask.identity, request.ask.caller
            ));
            Ok(())
        }
        ApprovalsCommand::Watch => watch(session).await,
    }
}

async fn find(session: &Session<'_>, id: &str) -> Result<ApprovalRequest, CommandError> {
    let found = session.registry.approval(id).await?;
    found.ok_or_else(|| CommandError::NoApproval(id.to_owned()))
}

async fn decide(
    session: &Session<'_>,
    id: &str,
    verdict: ApprovalVerdict,
) -> Result<(), CommandError> {
    let (by, now) = (
        Decider {
            name: format!("local:{}", user()),
            through: None,
        },
        unix_now(),
    );
    let decided = session.registry.decide_approval(id, verdict, by, now);
    match decided.await? {
        ApprovalOutcome::Decided(_) => Ok(()),
        ApprovalOutcome::Closed(request) => Err(CommandError::ApprovalClosed {
            id: id.to_owned(),
            state: request.word(now),
        }),
        ApprovalOutcome::Unknown => Err(CommandError::NoApproval(id.to_owned())),
    }
}

/// Who decides, for the log: as the system names them. Whoever has the folder could write anything.
fn user() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME", "USERNAME"];
    let mut found = named.iter().filter_map(|name| std::env::var(name).ok());
    let user = found.find(|user| !user.is_empty());
    user.map_or_else(
        || "somebody".to_owned(),
        |user| user.chars().take(64).collect(),
    )
}

async fn list(session: &mut Session<'_>, all: bool, form: Form) -> Result<(), CommandError> {
    let now = unix_now();
    let requests = session.registry.approvals(now, all).await?;
    if form.json {
        let list: Value = requests.iter().map(|request| write(request, now)).collect();
        return session.json(&list);
    }
    let rows: Vec<_> = requests
        .iter()
        .map(|request| {
            let ask = &request.ask;
            let until = request.granted_until(now);
            [
                request.id.clone(),
                request.word(now).to_owned(),
                ask.caller.clone(),
                ask.identity.to_string(),
                ask.target.to_string(),
                until.map_or_else(|| span(ask.lasts), |until| format!("until {}", time(until))),
                ask.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let header = ["ID", "STATE", "WHO", "DEVICE", "TARGET", "FOR", "REASON"];
    for line in Columns::new(&header).page(&rows) {
        session.line(&line)?;
    }
    Ok(())
}

/// Prints requests as they come, until it is interrupted.
async fn watch(session: &mut Session<'_>) -> Result<(), CommandError> {
    let mut known = HashSet::new();
    loop {
        let now = unix_now();
        let requests = session.registry.approvals(now, false).await?;
        for request in requests.iter().rev().filter(|request| request.waits(now)) {
            if known.insert(request.id.clone()) {
                let ask = &request.ask;
                let reason = ask.reason.as_deref();
                let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
                session.line(&format!(
                    "{}  {} wants {} of {} for {}{reason}",
                    request.id,
                    ask.caller,
                    ask.target,
                    ask.identity,
                    span(ask.lasts),
                ))?;
                session.out.flush()?;
            }
        }
        known.retain(|id| requests.iter().any(|request| request.id == *id));
        tokio::time::sleep(LOOK).await;
    }
}

fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
