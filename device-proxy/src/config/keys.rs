//! The names of the settings: each is a long option's, and may stand in a configuration file.

use common::net::proxy::ProxyKeys;
use common::settings::session::SessionKeys;
use common::settings::{Key, Tables};

pub(super) const CONFIG: Key = Key::new("config").or(&["DEVICE_PROXY_CONFIG"]);

pub(super) const CONNECTION_STRING: Key = Key::new("connection-string").or(&[
    "IOTHUB_DEVICE_CONNECTION_STRING",
    "IOTHUB_DEVICE_CONN_STRING",
]);
pub(super) const CONNECTION_STRING_FILE: Key = Key::new("connection-string-file");
pub(super) const TARGET: Key = Key::new("target");
/// The unnamed target of the official samples.
pub(super) const TARGET_HOST: Key = Key::new("target").or(&["REMOTE_HOST_NAME"]);
pub(super) const TARGET_PORT: Key = Key::new("target").or(&["REMOTE_PORT"]);
pub(super) const ECHO: Key = Key::new("echo");
pub(super) const TRANSPORT: Key = Key::new("transport");
pub(super) const SESSION: Key = Key::new("session").or(&["DEVICE_PROXY_SESSION"]);
pub(super) const SESSION_GRACE: Key = Key::new("session-grace").or(&["DEVICE_PROXY_SESSION_GRACE"]);
pub(super) const MEMORY: Key = Key::new("memory").or(&["DEVICE_PROXY_MEMORY"]);
pub(super) const MQTTS_PORT: Key = Key::new("mqtts-port");
pub(super) const CA_FILE: Key = Key::new("ca-file").or(&["DEVICE_PROXY_CA_FILE"]);
pub(super) const PROXY: Key = Key::new("proxy").or(&[
    "DEVICE_PROXY_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
]);
pub(super) const PROXY_AUTH_FILE: Key =
    Key::new("proxy-auth-file").or(&["DEVICE_PROXY_PROXY_AUTH_FILE"]);
/// In the environment alone.
pub(super) const PROXY_AUTH: Key = Key::new("proxy-auth").or(&["DEVICE_PROXY_PROXY_AUTH"]);
pub(super) const NO_PROXY: Key =
    Key::new("no-proxy").or(&["DEVICE_PROXY_NO_PROXY", "no_proxy", "NO_PROXY"]);
pub(super) const CERT: Key = Key::new("cert");
pub(super) const KEY: Key = Key::new("key");
pub(super) const STREAMING_HOSTS: Key =
    Key::new("streaming-hosts").or(&["DEVICE_PROXY_STREAMING_HOSTS"]);
pub(super) const MAX_STREAMS: Key = Key::new("max-streams");
pub(super) const ALLOW_CLOUD: Key = Key::new("allow-cloud").or(&["DEVICE_PROXY_ALLOW_CLOUD"]);
pub(super) const REPORT_CONNECTIONS: Key =
    Key::new("report-connections").or(&["DEVICE_PROXY_REPORT_CONNECTIONS"]);
pub(super) const STATUS_SOCKET: Key = Key::new("status-socket").or(&["DEVICE_PROXY_STATUS_SOCKET"]);
pub(super) const ALLOW_ADDRESSES: Key =
    Key::new("allow-addresses").or(&["DEVICE_PROXY_ALLOW_ADDRESSES"]);
pub(super) const SAMPLE_OUTPUT: Key = Key::new("sample-output");
pub(super) const LOG_LEVEL: Key = Key::new("log-level").or(&["DEVICE_PROXY_LOG"]);
pub(super) const LOG_FORMAT: Key = Key::new("log-format").or(&["DEVICE_PROXY_LOG_FORMAT"]);
pub(super) const ADMIN: Key = Key::new("admin").or(&["DEVICE_PROXY_ADMIN"]);
/// In the file alone.
pub(super) const SESSIONS: Key = Key::new("limits.sessions");
pub(super) const CONNECTIONS: Key = Key::new("limits.connections");
pub(super) const DETACHED_BYTES: Key = Key::new("limits.detached-bytes");

pub(super) const AT_END_OF_HOURS: Key = Key::new("access.at-end-of-hours");

/// The names of the settings of a rule.
pub(super) struct RuleKeys {
    /// For all targets, other limits say it.
    pub(super) connections: Option<Key>,
    pub(super) new_per_second: Key,
    pub(super) bytes_per_second: Key,
    pub(super) hours: Key,
    pub(super) approve_command: Key,
    pub(super) approve_seconds: Key,
    pub(super) approve_for: Key,
}

/// The rules for all targets together.
pub(super) const OF_ALL: RuleKeys = RuleKeys {
    connections: None,
    new_per_second: Key::new("limits.new-per-second"),
    bytes_per_second: Key::new("limits.bytes-per-second"),
    hours: Key::new("access.hours"),
    approve_command: Key::new("access.approve-command"),
    approve_seconds: Key::new("access.approve-seconds"),
    approve_for: Key::new("access.approve-for"),
};

/// Those for one.
pub(super) const OF_ONE: RuleKeys = RuleKeys {
    connections: Some(Key::new("connections")),
    new_per_second: Key::new("new-per-second"),
    bytes_per_second: Key::new("bytes-per-second"),
    hours: Key::new("hours"),
    approve_command: Key::new("approve-command"),
    approve_seconds: Key::new("approve-seconds"),
    approve_for: Key::new("approve-for"),
};

/// What the table of a target may hold.
pub(super) const OF_TARGET: &[Key] = &[
    Key::new("connections"),
    OF_ONE.new_per_second,
    OF_ONE.bytes_per_second,
    OF_ONE.hours,
    OF_ONE.approve_command,
    OF_ONE.approve_seconds,
    OF_ONE.approve_for,
];

/// `[targets.NAME]`.
pub(super) const TARGETS: Tables = Tables {
    kind: "targets",
    keys: OF_TARGET,
};

/// Those of session mode.
pub(super) const OF_SESSION: SessionKeys = SessionKeys {
    mode: SESSION,
    grace: SESSION_GRACE,
    memory: MEMORY,
};

/// Those of a proxy on the way to the hub.
pub(super) const OF_PROXY: ProxyKeys = ProxyKeys {
    proxy: PROXY,
    file: PROXY_AUTH_FILE,
    auth: PROXY_AUTH,
    no_proxy: NO_PROXY,
};

/// What a configuration file may hold.
pub(super) const IN_FILE: &[Key] = &[
    CONNECTION_STRING,
    CONNECTION_STRING_FILE,
    TARGET,
    ECHO,
    TRANSPORT,
    SESSION,
    SESSION_GRACE,
    MEMORY,
    MQTTS_PORT,
    CA_FILE,
    PROXY,
    PROXY_AUTH_FILE,
    NO_PROXY,
    CERT,
    KEY,
    STREAMING_HOSTS,
    MAX_STREAMS,
    ALLOW_CLOUD,
    REPORT_CONNECTIONS,
    ALLOW_ADDRESSES,
    STATUS_SOCKET,
    SAMPLE_OUTPUT,
    LOG_LEVEL,
    LOG_FORMAT,
    ADMIN,
    SESSIONS,
    CONNECTIONS,
    DETACHED_BYTES,
    OF_ALL.new_per_second,
    OF_ALL.bytes_per_second,
    OF_ALL.hours,
    AT_END_OF_HOURS,
    OF_ALL.approve_command,
    OF_ALL.approve_seconds,
    OF_ALL.approve_for,
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use common::hub_address::MQTTS_PORT;

    use super::*;
    use crate::cli::Cli;
    use crate::limits;

    #[test]
    fn a_file_has_the_names_of_the_options() {
        let command = Cli::command();
        let mut options: Vec<_> = command
            .get_arguments()
            .filter_map(|argument| argument.get_long())
            // About the file itself.
            .filter(|name| !["config", "check-config", "help", "version"].contains(name))
            .collect();
        // A table is for what has no option.
        let of_options = IN_FILE.iter().map(|key| key.name);
        let mut keys: Vec<_> = of_options.filter(|name| !name.contains('.')).collect();
        options.sort_unstable();
        keys.sort_unstable();
        assert_eq!(keys, options);
    }

    #[test]
    fn the_help_text_names_the_variables() {
        let help = Cli::command().render_long_help().to_string();
        let samples = [TARGET_HOST, TARGET_PORT, CONFIG, PROXY_AUTH];
        for variable in IN_FILE.iter().chain(&samples).flat_map(|key| key.variables) {
            assert!(help.contains(variable), "{variable}");
        }
    }

    #[test]
    fn the_help_text_names_the_defaults() {
        let help = Cli::command().render_long_help().to_string();
        let help: Vec<_> = help.split_whitespace().collect();
        let help = help.join(" ");
        let defaults: &[u64] = &[
            limits::SESSION_GRACE.as_secs(),
            limits::STREAMS_PER_DEVICE as u64,
            MQTTS_PORT.into(),
        ];
        for default in defaults {
            assert!(help.contains(&format!("[default: {default}]")), "{default}");
        }
    }
}
