//! `monitor`: telemetry as the hub keeps it, one line per message.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::output;
use common::verdict::Verdict;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::print::Printer;
use super::{Fleet, FleetError};
use crate::cli::MonitorArgs;
use crate::hub_api::{CallError, Message};

/// How long the hub waits for messages in one request.
const WAIT: Duration = Duration::from_secs(30);
/// Time between requests that bring nothing at once.
const AGAIN: Duration = Duration::from_secs(2);

impl Fleet {
    /// Ends at the signal, or without waiting when there is nothing more. A hub that cannot be
    /// reached is waited for once it has answered.
    pub(super) async fn monitor(
        &self,
        args: MonitorArgs,
        stop: &CancellationToken,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let device = args.device.as_ref();
        let wait = if args.no_wait { Duration::ZERO } else { WAIT };
        let mut after: Option<String> = None;
        let mut has_answered = false;
        loop {
            let started = Instant::now();
            let reading = self.api.messages(device, after.as_deref(), wait);
            let page = tokio::select! {
                page = reading => page,
                () = stop.cancelled() => return Ok(()),
            };
            let page = match page {
                Ok(page) => page,
                Err(CallError::NotOffered(_)) => {
                    return Err(FleetError::NoTelemetry {
                        hub: self.hub().clone(),
                    });
                }
                Err(error) if has_answered && error.verdict() == Verdict::Retry => {
                    tracing::warn!(
                        "telemetry is interrupted: {}",
                        common::report::chain(&error)
                    );
                    tokio::select! {
                        () = sleep(AGAIN) => continue,
                        () = stop.cancelled() => return Ok(()),
                    }
                }
                Err(error) => return Err(self.failed("read telemetry")(error)),
            };
            has_answered = true;
            if page.lost > 0 {
                let count = page.lost;
                output::stderr().line(&format!("({count} messages are gone: newer ones came)"));
            }
            for message in &page.messages {
                if args.json {
                    out.json_line(message.document()).await?;
                } else {
                    out.line(&line(message)).await?;
                }
            }
            out.flush().await?;
            after = Some(page.next);
            if !page.messages.is_empty() {
                continue;
            }
            if args.no_wait {
                return Ok(());
            }
            // A hub that does not wait is asked no more often than this.
            tokio::select! {
                () = sleep_until(started + AGAIN) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}

/// Time, sender, content and properties.
fn line(message: &Message) -> String {
    let mut text = format!(
        "{} {}",
        message.text("enqueuedTime"),
        message.text("deviceId")
    );
    let module = message.text("moduleId");
    if !module.is_empty() {
        text.extend(["/", module]);
    }
    text.push(' ');
    text += &content(message);
    if let Some(properties) = message.properties() {
        text.extend([" ", &properties.to_string()]);
    }
    text
}

/// JSON, else text, else base64.
fn content(message: &Message) -> String {
    if let Some(body) = message.body() {
        return body.to_string();
    }
    let encoded = message.text("bodyBase64");
    match BASE64_STANDARD.decode(encoded).map(String::from_utf8) {
        Ok(Ok(text)) => Value::String(text).to_string(),
        _ => encoded.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let shown = |document: Value| line(&Message::from(document));
        assert_eq!(
            shown(json!({
                "enqueuedTime": "2026-11-29T20:30:00Z", "deviceId": "d", "moduleId": null,
                "properties": {}, "body": { "t": 21.5 },
            })),
            r#"2026-11-29T20:30:00Z d {"t":21.5}"#
        );
        assert_eq!(
            shown(json!({
                "enqueuedTime": "now", "deviceId": "d", "moduleId": "m",
                "properties": { "a": "b" }, "bodyBase64": "aGkKeW91",
            })),
            r#"now d/m "hi\nyou" {"a":"b"}"#
        );
        let binary = json!({ "deviceId": "d", "bodyBase64": "/w==" });
        assert_eq!(shown(binary), " d /w==");
    }
}
