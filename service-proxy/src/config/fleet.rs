//! Commands for many devices: what they need beside their own arguments.

use std::time::Duration;

use common::identity::{DeviceIdentity, ModuleId, StreamName};

use super::connection::ServiceConnection;
use super::settings::Settings;
use super::{Config, ConfigError, HubConfig, keys};
use crate::cli::{
    ApprovalsCommand, DevicesArgs, FleetCommand, InventoryArgs, JobCommand, MethodArgs,
    MonitorArgs, QueryArgs, RequestArgs, RunArgs, TwinCommand,
};
use crate::limits;

/// The stream name of SSH servers, as in device-proxy's examples.
const SSH: &str = "ssh";
/// How long Ansible's ssh waits for an offline device, in seconds: a device that is away does not hold
/// up a play until Ansible's own limit of 10 s.
const ANSIBLE_CONNECT: &str = "5";

/// A command for many devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetConfig {
    /// The hub.
    pub hub: HubConfig,
    /// What to do there.
    pub task: Task,
}

/// What to do with devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// List them.
    Devices(DevicesArgs),
    /// Read or change a twin.
    Twin {
        /// What to do with it.
        command: TwinCommand,
        /// A module of the device instead of the device itself.
        module: Option<ModuleId>,
    },
    /// Call a direct method.
    Method {
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// The method.
        method: MethodArgs,
        /// How long the hub waits.
        limits: MethodLimits,
    },
    /// Print the rows of a query.
    Query(QueryArgs),
    /// Create, watch, list or cancel jobs.
    Job {
        /// Which of these.
        command: JobCommand,
        /// How long the hub waits for each device.
        limits: MethodLimits,
    },
    /// Run a command with ssh.
    Run {
        /// The command and the devices.
        args: RunArgs,
        /// The stream name of their SSH servers.
        target: StreamName,
        /// How ssh's own service-proxy reaches the hub.
        connection: ServiceConnection,
    },
    /// Print an inventory for Ansible.
    Inventory {
        /// Which devices, and their groups.
        args: InventoryArgs,
        /// The stream name of their SSH servers.
        target: StreamName,
        /// How ssh's own service-proxy reaches the hub; it has no secret.
        connection: ServiceConnection,
    },
    /// Print telemetry.
    Monitor(MonitorArgs),
    /// Ask for access that somebody has to approve.
    Request {
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// What for.
        args: RequestArgs,
        /// How long the decision is waited for.
        wait: Duration,
    },
    /// List or decide requests for access.
    Approvals(ApprovalsCommand),
}

/// How long the hub waits in a call of a direct method, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodLimits {
    /// For an offline device.
    pub connect: Duration,
    /// For the device's answer, unless the method has a time of its own.
    pub response: Duration,
}

/// Decides a command for many devices.
pub(super) fn of(settings: Settings, command: FleetCommand) -> Result<Config, ConfigError> {
    let task = match command {
        FleetCommand::Devices(args) => Task::Devices(args),
        FleetCommand::Twin(command) => Task::Twin {
            command,
            module: settings.module,
        },
        FleetCommand::Method { device, method } => Task::Method {
            identity: settings.identity(device),
            method,
            limits: method_limits(&settings.hub, settings.hub.timeouts.connect),
        },
        FleetCommand::Query(args) => Task::Query(args),
        FleetCommand::Job(command) => Task::Job {
            command,
            // A job does not wait for each device that is offline, unless it is to.
            limits: method_limits(&settings.hub, settings.connect_timeout.unwrap_or_default()),
        },
        FleetCommand::Run(args) => Task::Run {
            target: ssh_target(&settings, args.ssh.target.clone())?,
            args,
            connection: settings.connection,
        },
        FleetCommand::Inventory(_) if !settings.connection.secrets.is_empty() => {
            return Err(ConfigError::SecretInInventory);
        }
        FleetCommand::Inventory(args) => {
            let target = ssh_target(&settings, args.ssh.target.clone())?;
            let mut connection = settings.connection;
            if settings.connect_timeout.is_none() {
                let option = format!("--{}", keys::CONNECT_TIMEOUT.name);
                connection
                    .options
                    .extend([option, ANSIBLE_CONNECT.to_owned()]);
            }
            Task::Inventory {
                args,
                target,
                connection,
            }
        }
        FleetCommand::Monitor(args) => Task::Monitor(args),
        FleetCommand::Request(args) => Task::Request {
            identity: settings.identity(args.device.clone()),
            wait: settings.hub.approval_wait,
            args,
        },
        FleetCommand::Approvals(command) => Task::Approvals(command),
    };
    Ok(Config::Fleet(FleetConfig {
        hub: settings.hub,
        task,
    }))
}

fn method_limits(hub: &HubConfig, connect: Duration) -> MethodLimits {
    MethodLimits {
        connect: whole(connect),
        response: whole(hub.timeouts.response).max(limits::METHOD_SHORTEST),
    }
}

/// The stream name of SSH servers.
pub(super) fn ssh_target(
    settings: &Settings,
    given: Option<StreamName>,
) -> Result<StreamName, ConfigError> {
    match given {
        Some(target) => settings.usable(target),
        None => Ok(StreamName::parse(SSH)?),
    }
}

/// Hubs take no fractions.
fn whole(time: Duration) -> Duration {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::Write as _;

    use std::path::Path;

    use clap::Parser as _;

    use super::super::{resolve, sources};
    use super::*;
    use crate::cli::Cli;

    const CS: &str = "HostName=h;SharedAccessKeyName=service;SharedAccessKey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    /// With a connection string in the environment.
    fn resolved(words: &[&str]) -> Result<Task, ConfigError> {
        let cli = Cli::try_parse_from([&["service-proxy"], words].concat()).unwrap();
        let environment =
            |name: &str| (name == "IOTHUB_CONNECTION_STRING").then(|| OsString::from(CS));
        let sources = sources(&cli.options, &environment)?;
        match resolve(cli, &sources)? {
            Config::Fleet(config) => Ok(config.task),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_method_has_two_time_limits() {
        let limits = |words: &[&str]| match resolved(words).unwrap() {
            Task::Method { limits, .. } | Task::Job { limits, .. } => {
                (limits.connect.as_secs(), limits.response.as_secs())
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(limits(&["method", "d", "m"]), (30, 30));
        let short = ["method", "d", "m", "--connect-timeout", "0.5"];
        assert_eq!(limits(&short), (1, 30));
        let short = ["method", "d", "m", "--response-timeout", "1"];
        assert_eq!(limits(&short), (30, 5));
        let job = ["job", "method", "m", "--where", "*"];
        assert_eq!(limits(&job), (0, 30));
        let job = [&job[..], &["--connect-timeout", "7"]].concat();
        assert_eq!(limits(&job), (7, 30));
    }

    fn connection(words: &[&str]) -> ServiceConnection {
        match resolved(&[words, &["run", "--where", "*", "--", "true"]].concat()).unwrap() {
            Task::Run {
                connection, target, ..
            } => {
                assert_eq!(target.as_str(), "ssh");
                connection
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_service_proxy_gets_the_same_options_and_no_secret() {
        let found = connection(&[]);
        assert_eq!(found.options, ["--log-level", "warn"]);
        assert_eq!(found.secrets, []);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{CS}").unwrap();
        let path = file.path().to_str().unwrap();
        let found = connection(&["--connection-string-file", path, "--module", "m"]);
        assert_eq!(
            found.options,
            [
                "--connection-string-file",
                path,
                "--module",
                "m",
                "--log-level",
                "warn"
            ]
        );
        assert_eq!(found.secrets, []);
        for words in [&["--connection-string", CS][..], &[CS]] {
            let found = connection(&[words, &["--ca-file", "ca.pem"]].concat());
            let [(variable, secret)] = found.secrets.as_slice() else {
                panic!("{found:?}");
            };
            assert_eq!(
                (*variable, secret.expose()),
                ("IOTHUB_CONNECTION_STRING", CS)
            );
            assert!(!found.options.join(" ").contains("AAEC"));
            let ca_file = found.options.get(1).unwrap();
            assert!(Path::new(ca_file).is_absolute(), "{ca_file}");
        }
        let found = connection(&["--streaming-hosts", "*.a.b:1, c", "--session", "never"]);
        let options = found.options.join(" ");
        assert!(
            options.contains("--streaming-hosts *.a.b:1, c --session never"),
            "{options}"
        );
    }

    #[test]
    fn ansible_does_not_wait_long_for_an_offline_device() {
        let options = |words: &[&str]| match resolved(&[words, &["inventory"]].concat()).unwrap() {
            Task::Inventory { connection, .. } => connection.options.join(" "),
            other => panic!("{other:?}"),
        };
        assert_eq!(options(&[]), "--log-level warn --connect-timeout 5");
        assert_eq!(
            options(&["--connect-timeout", "0"]),
            "--connect-timeout 0 --log-level warn"
        );
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "connect-timeout = 7").unwrap();
        let path = file.path().to_str().unwrap();
        let of_file = format!("--config {path} --log-level warn");
        assert_eq!(options(&["--config", path]), of_file);
    }

    #[test]
    fn another_service_proxy_gets_the_proxy_and_no_password() {
        let found = connection(&["--proxy", "socks5h://p:1", "--no-proxy", "a,b"]);
        let options = found.options.join(" ");
        assert!(
            options.contains("--proxy socks5h://p:1 --no-proxy a,b"),
            "{options}"
        );
        let url = "http://ada:topsecret@p:1";
        let found = connection(&["--proxy", url]);
        assert!(!found.options.join(" ").contains("topsecret"));
        let [("SERVICE_PROXY_PROXY", secret)] = found.secrets.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(secret.expose(), url);
        assert!(matches!(
            resolved(&["--proxy", url, "inventory"]),
            Err(ConfigError::SecretInInventory)
        ));
    }

    #[test]
    fn an_inventory_shows_no_connection_string() {
        assert!(resolved(&["inventory"]).is_ok());
        for words in [
            &["--connection-string", CS, "inventory"][..],
            &[CS, "inventory"],
        ] {
            let error = resolved(words).unwrap_err();
            assert!(matches!(error, ConfigError::SecretInInventory), "{error}");
        }
    }
}
