//! The names of the settings: each is a long option's, and may stand in a configuration file; and
//! so may the device and the local ports, which are arguments.

use common::net::proxy::ProxyKeys;
use common::settings::session::SessionKeys;
use common::settings::{Key, Tables};

pub(super) const CONFIG: Key = Key::new("config").or(&["SERVICE_PROXY_CONFIG"]);

pub(super) const CONNECTION_STRING: Key =
    Key::new("connection-string").or(&["IOTHUB_CONNECTION_STRING"]);
pub(super) const CONNECTION_STRING_FILE: Key = Key::new("connection-string-file");
pub(super) const DEVICE: Key = Key::new("device").or(&["STREAMING_TARGET_DEVICE", "DEVICE_ID"]);
pub(super) const FORWARD: Key = Key::new("forward").or(&["PROXY_PORT", "LOCAL_PORT"]);
pub(super) const MODULE: Key = Key::new("module");
pub(super) const STREAM: Key = Key::new("stream");
pub(super) const CA_FILE: Key = Key::new("ca-file").or(&["SERVICE_PROXY_CA_FILE"]);
pub(super) const PROXY: Key = Key::new("proxy").or(&[
    "SERVICE_PROXY_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
]);
pub(super) const PROXY_AUTH_FILE: Key =
    Key::new("proxy-auth-file").or(&["SERVICE_PROXY_PROXY_AUTH_FILE"]);
/// In the environment alone.
pub(super) const PROXY_AUTH: Key = Key::new("proxy-auth").or(&["SERVICE_PROXY_PROXY_AUTH"]);
pub(super) const NO_PROXY: Key =
    Key::new("no-proxy").or(&["SERVICE_PROXY_NO_PROXY", "no_proxy", "NO_PROXY"]);
pub(super) const STREAMING_HOSTS: Key =
    Key::new("streaming-hosts").or(&["SERVICE_PROXY_STREAMING_HOSTS"]);
/// Of the commands that take devices as host names.
pub(super) const SUFFIX: Key = Key::new("suffix");
pub(super) const SOCKS_LISTEN: Key = Key::new("socks.listen");
pub(super) const SOCKS_PORT: Key = Key::new("socks.port");
pub(super) const CONNECT_TIMEOUT: Key = Key::new("connect-timeout");
pub(super) const RESPONSE_TIMEOUT: Key = Key::new("response-timeout");
pub(super) const APPROVAL_WAIT: Key = Key::new("approval-wait");
pub(super) const STATUS_SOCKET: Key =
    Key::new("status-socket").or(&["SERVICE_PROXY_STATUS_SOCKET"]);
pub(super) const MAX_CONNECTIONS: Key = Key::new("max-connections");
pub(super) const SESSION: Key = Key::new("session").or(&["SERVICE_PROXY_SESSION"]);
pub(super) const SESSION_GRACE: Key =
    Key::new("session-grace").or(&["SERVICE_PROXY_SESSION_GRACE"]);
pub(super) const MEMORY: Key = Key::new("memory").or(&["SERVICE_PROXY_MEMORY"]);
pub(super) const SAMPLE_OUTPUT: Key = Key::new("sample-output");
pub(super) const LOG_LEVEL: Key = Key::new("log-level").or(&["SERVICE_PROXY_LOG"]);
pub(super) const LOG_FORMAT: Key = Key::new("log-format").or(&["SERVICE_PROXY_LOG_FORMAT"]);
pub(super) const ADMIN: Key = Key::new("admin").or(&["SERVICE_PROXY_ADMIN"]);

/// On the command line alone: which table of [`HUBS`].
pub(super) const HUB: Key = Key::new("hub");

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
pub(super) fn in_file() -> Vec<Key> {
    [OF_HUB, OF_PROGRAM].concat()
}

/// Hubs with names of their own.
pub(super) const HUBS: Tables = Tables {
    kind: "hubs",
    keys: OF_HUB,
};

/// What there is once, however many hubs there are.
const OF_PROGRAM: &[Key] = &[
    MAX_CONNECTIONS,
    STATUS_SOCKET,
    SESSION,
    SESSION_GRACE,
    MEMORY,
    SAMPLE_OUTPUT,
    LOG_LEVEL,
    LOG_FORMAT,
    ADMIN,
    SUFFIX,
    SOCKS_LISTEN,
    SOCKS_PORT,
];

/// What may be different for each of them.
const OF_HUB: &[Key] = &[
    CONNECTION_STRING,
    CONNECTION_STRING_FILE,
    DEVICE,
    FORWARD,
    MODULE,
    STREAM,
    CA_FILE,
    PROXY,
    PROXY_AUTH_FILE,
    NO_PROXY,
    STREAMING_HOSTS,
    CONNECT_TIMEOUT,
    RESPONSE_TIMEOUT,
    APPROVAL_WAIT,
];

/// What says which hub it is, or what leads to its devices: none of that is taken from elsewhere.
pub(super) const OF_HUB_ALONE: &[Key] = &[
    CONNECTION_STRING,
    CONNECTION_STRING_FILE,
    DEVICE,
    FORWARD,
    MODULE,
];

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

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
            .filter(|name| !["config", "check-config", "help", "hub", "version"].contains(name))
            // What arguments without a name say, and options of single commands.
            .chain(["device", "forward"])
            .chain([SUFFIX, SOCKS_LISTEN, SOCKS_PORT].map(|key| key.name))
            .collect();
        let mut keys: Vec<_> = in_file().iter().map(|key| key.name).collect();
        options.sort_unstable();
        keys.sort_unstable();
        assert_eq!(keys, options);
    }

    #[test]
    fn the_help_text_names_the_variables() {
        let help = Cli::command().render_long_help().to_string();
        for variable in in_file()
            .iter()
            .chain(&[CONFIG, PROXY_AUTH])
            .flat_map(|key| key.variables)
        {
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
            limits::LOCAL_CONNECTIONS as u64,
        ];
        for default in defaults {
            assert!(help.contains(&format!("[default: {default}]")), "{default}");
        }
    }
}
