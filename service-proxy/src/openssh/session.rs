//! `ssh`: the system's ssh, to a device by its id.

use std::path::Path;
use std::process::Command;

use super::{OpensshError, proxy_command};
use crate::config::SshConfig;
#[cfg(not(unix))]
use crate::exit_code;
use crate::host_names::host_of;

/// Runs ssh to its end. On Unix this process becomes ssh, so that terminal, signals and exit code are
/// its own, and only a failure returns.
///
/// # Errors
/// [`OpensshError`]; that of an exit code other than 0 is not to be printed.
pub fn run(config: SshConfig) -> Result<(), OpensshError> {
    let program = std::env::current_exe().map_err(OpensshError::OwnFile)?;
    start(command(&program, &config))
}

#[cfg(unix)]
fn start(mut command: Command) -> Result<(), OpensshError> {
    use std::os::unix::process::CommandExt as _;
    Err(OpensshError::NoSsh(command.exec()))
}

#[cfg(not(unix))]
fn start(mut command: Command) -> Result<(), OpensshError> {
    let status = command.status().map_err(OpensshError::NoSsh)?;
    match exit_code::of(status) {
        0 => Ok(()),
        code => Err(OpensshError::Ended(code)),
    }
}

/// ssh for one device.
fn command(program: &Path, config: &SshConfig) -> Command {
    let SshConfig {
        device,
        target,
        user,
        arguments,
        connection,
    } = config;
    let mut command = Command::new("ssh");
    for option in proxy_command::options(program, connection, device, target) {
        command.args(["-o", &option]);
    }
    if let Some(user) = user {
        command.args(["-l", user]);
    }
    // Options behind the host are options, too.
    command.arg(host_of(device)).args(arguments);
    for (variable, secret) in &connection.secrets {
        command.env(variable, secret.expose());
    }
    command
}

#[cfg(test)]
mod tests {
    use common::identity::{DeviceId, StreamName};
    use common::secret::Secret;

    use super::*;
    use crate::config::ServiceConnection;

    #[test]
    fn ssh_gets_the_arguments_and_no_secret_among_them() {
        let config = SshConfig {
            device: DeviceId::parse("My,Device").unwrap(),
            target: StreamName::parse("ssh").unwrap(),
            user: Some("ada".to_owned()),
            arguments: ["-v", "uptime"].map(Into::into).to_vec(),
            connection: ServiceConnection {
                options: Vec::new(),
                secrets: vec![("IOTHUB_CONNECTION_STRING", Secret::new("topsecret"))],
            },
        };
        let command = command(Path::new("/bin/service-proxy"), &config);
        let arguments: Vec<_> = command.get_args().filter_map(|it| it.to_str()).collect();
        assert_eq!(
            arguments,
            [
                "-o",
                "ProxyCommand=/bin/service-proxy connect -- My,Device ssh",
                "-o",
                "HostKeyAlias=My%2CDevice",
                "-l",
                "ada",
                "My%2CDevice",
                "-v",
                "uptime",
            ]
        );
        let secret = command.get_envs().find_map(|(_, value)| value);
        assert_eq!(secret.and_then(|it| it.to_str()), Some("topsecret"));
    }
}
