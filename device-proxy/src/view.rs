//! What this device-proxy sees of its own path, for who asks from the other side: the method `doctor`.

use std::time::Duration;

use common::clock::unix_now;
use common::doctor::idle;
use common::net::Dialer;
use common::session_mode::SessionMode;
use serde_json::{Value, json};

use crate::config::Config;
use crate::policy::Policy;
use crate::target::{Target, is_this_machine};
use crate::transport::Transport;

/// How this device-proxy reaches its hub, and its targets.
#[derive(Debug, Clone)]
pub(crate) struct View {
    dialer: Dialer,
    transport: Transport,
    hub: String,
    proxy: Option<String>,
    grace: Duration,
}

impl View {
    /// As it is configured.
    pub(crate) fn of(config: &Config) -> Self {
        let host = config.connection.connect_host();
        let proxy = config.dialer.way_to(host.name(), config.session_port());
        Self {
            dialer: config.dialer.clone(),
            transport: config.transport,
            hub: host.to_string(),
            proxy: proxy.map(|proxy| proxy.to_string()),
            grace: config.session.grace,
        }
    }

    /// Everything in one document, with what was found of the targets of these names, or of all. May
    /// be dropped.
    pub(crate) async fn document(
        self,
        policy: &Policy,
        names: Option<&[String]>,
        status: Value,
    ) -> Value {
        let permits = |target: &Target, address| policy.addresses.permit(target, address);
        let examining = policy.targets.examine(&self.dialer, &permits, names);
        let (found, sshd) = tokio::join!(examining, sshd(policy));
        let targets: Vec<Value> = found.iter().map(|found| found.to_json()).collect();
        let grace = (policy.session != SessionMode::Never).then_some(self.grace.as_secs());
        let sshd = sshd.map(|(alive, source)| {
            let mut sshd = alive.to_json();
            if let Some(members) = sshd.as_object_mut() {
                members.insert("source".to_owned(), source.into());
            }
            sshd
        });
        json!({
            "status": status,
            "unixTime": unix_now(),
            "hub": self.hub,
            "transport": match self.transport {
                Transport::Mqtt => "mqtt",
                Transport::MqttWs => "mqtt-ws",
            },
            "proxy": self.proxy,
            "session": policy.session.to_string(),
            "sessionGraceSeconds": grace,
            "targets": found_or_missing(targets, names),
            "sshd": sshd,
        })
    }
}

/// Names for which there is no target stand among those that were found.
fn found_or_missing(mut found: Vec<Value>, names: Option<&[String]>) -> Vec<Value> {
    for name in names.unwrap_or_default() {
        let is_found = found.iter().any(|found| found["name"] == name.as_str());
        if !is_found {
            found.push(json!({
                "name": name,
                "outcome": "failed",
                "detail": "the device has no target of this name",
                "remedy": format!("give it to device-proxy: --target {name}=HOST:PORT"),
            }));
        }
    }
    found
}

/// What this machine's sshd does with idle sessions, if it is a target.
pub(crate) async fn sshd(policy: &Policy) -> Option<(idle::Alive, &'static str)> {
    let is_local = |target: &Target| match target {
        Target::Tcp { host, port } => *port == 22 && is_this_machine(host),
        Target::Unix(_) | Target::Echo => false,
    };
    let mut names = policy.targets.names();
    let has_sshd = names.any(|name| policy.targets.configured(name).is_some_and(is_local));
    if !has_sshd {
        return None;
    }
    idle::of_sshd().await
}
