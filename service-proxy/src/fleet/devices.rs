//! `devices`: whether they are online, and what device-proxy reports about itself. Somebody whom the
//! hub's access file governs gets those to which they may open streams now, with the targets.

use common::output;
use serde_json::Value;

use super::print::Printer;
use super::table::{Form, Rows, cell, time};
use super::{Fleet, FleetError};
use crate::cli::DevicesArgs;
use crate::hub_api::{CallError, InitiateError, select};

const COLUMNS: &str = "deviceId, status, connectionState, lastActivityTime, \
                       properties.reported.deviceStreams AS deviceStreams";
const HEAD: [&str; 5] = ["ID", "ONLINE", "TARGETS", "STREAMS", "LAST SEEN"];

impl Fleet {
    pub(super) async fn devices(
        &self,
        args: DevicesArgs,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let text = select::devices(COLUMNS, args.condition.as_deref());
        let mut rows = Rows::new(Form::of(args.form, Form::Table), &HEAD, cells);
        // A condition can only be asked in a query.
        let is_open = args.condition.is_none();
        let is_by_name = is_open && self.api.is_issued();
        let mut query = match is_by_name {
            true => self.api.reachable(),
            false => self.api.query(&text),
        };
        let first = match query.next_page().await {
            // An older hub, or a token that may read devices and open no streams.
            Err(CallError::NotOffered(_) | CallError::Hub(InitiateError::Revoked))
                if is_by_name =>
            {
                query = self.api.query(&text);
                query.next_page().await
            }
            // The access file names the policy.
            Err(CallError::Hub(InitiateError::AccessDenied(_))) if is_open => {
                query = self.api.reachable();
                query.next_page().await
            }
            first => first,
        };
        let failed = || self.failed(format!("list the devices with `{text}`"));
        let mut page = first.map_err(failed())?;
        while let Some(found) = page {
            rows.page(&found, out).await?;
            page = query.next_page().await.map_err(failed())?;
        }
        if rows.end(out).await? == 0 {
            output::stderr().line("no devices");
        }
        Ok(())
    }
}

fn cells(row: &Value) -> Vec<String> {
    let text = |name| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let reported = |name| row.pointer("/deviceStreams").and_then(|all| all.get(name));
    let online = match (text("status"), text("connectionState")) {
        ("disabled", _) => "disabled",
        (_, "Connected") => "yes",
        _ => "no",
    };
    // A report outlives its session: streams of a device that is not online are over.
    let streams = match online {
        "yes" => cell(reported("activeStreams")),
        _ => String::new(),
    };
    vec![
        text("deviceId").to_owned(),
        online.to_owned(),
        match row.get("access") {
            Some(access) => allowed(access),
            None => targets(reported("targets")),
        },
        streams,
        time(text("lastActivityTime")),
    ]
}

/// What the hub says of the targets that we may reach.
fn allowed(access: &Value) -> String {
    let names = |name| targets(access.get(name));
    match (names("targets"), names("withApproval")) {
        (targets, none) if none.is_empty() => targets,
        (none, waiting) if none.is_empty() => format!("{waiting} (with approval)"),
        (targets, waiting) => format!("{targets}; {waiting} (with approval)"),
    }
}

/// A device may report anything under this name.
fn targets(reported: Option<&Value>) -> String {
    let Some(Value::Array(names)) = reported else {
        return String::new();
    };
    let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_say_what_devices_report() {
        let row = json!({
            "deviceId": "d", "status": "enabled", "connectionState": "Connected",
            "lastActivityTime": "2026-11-29T20:30:00.5Z",
            "deviceStreams": { "targets": ["ssh", "*"], "activeStreams": 2 },
        });
        assert_eq!(
            cells(&row),
            ["d", "yes", "ssh,*", "2", "2026-11-29T20:30:00Z"]
        );
        let row = json!({
            "deviceId": "d", "status": "enabled", "connectionState": "Disconnected",
            "lastActivityTime": "0001-01-01T00:00:00Z",
            "deviceStreams": { "targets": "x", "activeStreams": 2 },
        });
        assert_eq!(cells(&row), ["d", "no", "", "", "never"]);
        for (access, expected) in [
            (
                json!({ "targets": ["ssh", "web"], "withApproval": [] }),
                "ssh,web",
            ),
            (json!({ "withApproval": ["rdp"] }), "rdp (with approval)"),
            (
                json!({ "targets": ["ssh"], "withApproval": ["a", "b"] }),
                "ssh; a,b (with approval)",
            ),
        ] {
            let row = json!({
                "deviceId": "d", "deviceStreams": { "targets": ["other"] }, "access": access,
            });
            assert_eq!(cells(&row)[2], expected);
        }
        let row = json!({ "deviceId": "d", "status": "disabled", "deviceStreams": 1 });
        assert_eq!(cells(&row), ["d", "disabled", "", "", "never"]);
    }
}
