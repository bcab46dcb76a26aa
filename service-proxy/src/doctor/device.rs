//! The device: whether the hub knows it and it is there, and what it sees from its own side.

use std::time::{Duration, SystemTime};

use common::doctor::idle::Alive;
use common::doctor::path::clocks;
use common::doctor::{Check, Examination};
use common::identity::DeviceIdentity;
use common::report;
use common::wire::twin::SessionReport;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::asked::{self, AUTHENTICATION, HUB, Standing};
use crate::config::DoctorConfig;
use crate::hub_api::{CallError, HubApi, MethodCall};
use crate::limits;

const DEVICE: (&str, &str) = ("device", "device");
const VIEW: (&str, &str) = ("view", "device's view");
const DEVICE_CLOCK: (&str, &str) = ("device-clock", "device's clock");
const TARGET: (&str, &str) = ("target", "targets");

/// All checks of a device.
pub(super) const ALL: [(&str, &str); 4] = [DEVICE, VIEW, DEVICE_CLOCK, TARGET];

/// The method of device-proxy that answers with its view.
const METHOD: &str = "doctor";
/// Of a device's targets so many are shown.
const SHOWN: usize = 50;

/// What was found of a device.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// There is no point in opening a stream to it.
    pub(super) is_lost: bool,
    /// What it reports about session mode.
    pub(super) report: Option<SessionReport>,
    /// The twin was read, so that no report means no support.
    pub(super) is_twin_known: bool,
    /// The names of its targets, if it has told them.
    pub(super) targets: Option<Vec<String>>,
    /// Its session mode, if it has told that.
    pub(super) session: Option<String>,
    /// Its sessions now.
    pub(super) sessions: Option<u64>,
    /// What its sshd does.
    pub(super) sshd: Option<Alive>,
    /// The names of its targets that are RDP servers, as far as name or port tells.
    pub(super) rdp: Vec<String>,
}

/// Examines it. May be dropped.
pub(super) async fn examine(
    api: &HubApi,
    config: &DoctorConfig,
    identity: &DeviceIdentity,
    examination: &mut Examination<'_>,
) -> Seen {
    let mut seen = Seen::default();
    if is_narrow(config) {
        let why = "the token is for streams alone: opening one will show it";
        examination.skip(&[HUB, AUTHENTICATION], why);
        examination.skip(&ALL, why);
        return seen;
    }
    let begun = Instant::now();
    let twin = match timeout(config.limit, api.examine_twin(identity)).await {
        Ok(Ok(twin)) => twin,
        Ok(Err(error)) => {
            let standing = asked::standing(&error, begun, examination);
            return without_twin(&error, standing, seen, examination);
        }
        Err(_) => {
            asked::silent(config, begun, examination);
            examination.skip(&ALL, "the hub has to answer first");
            seen.is_lost = true;
            return seen;
        }
    };
    let check = Check::ok(HUB.0, "answers as a hub");
    examination.add(check.called(HUB.1).since(begun));
    let detail = format!("policy `{}` is believed", config.hub.service.policy);
    examination.add(Check::ok(AUTHENTICATION.0, detail).called(AUTHENTICATION.1));
    seen.is_twin_known = true;
    seen.report = SessionReport::from_twin(&twin);
    let is_there = examination.add(presence(&twin, identity).called(DEVICE.1));
    if !is_there {
        seen.is_lost = true;
        examination.skip(&[VIEW, DEVICE_CLOCK, TARGET], "the device is not there");
        return seen;
    }
    view(api, config, identity, &mut seen, examination).await;
    seen
}

/// Whether the credential opens streams and nothing else.
fn is_narrow(config: &DoctorConfig) -> bool {
    super::credential::token_target(config).is_some()
}

fn without_twin(
    error: &CallError,
    standing: Standing,
    mut seen: Seen,
    examination: &mut Examination<'_>,
) -> Seen {
    let rest = [VIEW, DEVICE_CLOCK, TARGET];
    match standing {
        Standing::Unknown => examination.skip(&ALL, "twins are not offered by this hub"),
        Standing::Good => {
            seen.is_lost = true;
            let check = Check::failed(DEVICE.0, report::chain(error));
            examination.add(check.called(DEVICE.1));
            examination.skip(&rest, "the device is not there");
        }
        Standing::Refused | Standing::Broken => {
            seen.is_lost = true;
            examination.skip(&ALL, "the hub has to believe us first");
        }
    }
    seen
}

/// Whether the device is there, as its twin says.
fn presence(twin: &Value, identity: &DeviceIdentity) -> Check {
    let text = |name: &str| twin.get(name).and_then(Value::as_str);
    if text("status").is_some_and(|status| status.eq_ignore_ascii_case("disabled")) {
        let device = &identity.device;
        return Check::failed(
            DEVICE.0,
            "the device is disabled at the hub, which refuses it",
        )
        .remedy(format!("`stream-hub device enable {device}`"));
    }
    let last = text("lastActivityTime").filter(|time| !time.starts_with("0001"));
    let last = last.map_or_else(String::new, |time| format!(", last active {time}"));
    match text("connectionState") {
        Some(state) if state.eq_ignore_ascii_case("connected") => {
            Check::ok(DEVICE.0, format!("is connected to the hub{last}"))
        }
        Some(_) => Check::failed(
            DEVICE.0,
            format!("the device is not connected to the hub{last}"),
        )
        .remedy("start device-proxy there; `device-proxy doctor` on the device says what keeps it"),
        None => Check::skipped(DEVICE.0, "the hub does not say whether it is connected"),
    }
}

/// Asks the device itself.
async fn view(
    api: &HubApi,
    config: &DoctorConfig,
    identity: &DeviceIdentity,
    seen: &mut Seen,
    examination: &mut Examination<'_>,
) {
    let payload = match &config.target {
        Some(target) => json!({ "targets": [target.as_str()] }),
        None => Value::Null,
    };
    let call = MethodCall {
        name: METHOD.to_owned(),
        payload,
        connect: Duration::ZERO,
        response: config.limit.max(limits::METHOD_SHORTEST),
    };
    let begun = Instant::now();
    let before = SystemTime::now();
    let calling = timeout(
        call.response + config.limit,
        api.invoke_method(identity, &call),
    );
    let answer = match calling.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            let check = match &error {
                CallError::Offline { .. } | CallError::NotOffered(_) => {
                    Check::skipped(VIEW.0, "the device takes no direct methods")
                }
                CallError::NoAnswer { .. } => Check::warning(VIEW.0, report::chain(&error)),
                _ => Check::warning(VIEW.0, report::chain(&error)),
            };
            examination.add(check.called(VIEW.1).since(begun));
            return examination.skip(&[DEVICE_CLOCK, TARGET], "the device has to be asked first");
        }
        Err(_) => {
            let check = Check::warning(VIEW.0, "the hub has no answer of the device in time");
            examination.add(check.called(VIEW.1).since(begun));
            return examination.skip(&[DEVICE_CLOCK, TARGET], "the device has to be asked first");
        }
    };
    let middle = before + begun.elapsed() / 2;
    if answer.status != 200 || !answer.payload.is_object() {
        let status = answer.status;
        let why = format!(
            "the device does not offer it (status {status}): another program, or an older device-proxy"
        );
        return examination.skip(&[VIEW, DEVICE_CLOCK, TARGET], &why);
    }
    let view = &answer.payload;
    examination.add(summary(view).called(VIEW.1).since(begun));
    examination.add(device_clock(view, middle).called(DEVICE_CLOCK.1));
    targets(view, config, examination);
    take(view, seen);
}

fn take(view: &Value, seen: &mut Seen) {
    let names = view.pointer("/status/targets").and_then(Value::as_array);
    seen.targets = names.map(|names| {
        let names = names.iter().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    });
    seen.session = view
        .get("session")
        .and_then(Value::as_str)
        .map(str::to_owned);
    seen.sessions = view.pointer("/status/sessions").and_then(Value::as_u64);
    seen.sshd = view.get("sshd").and_then(Alive::from_json);
    let targets = view.get("targets").and_then(Value::as_array);
    let rdp = targets.into_iter().flatten().filter_map(rdp_name);
    seen.rdp = rdp.take(SHOWN).collect();
}

/// The name of a target that is an RDP server.
fn rdp_name(found: &Value) -> Option<String> {
    let name = found.get("name")?.as_str()?;
    let place = found.get("target").and_then(Value::as_str);
    let is_rdp = name == "rdp" || place.is_some_and(|place| place.ends_with(":3389"));
    is_rdp.then(|| name.to_owned())
}

/// What the device says of itself.
fn summary(view: &Value) -> Check {
    let text = |path: &str| view.pointer(path).and_then(Value::as_str);
    let number = |path: &str| view.pointer(path).and_then(Value::as_u64);
    let mut parts = vec![format!(
        "device-proxy {} on {}",
        text("/status/version").unwrap_or("of an unknown version"),
        text("/status/platform").unwrap_or("an unknown platform"),
    )];
    if let Some(seconds) = number("/status/uptimeSeconds") {
        parts.push(format!("up for {seconds} s"));
    }
    if let Some(transport) = text("/transport") {
        parts.push(format!("by {transport}"));
    }
    parts.push(match text("/proxy") {
        Some(proxy) => format!("through the proxy {proxy}"),
        None => "through no proxy".to_owned(),
    });
    let (active, most) = (
        number("/status/activeStreams"),
        number("/status/maxStreams"),
    );
    if let (Some(active), Some(most)) = (active, most) {
        parts.push(format!("{active} of {most} streams"));
    }
    let detail = parts.join(", ");
    if view.pointer("/status/accept").and_then(Value::as_bool) == Some(false) {
        return Check::failed(VIEW.0, format!("{detail}; it accepts no new streams"))
            .remedy("its twin's desired properties say so: set deviceStreams.accept to true");
    }
    if active
        .zip(most)
        .is_some_and(|(active, most)| active >= most)
    {
        return Check::failed(VIEW.0, format!("{detail}: it has no room for another"))
            .remedy("close streams, or give device-proxy a larger --max-streams");
    }
    match text("/status/lastError/message") {
        Some(error) => Check::ok(VIEW.0, format!("{detail}; its last error: {error}")),
        None => Check::ok(VIEW.0, detail),
    }
}

fn device_clock(view: &Value, ours: SystemTime) -> Check {
    let seconds = view.get("unixTime").and_then(Value::as_u64);
    let theirs = seconds
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    match theirs {
        Some(theirs) => clocks(DEVICE_CLOCK.0, ours, theirs, "the device's"),
        None => Check::skipped(DEVICE_CLOCK.0, "the device has not told its time"),
    }
}

fn targets(view: &Value, config: &DoctorConfig, examination: &mut Examination<'_>) {
    let found = view.get("targets").and_then(Value::as_array);
    let found = found.map(Vec::as_slice).unwrap_or_default();
    if found.is_empty() {
        let check = match &config.target {
            Some(target) => Check::failed(TARGET.0, format!("the device has no target {target}"))
                .remedy("give it to device-proxy: --target NAME=HOST:PORT"),
            None => Check::failed(TARGET.0, "the device has no targets")
                .remedy("give device-proxy one: --target NAME=HOST:PORT"),
        };
        examination.add(check.called(TARGET.1));
        return;
    }
    for found in found.iter().take(SHOWN) {
        let text = |name: &str| found.get(name).and_then(Value::as_str);
        let name = text("name").unwrap_or("?");
        let place = text("target").map_or_else(String::new, |target| format!("{target}: "));
        let detail = format!("{place}{}", text("detail").unwrap_or("no detail"));
        let check = match text("outcome") {
            Some("ok") => Check::ok(TARGET.0, detail),
            _ => Check::failed(TARGET.0, detail),
        };
        let check = match text("remedy") {
            Some(remedy) => check.remedy(remedy),
            None => check,
        };
        let check = check.called(format!("target {name}"));
        let milliseconds = found.get("milliseconds").and_then(Value::as_f64);
        let time = milliseconds.and_then(|time| Duration::try_from_secs_f64(time / 1e3).ok());
        examination.add(match time {
            Some(time) => check.took(time),
            None => check,
        });
    }
}
