//! The block of ssh's configuration by which devices are hosts.

use std::path::Path;

use super::{OpensshError, proxy_command};
use crate::config::SshConfigConfig;

/// The block. A connection string is never in it.
///
/// # Errors
/// [`OpensshError::OwnFile`] when it is not known where this program is.
pub(super) fn text(config: &SshConfigConfig) -> Result<String, OpensshError> {
    let program = std::env::current_exe().map_err(OpensshError::OwnFile)?;
    Ok(block(&program, config))
}

fn block(program: &Path, config: &SshConfigConfig) -> String {
    let SshConfigConfig {
        connection,
        suffix,
        target,
        ..
    } = config;
    let command = proxy_command::to_host(program, connection, suffix, target);
    let names = |option: &str| connection.options.iter().any(|it| it == option);
    let note = if names("--connection-string-file") || names("--config") {
        ""
    } else {
        "# No file was named: the connection string is taken from the environment of ssh.\n"
    };
    format!(
        "# Devices as hosts: ssh user@MyDevice.{suffix} (written by service-proxy ssh-config).\n\
         {note}Host *.{suffix}\n    \
             ProxyCommand {command}\n    \
             # A device is known by its name, whatever its address.\n    \
             CheckHostIP no\n"
    )
}

#[cfg(test)]
mod tests {
    use common::identity::StreamName;

    use super::*;
    use crate::cli::SshConfigAction;
    use crate::config::ServiceConnection;

    #[test]
    fn the_block_names_program_files_and_suffix() {
        let config = |options: &[&str]| SshConfigConfig {
            connection: ServiceConnection {
                options: options.iter().map(|&it| it.to_owned()).collect(),
                secrets: Vec::new(),
            },
            suffix: "lab".parse().unwrap(),
            target: StreamName::parse("ssh").unwrap(),
            action: SshConfigAction::Print,
        };
        let text = block(
            Path::new("/bin/service-proxy"),
            &config(&["--config", "/c.toml"]),
        );
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert!(lines.contains(&"Host *.lab"), "{text}");
        let command =
            "ProxyCommand /bin/service-proxy connect --config /c.toml --suffix lab -- %n ssh";
        assert!(lines.contains(&command), "{text}");
        assert!(!text.contains("environment"), "{text}");
        assert!(block(Path::new("/b"), &config(&[])).contains("environment of ssh"));
    }
}
