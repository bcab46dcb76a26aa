//! A file for support: the report, what it was made with, and the last lines of the log, without any
//! secret. Secrets are left out where it is written, and on top of that every text in it is searched for
//! those that this process knows, in all forms in which they may have got there.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use data_encoding::HEXLOWER;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::Report;
use crate::files::{self, Access};
use crate::outside;
use crate::percent::COMPONENT;
use crate::secret::Secret;

/// Instead of a secret.
const MASK: &str = "***";
/// Shorter ones are words, whose places would show them.
const SHORTEST: usize = 4;
/// How long the system's log is waited for.
const LOG: Duration = Duration::from_secs(3);
/// Its last lines.
const LINES: &str = "200";

/// The secrets that this process knows.
#[derive(Default)]
pub struct Secrets {
    /// Every form of every one, the longest first.
    forms: Vec<Secret>,
}

impl Secrets {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret; a key in base64 counts as the key, too.
    pub fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < SHORTEST {
            return;
        }
        self.add_forms(secret.as_bytes());
        if let Ok(bytes) = STANDARD.decode(secret)
            && bytes.len() >= 8
        {
            self.add_forms(&bytes);
        }
        self.forms
            .sort_by_key(|form| std::cmp::Reverse(form.expose().len()));
    }

    /// Adds a connection string or a token: as a whole, and the secret in it.
    pub fn add_connection(&mut self, text: &str) {
        self.add(text);
        for item in text.split([';', '&', ' ']) {
            if let Some((name, value)) = item.split_once('=')
                && ["sharedaccesskey", "sharedaccesssignature", "sig"]
                    .contains(&name.trim().to_ascii_lowercase().as_str())
            {
                self.add(value);
                let decoded = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
                self.add(&decoded);
            }
        }
    }

    /// Adds a user name and password of a proxy.
    pub fn add_login(&mut self, user: &str, password: &str) {
        self.add(password);
        self.add(&format!("{user}:{password}"));
    }

    /// Adds what the environment of this process holds of them.
    pub fn add_environment(&mut self) {
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().to_ascii_uppercase();
            let value = value.to_string_lossy();
            if ["CONNECTION_STRING", "CONN_STRING", "ENROLMENT"]
                .iter()
                .any(|part| name.contains(part))
            {
                self.add_connection(&value);
            } else if name.contains("PROXY_AUTH") || name.ends_with("_PROXY") {
                let login = value.rsplit_once('@').map_or_else(
                    || name.contains("PROXY_AUTH").then_some(&*value),
                    |(before, _)| Some(before.split_once("://").map_or(before, |(_, it)| it)),
                );
                if let Some((user, password)) = login.and_then(|login| login.split_once(':')) {
                    self.add_login(user, password);
                    let decoded =
                        percent_encoding::percent_decode_str(password).decode_utf8_lossy();
                    self.add_login(user, &decoded);
                }
            }
        }
    }

    fn add_forms(&mut self, bytes: &[u8]) {
        let mut add = |form: String| {
            if form.len() >= SHORTEST {
                self.forms.push(Secret::new(form));
            }
        };
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            let text = engine.encode(bytes);
            add(utf8_percent_encode(&text, COMPONENT).to_string());
            add(text);
        }
        add(HEXLOWER.encode(bytes));
        add(HEXLOWER.encode(bytes).to_uppercase());
        if let Ok(text) = std::str::from_utf8(bytes) {
            for set in [COMPONENT, NON_ALPHANUMERIC] {
                let encoded = utf8_percent_encode(text, set).to_string();
                add(encoded.to_ascii_lowercase());
                add(encoded);
            }
            add(text.to_owned());
        }
    }

    /// The text without them, and without what looks like one.
    pub fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for form in &self.forms {
            if text.contains(form.expose()) {
                text = text.replace(form.expose(), MASK);
            }
        }
        outside::masked(&text).into_owned()
    }

    fn mask(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.masked(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask(item)),
            Value::Object(members) => members.values_mut().for_each(|item| self.mask(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Writes the bundle, as JSON, for its owner alone. Blocks.
///
/// # Errors
/// Any error of the file system.
pub fn write(
    path: &Path,
    report: &Report,
    log: Option<Vec<String>>,
    secrets: &Secrets,
) -> io::Result<()> {
    let mut bundle = json!({
        "report": report.to_json(),
        "configuration": report.configuration,
        "environment": environment(),
        "system": system(),
        "log": log,
    });
    secrets.mask(&mut bundle);
    let mut text = outside::printable_json(&format!("{bundle:#}"));
    text.push('\n');
    files::write(path, text.as_bytes(), Access::Private)
}

/// The names of variables that the programs read; no values.
fn environment() -> Vec<String> {
    let ours = [
        "PROXY",
        "IOTHUB",
        "STREAM",
        "SSL_CERT",
        "DEVICE_ID",
        "LOCAL_PORT",
        "REMOTE_",
    ];
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| {
            let name = name.to_ascii_uppercase();
            ours.iter().any(|part| name.contains(part))
        })
        .collect();
    names.sort();
    names
}

/// The system, in its own words.
fn system() -> Value {
    let first = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().chars().take(400).collect::<String>())
    };
    json!({
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "release": first("/etc/os-release"),
        "kernel": first("/proc/version"),
    })
}

/// The last lines that a service has written to systemd's journal; `None` where there is none, or it
/// may not be read. May be dropped.
pub async fn journal(unit: &str) -> Option<Vec<String>> {
    let running = Command::new("journalctl")
        .args([
            "--no-pager",
            "--quiet",
            "-o",
            "short-iso",
            "-n",
            LINES,
            "-u",
            unit,
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(LOG, running).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    (output.status.success() && !lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_secret_is_masked() {
        let key = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
        let mut secrets = Secrets::new();
        secrets.add_connection(&format!("HostName=h;DeviceId=d;SharedAccessKey={key}"));
        secrets.add_login("ada", "open sesame!");
        let decoded = STANDARD.decode(key).unwrap();
        for form in [
            key.to_owned(),
            key.trim_end_matches('=').to_owned(),
            utf8_percent_encode(key, COMPONENT).to_string(),
            STANDARD.encode(key),
            HEXLOWER.encode(&decoded),
            String::from_utf8(decoded).unwrap(),
            "open sesame!".to_owned(),
            "open%20sesame%21".to_owned(),
            STANDARD.encode("ada:open sesame!"),
            STANDARD.encode("open sesame!"),
        ] {
            let masked = secrets.masked(&format!("a {form} b"));
            assert_eq!(masked, "a *** b", "{form}");
        }
        assert_eq!(secrets.masked("hub.example:443"), "hub.example:443");
    }
}
