//! The names of the settings: each is a long option's, and may stand in a configuration file.

use common::settings::Key;

pub(super) const CONFIG: Key = Key::new("config").or(&["STREAM_HUB_CONFIG"]);
/// A secret of one command: it has no place in a hub's file.
pub(super) const PRIMARY_KEY: Key = Key::new("primary-key").or(&["STREAM_HUB_PRIMARY_KEY"]);

pub(super) const DATA_DIR: Key = Key::new("data-dir").or(&["STREAM_HUB_DATA_DIR"]);
pub(super) const LOG_LEVEL: Key = Key::new("log-level").or(&["STREAM_HUB_LOG"]);
pub(super) const LOG_FORMAT: Key = Key::new("log-format").or(&["STREAM_HUB_LOG_FORMAT"]);
pub(super) const ADMIN: Key = Key::new("admin").or(&["STREAM_HUB_ADMIN"]);
pub(super) const HOSTNAME: Key = Key::new("hostname").or(&["STREAM_HUB_HOSTNAME"]);
pub(super) const HTTPS: Key = Key::new("https");
pub(super) const MQTTS: Key = Key::new("mqtts");
pub(super) const AMQPS: Key = Key::new("amqps");
pub(super) const TLS_CERT: Key = Key::new("tls-cert");
pub(super) const TLS_KEY: Key = Key::new("tls-key");
pub(super) const ACME: Key = Key::new("acme");
pub(super) const ACME_DIRECTORY: Key = Key::new("acme-directory");
pub(super) const ACME_CONTACT: Key = Key::new("acme-contact");
pub(super) const ACME_CA_FILE: Key = Key::new("acme-ca-file");
pub(super) const AUDIT_LOG: Key = Key::new("audit-log");
pub(super) const AUDIT_FULL: Key = Key::new("audit-full");

/// What a configuration file may hold above its tables.
pub(super) const IN_FILE: [Key; 16] = [
    DATA_DIR,
    LOG_LEVEL,
    LOG_FORMAT,
    ADMIN,
    HOSTNAME,
    HTTPS,
    MQTTS,
    AMQPS,
    TLS_CERT,
    TLS_KEY,
    ACME,
    ACME_DIRECTORY,
    ACME_CONTACT,
    ACME_CA_FILE,
    AUDIT_LOG,
    AUDIT_FULL,
];

/// All that a configuration file may hold.
pub(super) fn in_file() -> Vec<Key> {
    [
        &IN_FILE[..],
        &super::limits::in_file(),
        &super::access::IN_FILE,
        &super::audit::IN_FILE,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_file_has_the_names_of_the_options() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let mut options: Vec<_> = command
            .get_arguments()
            .chain(serve.get_arguments())
            .filter_map(|argument| argument.get_long())
            // About the file itself.
            .filter(|name| !["config", "check-config", "help", "version"].contains(name))
            .collect();
        let mut keys: Vec<_> = IN_FILE.iter().map(|key| key.name).collect();
        options.sort_unstable();
        keys.sort_unstable();
        assert_eq!(keys, options);
    }

    #[test]
    fn the_help_text_names_the_variables() {
        let mut command = Cli::command();
        command.build();
        let mut help = command.clone().render_long_help().to_string();
        for path in [&["serve"][..], &["device", "create"], &["module", "create"]] {
            let mut part = &mut command;
            for name in path {
                part = part.find_subcommand_mut(name).unwrap();
            }
            help += &part.render_long_help().to_string();
        }
        let others = [CONFIG, PRIMARY_KEY];
        for variable in IN_FILE.iter().chain(&others).flat_map(|key| key.variables) {
            assert!(help.contains(variable), "{variable}");
        }
    }
}
