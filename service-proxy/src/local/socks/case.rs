//! Host names that have lost the case of the device's id, as those that browsers ask for: the hub is
//! asked for the one device whose id differs in case only. What it says is used for a while.

use std::collections::HashMap;
use std::sync::Mutex;

use common::identity::{DeviceId, DeviceIdentity};
use common::locks::lock;
use common::{log_about, report, telemetry::About};
use serde_json::Value;
use tokio::time::{Duration, Instant, timeout};

use crate::hub_api::{HubApi, select};

/// How long an answer is used: devices are rarely renamed. A wrong one is noticed when it is used.
const KNOWN: Duration = Duration::from_secs(300);
/// How long no answer is one: a browser asks for a name several times.
const UNKNOWN: Duration = Duration::from_secs(10);
/// How long the hub may take.
const ASK: Duration = Duration::from_secs(10);
/// Names that are remembered.
const NAMES: usize = 1024;
/// Devices that a log line names.
const NAMED: usize = 5;

/// What is known of host names that are no device's id.
#[derive(Debug, Default)]
pub(super) struct Cases(Mutex<HashMap<DeviceId, (Option<DeviceId>, Instant)>>);

impl Cases {
    /// The device that was found for this name: `Some(None)` when there was none.
    pub(super) fn known(&self, name: &DeviceId) -> Option<Option<DeviceId>> {
        let names = lock(&self.0);
        let (device, until) = names.get(name)?;
        (Instant::now() < *until).then(|| device.clone())
    }

    /// The device whose id differs from this name in case only, if there is exactly one and the hub
    /// can be asked. May be dropped.
    pub(super) async fn find(&self, api: &HubApi, name: &DeviceId) -> Option<DeviceId> {
        if let Some(known) = self.known(name) {
            return known;
        }
        let identity = DeviceIdentity::of_device(name.clone());
        let about = About::device(&identity);
        let found = match timeout(ASK, ask(api, name)).await {
            Ok(Ok(devices)) => devices,
            Ok(Err(why)) => {
                log_about!(
                    debug,
                    about,
                    "ids that differ in case cannot be looked for: {why}"
                );
                return None;
            }
            Err(_) => return None,
        };
        let device = match found.as_slice() {
            [device] => {
                log_about!(info, about, "no device has this id; {device} is meant");
                Some(device.clone())
            }
            [] => None,
            several => {
                let named: Vec<_> = several.iter().take(NAMED).map(DeviceId::as_str).collect();
                log_about!(
                    warn,
                    about,
                    "no device has this id, and several differ from it in case only: {}",
                    named.join(", ")
                );
                None
            }
        };
        self.remember(name, device.clone());
        device
    }

    /// The device that was found is none any more.
    pub(super) fn forget(&self, name: &DeviceId) {
        lock(&self.0).remove(name);
    }

    fn remember(&self, name: &DeviceId, device: Option<DeviceId>) {
        let now = Instant::now();
        let time = if device.is_some() { KNOWN } else { UNKNOWN };
        let mut names = lock(&self.0);
        if names.len() >= NAMES {
            names.retain(|_, (_, until)| *until > now);
        }
        if names.len() >= NAMES {
            names.clear();
        }
        names.insert(name.clone(), (device, now + time));
    }
}

/// All devices whose ids differ from the name in case only.
async fn ask(api: &HubApi, name: &DeviceId) -> Result<Vec<DeviceId>, String> {
    let lower = select::quoted(&name.as_str().to_ascii_lowercase());
    let text = select::devices("deviceId", Some(&format!("LOWER(deviceId) = {lower}")));
    let mut query = api.query(&text);
    let mut devices = Vec::new();
    loop {
        let page = query.next_page().await;
        let Some(rows) = page.map_err(|error| report::chain(&error))? else {
            return Ok(devices);
        };
        let ids = rows.iter().filter_map(|row| row.get("deviceId"));
        let ids = ids.filter_map(Value::as_str);
        let ids = ids.filter(|id| id.eq_ignore_ascii_case(name.as_str()));
        devices.extend(ids.filter_map(|id| DeviceId::parse(id).ok()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DeviceId {
        DeviceId::parse(text).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_used_for_a_while_and_bounded() {
        let cases = Cases::default();
        assert_eq!(cases.known(&id("a")), None);
        cases.remember(&id("a"), Some(id("A")));
        cases.remember(&id("b"), None);
        assert_eq!(cases.known(&id("a")), Some(Some(id("A"))));
        assert_eq!(cases.known(&id("b")), Some(None));
        tokio::time::advance(UNKNOWN).await;
        assert_eq!(cases.known(&id("b")), None);
        tokio::time::advance(KNOWN).await;
        assert_eq!(cases.known(&id("a")), None);
        for number in 0..3 * NAMES {
            cases.remember(&id(&format!("n{number}")), None);
        }
        assert!(lock(&cases.0).len() <= NAMES);
        cases.remember(&id("a"), Some(id("A")));
        cases.forget(&id("a"));
        assert_eq!(cases.known(&id("a")), None);
    }
}
