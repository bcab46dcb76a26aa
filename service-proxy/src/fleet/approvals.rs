//! `request` and `approvals`: access that somebody has to approve.

use std::time::Duration;

use common::identity::{DeviceIdentity, StreamName};
use common::output;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::print::Printer;
use super::table::{Form, Rows, time};
use super::{Fleet, FleetError};
use crate::cli::{ApprovalsCommand, RequestArgs};

const HEAD: [&str; 7] = ["ID", "STATE", "WHO", "DEVICE", "TARGET", "FOR", "REASON"];
/// How often it is looked for a decision.
const LOOK: Duration = Duration::from_secs(2);

impl Fleet {
    /// Asks for access, and waits for the decision.
    pub(super) async fn request(
        &self,
        identity: &DeviceIdentity,
        target: &StreamName,
        args: RequestArgs,
        wait: Duration,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let doing = || format!("ask for {target} of {identity}");
        let seconds = args.lasts.map(|lasts| lasts.as_secs());
        let asked = self
            .api
            .ask_approval(identity, target, seconds, args.reason.as_deref())
            .await
            .map_err(self.failed(doing()))?;
        let mut request = asked;
        if text(&request, "state") == "unneeded" {
            out.line(&format!("{target} of {identity} needs no approval"))
                .await?;
            return Ok(());
        }
        let id = text(&request, "id").to_owned();
        if text(&request, "state") == "waiting" {
            output::stderr().line(&format!(
                "request {id} waits for somebody to approve {target} of {identity}"
            ));
        }
        let started = Instant::now();
        loop {
            match text(&request, "state") {
                "granted" => {
                    let until = text(&request, "until");
                    let by = text(&request, "decidedBy");
                    let line = format!("{target} of {identity} is granted until {until}, by {by}");
                    out.line(&line).await?;
                    return Ok(());
                }
                "waiting" if args.no_wait => {
                    out.line(&id).await?;
                    return Ok(());
                }
                "waiting" if started.elapsed() >= wait => {
                    return Err(FleetError::NotApproved {
                        id,
                        state: "not decided yet; it waits on".to_owned(),
                    });
                }
                "waiting" => {}
                state => {
                    let mut state = state.to_owned();
                    for (word, name) in [("by", "decidedBy"), ("because", "because")] {
                        if let Some(value) = request.get(name).and_then(Value::as_str) {
                            state += &format!(" {word} {value}");
                        }
                    }
                    return Err(FleetError::NotApproved { id, state });
                }
            }
            sleep(LOOK).await;
            let again = self.api.approval(&id).await;
            request = again.map_err(self.failed(doing()))?;
        }
    }

    /// Lists requests, or decides one.
    pub(super) async fn approvals(
        &self,
        command: ApprovalsCommand,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let (id, is_granted, seconds, because) = match command {
            ApprovalsCommand::List { form } => {
                let requests = self.api.approvals().await;
                let requests = requests.map_err(self.failed("list the requests for access"))?;
                let mut rows = Rows::new(Form::of(form, Form::Table), &HEAD, cells);
                rows.page(&requests, out).await?;
                if rows.end(out).await? == 0 {
                    output::stderr().line("no requests that you have made or may decide");
                }
                return Ok(());
            }
            ApprovalsCommand::Grant { id, lasts } => {
                (id, true, lasts.map(|lasts| lasts.as_secs()), None)
            }
            ApprovalsCommand::Refuse { id, because } => (id, false, None, because),
        };
        let decided = self
            .api
            .decide_approval(&id, is_granted, seconds, because.as_deref())
            .await
            .map_err(self.failed(format!("decide request {id}")))?;
        let mut line = format!(
            "{} {} of {} to {}",
            text(&decided, "state"),
            text(&decided, "target"),
            text(&decided, "deviceId"),
            text(&decided, "caller"),
        );
        if let Some(until) = decided.get("until").and_then(Value::as_str) {
            line += &format!(" until {until}");
        }
        out.line(&line).await
    }
}

fn text<'a>(document: &'a Value, name: &str) -> &'a str {
    document
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn cells(row: &Value) -> Vec<String> {
    let lasts = match row.get("until").and_then(Value::as_str) {
        Some(until) => format!("until {}", time(until)),
        None => format!(
            "{} s",
            row.get("seconds").and_then(Value::as_u64).unwrap_or(0)
        ),
    };
    vec![
        text(row, "id").to_owned(),
        text(row, "state").to_owned(),
        text(row, "caller").to_owned(),
        text(row, "deviceId").to_owned(),
        text(row, "target").to_owned(),
        lasts,
        text(row, "reason").to_owned(),
    ]
}
