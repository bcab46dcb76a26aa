//! What is known of this device-proxy: for the reported properties, and for the methods.

use common::clock::unix_now;
use common::telemetry;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use super::reported::{POLICY, Section, TARGETS, merge};
use crate::forwarding::{LastError, Open, Totals};
use crate::policy::{Policy, Refused};

/// Bytes of the targets' names in the reported properties, of which IoT Hub keeps 32 KiB; the rest
/// is left out.
const NAMES: usize = 16 << 10;

/// What stays as it is in a run of the program.
#[derive(Debug)]
pub(super) struct Run {
    started: Instant,
    start_time: String,
}

/// What became of the desired properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Confirmation {
    /// Their version.
    pub(super) version: u64,
    /// Whether they hold.
    pub(super) verdict: Result<(), Refused>,
}

impl Run {
    /// It begins now.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            start_time: time(unix_now()),
        }
    }

    /// The section of the reported properties. A member that is to be absent is `null`.
    pub(super) fn section(
        &self,
        policy: &Policy,
        totals: &Totals,
        confirmation: Option<&Confirmation>,
    ) -> Section {
        let mut room = NAMES;
        let targets = policy.targets.names().take_while(|name| {
            let taken = room.checked_sub(name.len() + 3);
            room = taken.unwrap_or_default();
            taken.is_some()
        });
        let error = totals.last_error.as_ref();
        let mut section = Section::new();
        let mut set = |name: &str, value: Value| section.insert(name.to_owned(), value);
        set("version", json!(env!("CARGO_PKG_VERSION")));
        set("platform", json!(platform()));
        set("startTime", json!(self.start_time));
        set(TARGETS, json!(targets.collect::<Vec<_>>()));
        set("activeStreams", json!(totals.active));
        set("streams", json!(totals.opened));
        set("bytesIn", json!(totals.bytes_in));
        set("bytesOut", json!(totals.bytes_out));
        set(
            "lastError",
            error.map_or(
                Value::Null,
                |LastError { time: at, message }| json!({ "time": time(*at), "message": message }),
            ),
        );
        if let Some(Confirmation { version, verdict }) = confirmation {
            let (status, reason) = match verdict {
                Ok(()) => ("applied", Value::Null),
                Err(refused) => ("refused", json!(refused.to_string())),
            };
            let policy = json!({ "version": version, "status": status, "reason": reason });
            set(POLICY, policy);
        }
        section
    }

    /// The same, and what is not reported: for the method `status`.
    pub(super) fn document(
        &self,
        policy: &Policy,
        totals: &Totals,
        confirmation: Option<&Confirmation>,
        sessions: usize,
    ) -> Value {
        let mut document = self.section(policy, totals, confirmation);
        let mut set = |name: &str, value: Value| document.insert(name.to_owned(), value);
        set("uptimeSeconds", json!(self.started.elapsed().as_secs()));
        set("sessions", json!(sessions));
        set("accept", json!(policy.accept));
        set("maxStreams", json!(policy.max_streams));
        let level = telemetry::level().map(|level| level.to_string().to_lowercase());
        set("logLevel", json!(level));
        // Without what is absent.
        let mut present = Section::new();
        merge(&mut present, document);
        Value::Object(present)
    }
}

/// What an operator sees of a stream, or of a connection in a session.
pub(super) fn stream(open: &Open) -> Value {
    json!({
        "stream": open.id(),
        "name": open.name,
        "target": open.target.to_string(),
        "seconds": open.since.elapsed().as_secs(),
        "bytesIn": open.traffic.received(),
        "bytesOut": open.traffic.sent(),
    })
}

fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// A time in seconds since 1970, as in RFC 3339.
fn time(unix: u64) -> String {
    let time = i64::try_from(unix).ok().and_then(|unix| {
        let time = OffsetDateTime::from_unix_timestamp(unix).ok()?;
        time.format(&Rfc3339).ok()
    });
    time.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use common::session_mode::SessionMode;

    use super::*;
    use crate::policy::{Addresses, Rules, Wanted};
    use crate::target::Targets;

    fn policy(options: &[String]) -> Policy {
        Policy {
            targets: Targets::parse(options, true).unwrap(),
            session: SessionMode::Auto,
            addresses: Addresses::default(),
            rules: Rules::default(),
            configured: Targets::default(),
            max_streams: 7,
            accept: true,
        }
    }

    #[test]
    fn the_section_has_what_an_operator_needs() {
        let run = Run::new();
        let policy = policy(&["ssh=10.0.0.7:22".into(), "localhost:80".into()]);
        let mut totals = Totals {
            active: 2,
            opened: 17,
            bytes_in: 123,
            bytes_out: 456,
            last_error: None,
        };
        let section = Value::Object(run.section(&policy, &totals, None));
        assert_eq!(
            section["targets"],
            json!(["*", "echo", "ssh"]),
            "no addresses"
        );
        for (name, value) in [
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("activeStreams", json!(2)),
            ("streams", json!(17)),
            ("bytesIn", json!(123)),
            ("bytesOut", json!(456)),
            ("lastError", json!(null)),
        ] {
            assert_eq!(section[name], value, "{name}");
        }
        assert!(section.get(POLICY).is_none());
        let start = section["startTime"].as_str().unwrap();
        assert!(start.len() == 20 && start.ends_with('Z'), "{start}");

        totals.last_error = Some(LastError {
            time: 1_700_000_000,
            message: "x".into(),
        });
        let refused = Wanted::parse(&json!([])).unwrap_err();
        let mut confirmation = Confirmation {
            version: 4,
            verdict: Err(refused),
        };
        let section = Value::Object(run.section(&policy, &totals, Some(&confirmation)));
        assert_eq!(
            section["lastError"],
            json!({ "time": "2023-11-14T22:13:20Z", "message": "x" })
        );
        assert_eq!(section[POLICY]["status"], "refused");
        assert_eq!(section[POLICY]["reason"], "deviceStreams is not an object");
        confirmation.verdict = Ok(());
        let document = run.document(&policy, &totals, Some(&confirmation), 3);
        assert_eq!(document[POLICY]["status"], "applied");
        assert_eq!(document["sessions"], 3);
        assert_eq!(document["maxStreams"], 7);
        assert_eq!(document["uptimeSeconds"], 0);
    }

    #[test]
    fn many_targets_have_room_in_a_twin() {
        let options: Vec<_> = (0..1000)
            .map(|n| format!("{}{n}=localhost:22", "n".repeat(120)))
            .collect();
        let section = Run::new().section(&policy(&options), &Totals::default(), None);
        let length = Value::Object(section.clone()).to_string().len();
        assert!((NAMES - 200..NAMES + 500).contains(&length), "{length}");
    }
}
