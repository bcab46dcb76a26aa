//! `devices`: whether they are online, and what device-proxy reports about itself.

use common::output;
use serde_json::Value;

use super::print::Printer;
use super::table::{Form, Rows, cell, time};
use super::{Fleet, FleetError};
use crate::cli::DevicesArgs;
use crate::hub_api::select;

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
        let mut query = self.api.query(&text);
        while let Some(page) = query
            .next_page()
            .await
            .map_err(self.failed(format!("list the devices with `{text}`")))?
        {
            rows.page(&page, out).await?;
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
        targets(reported("targets")),
        streams,
        time(text("lastActivityTime")),
    ]
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
        let row = json!({ "deviceId": "d", "status": "disabled", "deviceStreams": 1 });
        assert_eq!(cells(&row), ["d", "disabled", "", "", "never"]);
    }
}
