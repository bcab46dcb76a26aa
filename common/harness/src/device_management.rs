//! What a hub tells a device about itself: its twin, changes of it, and calls of direct methods. A
//! hub that was taken over can narrow what others reach on the device, and widen it only as far as
//! the device's own configuration lists.

use std::time::Duration;

use clap::Parser as _;
use common::mqtt::{Packet, PacketIo};
use common::outside::is_unprintable;
use common::wire::method::MethodResponse;
use common::wire::twin::{BootId, TwinRequest};
use device_proxy::cli::Cli;
use device_proxy::config::{self, Config};
use device_proxy::hub_session::Management;
use device_proxy::policy::{Control, Local, Policy, Wanted, combine, judge};
use device_proxy::streams::Streams;
use device_proxy::target::Target;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pieces::finished;

/// Most lines of one input.
const LINES: usize = 32;
/// A line that lets this many seconds pass: `wait SECONDS`.
const WAIT: &str = "wait ";

/// Takes lines of a topic, a blank and a payload, as messages of the hub. A line that is JSON alone
/// is also taken as the device's section of the desired properties.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    // Its tasks, which would connect to targets, are never run.
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let _entered = runtime.enter();
    thread_local! {
        static CONFIG: Config = config();
    }
    CONFIG.with(|config| manage(config, text));
}

fn config() -> Config {
    let authority = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../device-proxy/testdata/ca.pem"
    );
    let line = [
        "device-proxy",
        "--ca-file",
        authority,
        "--target=ssh=localhost:22",
        "--target=web=10.0.0.5:8080",
        "--echo",
        "--allow-cloud=10.0.0.0/8:*",
        "--allow-cloud=box.example:443",
        "--allow-cloud=unix:/run/open/*",
        "--max-streams=9",
        "HostName=h;DeviceId=d;SharedAccessKey=AAEC",
    ];
    let options = Cli::try_parse_from(line).expect("options").options;
    let sources = config::sources(&options, &|_| None).expect("no file");
    Config::resolve(options, &sources).expect("a configuration")
}

fn manage(config: &Config, text: &str) {
    let local = config.local();
    let control = Control::new(local.clone());
    let (answers, _outbox) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let streams = Streams::new(config, control.watch(), BootId::random(), answers, stop);
    let mut management = Management::new(&streams, &control);
    let mut now = Instant::now();
    management.opened(true, now);
    check_packets(&mut management);
    for line in text.split('\n').take(LINES) {
        if let Ok(section) = serde_json::from_str(line) {
            section_alone(&local, &section);
        }
        if let Some(seconds) = line.strip_prefix(WAIT) {
            let seconds: u8 = seconds.parse().unwrap_or(1);
            now += Duration::from_secs(seconds.into());
        } else if let Some((topic, payload)) = line.split_once(' ') {
            management.receive(topic, payload.as_bytes(), now);
        }
        check_packets(&mut management);
        management.act(now);
        check_packets(&mut management);
        check_policy(&local, &control.watch().borrow());
        if let Err(refused) = control.verdict() {
            check_text(&refused.to_string());
        }
    }
    management.closing(now);
    check_packets(&mut management);
}

/// A section by itself: what is permitted is what was wanted, and never wider.
fn section_alone(local: &Local, section: &Value) {
    let wanted = match Wanted::parse(section) {
        Ok(wanted) => wanted,
        Err(refused) => return check_text(&refused.to_string()),
    };
    let policy = combine(local, &wanted);
    check_policy(local, &policy);
    match judge(local, &wanted) {
        Ok(()) => {
            let most = wanted.max_streams.unwrap_or(local.policy.max_streams);
            assert_eq!(policy.max_streams, most);
            assert_eq!(policy.accept, wanted.accept.unwrap_or(true));
        }
        Err(refused) => check_text(&refused.to_string()),
    }
}

fn check_policy(local: &Local, policy: &Policy) {
    assert!(policy.max_streams <= local.policy.max_streams);
    assert_eq!(policy.session, local.policy.session);
    for target in policy.targets.all() {
        let is_own = *target == Target::Echo || local.policy.targets.all().any(|own| own == target);
        assert!(is_own || local.allowed.contains(target), "{target}");
        // Written out here once more: these are all that `config` lists.
        let is_listed = match target {
            Target::Tcp { host, port } => {
                host.starts_with("10.")
                    || host.to_ascii_lowercase().starts_with("::ffff:10.")
                    || host.eq_ignore_ascii_case("box.example") && *port == 443
                    || host.to_ascii_lowercase().starts_with("::ffff:a")
            }
            Target::Unix(path) => path.parent() == Some(std::path::Path::new("/run/open")),
            Target::Echo => true,
        };
        assert!(is_own || is_listed, "{target}");
    }
    check_text(&policy.summary());
}

fn check_text(text: &str) {
    assert!(!text.chars().any(is_unprintable), "{text:?}");
}

/// What is sent are whole packets of MQTT, and each of them is one that a device may send.
fn check_packets(management: &mut Management<'_>) {
    while let Some(bytes) = management.next_packet() {
        let mut io = PacketIo::new(tokio::io::join(&bytes[..], tokio::io::sink()), 1 << 18);
        let packet = finished(io.read()).expect("a packet");
        let Some(Packet::Publish(publish)) = packet else {
            panic!("{packet:?}");
        };
        assert!(matches!(finished(io.read()), Ok(None)), "one at a time");
        let topic = publish.topic_name();
        let payload = publish.payload().as_slice();
        if let Some(response) = MethodResponse::from_topic(topic) {
            assert!((200..600).contains(&response.status));
            serde_json::from_slice::<Value>(payload).expect("JSON");
        } else {
            match TwinRequest::from_topic(topic).unwrap_or_else(|| panic!("{topic}")) {
                TwinRequest::Get(_) => assert_eq!(payload, b" "),
                TwinRequest::PatchReported(_) => {
                    let patch: Value = serde_json::from_slice(payload).expect("JSON");
                    assert!(patch.is_object() && patch != json!({}), "{patch}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus() {
        crate::corpus::play("device_management", super::run);
    }
}
