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
    /// A connection string that the other one would not find by itself: it belongs into its
    /// environment, as IOTHUB_CONNECTION_STRING.
    pub secret: Option<Secret>,
}

impl ServiceConnection {
    pub(super) fn of(options: &Options, found: &Found) -> Self {
        let is_on_command_line = match &found.source {
            None => true,
            Some(source) => *source == Source::Option(keys::CONNECTION_STRING.name),
        };
        let file = |path: &Option<_>| path.as_deref().map(absolute);
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64().to_string());
        let level = options.log_level.map(|level| level.to_string());
        let given = [
            (keys::CONFIG, file(&options.config)),
            (
                keys::CONNECTION_STRING_FILE,
                file(&options.connection_string_file),
            ),
            (keys::CA_FILE, file(&options.ca_file)),
            (
                keys::STREAMING_HOSTS,
                text(options.streaming_hosts.as_ref()),
            ),
            (keys::MODULE, text(options.module.as_ref())),
            (keys::CONNECT_TIMEOUT, seconds(options.connect_timeout)),
            (keys::RESPONSE_TIMEOUT, seconds(options.response_timeout)),
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
            secret: is_on_command_line.then(|| found.text.clone()),
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
