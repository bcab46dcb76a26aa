//! What a device-proxy reports to a hub of ours about the connections in sessions: a device-to-cloud
//! message with the property [`PROPERTY`], so that any other hub takes it as telemetry
//! (`docs/audit.md`). All of it is the device's word.

use serde_json::{Value, json};

use crate::identity::DeviceIdentity;

/// The property that tells such a message from telemetry.
pub const PROPERTY: &str = "device-streams-audit";
/// Its value.
pub const VERSION: &str = "1";
/// Reports in one message at most.
const MOST: usize = 256;
/// Bytes of a text at most.
const TEXT: usize = 256;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What has happened, in its order.
    pub connections: Vec<ConnectionReport>,
    /// Reports that were lost before these.
    pub lost: u64,
}

/// A connection that has begun or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionReport {
    /// What it leads to.
    pub target: String,
    /// The session.
    pub session: String,
    /// The stream that carried the session then.
    pub stream: Option<String>,
    /// The connection's number in the session.
    pub connection: u64,
    /// When it was by the device's clock, Unix milliseconds.
    pub time_ms: u64,
    /// Which of the two.
    pub phase: Phase,
}

/// Whether a connection has begun or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It has begun.
    Opened,
    /// It has ended.
    Ended {
        /// Bytes to the target.
        to_device: u64,
        /// Bytes from the target.
        to_service: u64,
        /// How long it was.
        duration_ms: u64,
        /// Which end has ended it, in one word.
        ended_by: String,
        /// How it ended.
        reason: String,
    },
}

/// The topic of such messages.
pub fn topic(identity: &DeviceIdentity) -> String {
    format!(
        "{}/messages/events/%24.ct=application%2Fjson&%24.ce=utf-8&{PROPERTY}={VERSION}",
        identity.resource_path()
    )
}

/// Writes a message's content.
pub fn write(report: &Report) -> Vec<u8> {
    let connections: Vec<_> = report.connections.iter().map(write_one).collect();
    json!({ "connections": connections, "lost": report.lost })
        .to_string()
        .into_bytes()
}

fn write_one(report: &ConnectionReport) -> Value {
    let mut value = json!({
        "event": "opened",
        "target": shortened(&report.target),
        "session": report.session,
        "stream": report.stream,
        "connection": report.connection,
        "timeMs": report.time_ms,
    });
    if let (
        Phase::Ended {
            to_device,
            to_service,
            duration_ms,
            ended_by,
            reason,
        },
        Some(fields),
    ) = (&report.phase, value.as_object_mut())
    {
        fields.insert("event".into(), "ended".into());
        fields.insert("bytesToDevice".into(), (*to_device).into());
        fields.insert("bytesToService".into(), (*to_service).into());
        fields.insert("durationMs".into(), (*duration_ms).into());
        fields.insert("endedBy".into(), shortened(ended_by).into());
        fields.insert("reason".into(), shortened(reason).into());
    }
    value
}

/// Reads a message's content; `None` if it is none.
pub fn read(content: &[u8]) -> Option<Report> {
    let value: Value = serde_json::from_slice(content).ok()?;
    let connections = value.get("connections")?.as_array()?;
    if connections.len() > MOST {
        return None;
    }
    Some(Report {
        connections: connections.iter().map(read_one).collect::<Option<_>>()?,
        lost: value.get("lost").map_or(Some(0), Value::as_u64)?,
    })
}

fn read_one(value: &Value) -> Option<ConnectionReport> {
    let text = |name: &str| {
        value
            .get(name)?
            .as_str()
            .map(|text| shortened(text).to_owned())
    };
    let number = |name: &str| value.get(name)?.as_u64();
    Some(ConnectionReport {
        target: text("target")?,
        session: text("session")?,
        stream: text("stream"),
        connection: number("connection")?,
        time_ms: number("timeMs")?,
        phase: match value.get("event")?.as_str()? {
            "opened" => Phase::Opened,
            "ended" => Phase::Ended {
                to_device: number("bytesToDevice")?,
                to_service: number("bytesToService")?,
                duration_ms: number("durationMs")?,
                ended_by: text("endedBy")?,
                reason: text("reason")?,
            },
            _ => return None,
        },
    })
}

/// As much of a text as a report has.
fn shortened(text: &str) -> &str {
    if text.len() <= TEXT {
        return text;
    }
    let end = (0..=TEXT).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reports_round_trip(
            texts in proptest::collection::vec(".{0,40}", 4),
            numbers: [u64; 6],
            is_end: bool,
        ) {
            let phase = match is_end {
                false => Phase::Opened,
                true => Phase::Ended {
                    to_device: numbers[0],
                    to_service: numbers[1],
                    duration_ms: numbers[2],
                    ended_by: texts[3].clone(),
                    reason: texts[0].clone(),
                },
            };
            let report = Report {
                connections: vec![ConnectionReport {
                    target: texts[0].clone(),
                    session: texts[1].clone(),
                    stream: Some(texts[2].clone()).filter(|stream| !stream.is_empty()),
                    connection: numbers[3],
                    time_ms: numbers[4],
                    phase,
                }],
                lost: numbers[5],
            };
            prop_assert_eq!(read(&write(&report)), Some(report));
        }

        #[test]
        fn any_content_can_be_read(content: Vec<u8>) {
            let _ = read(&content);
        }
    }

    #[test]
    fn what_is_too_much_is_refused_or_shortened() {
        let one = r#"{"event":"opened","target":"t","session":"s","connection":1,"timeMs":2}"#;
        let many = |count: usize| format!(r#"{{"connections":[{}]}}"#, vec![one; count].join(","));
        assert!(read(many(MOST).as_bytes()).is_some());
        assert!(read(many(MOST + 1).as_bytes()).is_none());
        let long = one.replace("\"t\"", &format!("\"{}\"", "é".repeat(TEXT)));
        let read = read(format!(r#"{{"connections":[{long}]}}"#).as_bytes()).unwrap();
        assert_eq!(read.connections[0].target.len(), TEXT);
    }
}
