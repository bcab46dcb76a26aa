//! How another service-proxy reaches the same hub as this one.

use std::path::Path;
use std::time::Duration;

use common::secret::Secret;
use common::settings::Source;
use common::settings::connection_string::Found;

use super::keys;
use crate::cli::Options;

/// What another service-proxy is given so that it reaches the same hub in the same way: the options
/// of this one's command line. Environment and configuration file are the same for both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConnection {
    /// Options, without secrets; paths are absolute.
    pub options: Vec<String>,
    /// What the other one would not find by itself, and belongs into its environment: variables and
    /// their values.
    pub secrets: Vec<(&'static str, Secret)>,
}

impl ServiceConnection {
    pub(super) fn of(options: &Options, found: &Found) -> Self {
        let is_on_command_line = match &found.source {
            None => true,
            Some(source) => *source == Source::Option(keys::CONNECTION_STRING.name),
        };
        // A proxy's URL may hold a password.
        let (secret_proxy, proxy) = match &options.proxy {
            Some(url) if url.expose().contains('@') => (Some(url), None),
            url => (None, url.as_ref()),
        };
        let connection_string = is_on_command_line.then_some(&found.text);
        let secrets = [
            (keys::CONNECTION_STRING, connection_string),
            (keys::PROXY, secret_proxy),
        ];
        let file = |path: &Option<_>| path.as_deref().map(absolute);
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64().to_string());
        let level = options.log_level.map(|level| level.to_string());
        let given = [
            (keys::CONFIG, file(&options.config)),
            (keys::HUB, text(options.hub.as_ref())),
            (
                keys::CONNECTION_STRING_FILE,
                file(&options.connection_string_file),
            ),
            (keys::CA_FILE, file(&options.ca_file)),
            (keys::PROXY, proxy.map(|url| url.expose().to_owned())),
            (keys::PROXY_AUTH_FILE, file(&options.proxy_auth_file)),
            (keys::NO_PROXY, text(options.no_proxy.as_ref())),
            (
                keys::STREAMING_HOSTS,
                text(options.streaming_hosts.as_ref()),
            ),
            (keys::MODULE, text(options.module.as_ref())),
            (keys::CONNECT_TIMEOUT, seconds(options.connect_timeout)),
            (keys::RESPONSE_TIMEOUT, seconds(options.response_timeout)),
            (keys::APPROVAL_WAIT, seconds(options.approval_wait)),
            (keys::SESSION, text(options.session.as_ref())),
            (keys::SESSION_GRACE, text(options.session_grace.as_ref())),
            (keys::MEMORY, text(options.memory.as_ref())),
            // Its usual lines are none of the command's.
            (keys::LOG_LEVEL, level.or_else(|| Some("warn".to_owned()))),
        ];
        let words = given.into_iter().filter_map(|(key, value)| {
            let value = value?;
            Some([format!("--{}", key.name), value])
        });
        Self {
            options: words.flatten().collect(),
            secrets: secrets
                .into_iter()
                .filter_map(|(key, secret)| Some((*key.variables.first()?, secret?.clone())))
                .collect(),
        }
    }
}

fn text(value: Option<&impl ToString>) -> Option<String> {
    value.map(ToString::to_string)
}

fn absolute(path: &Path) -> String {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
}
