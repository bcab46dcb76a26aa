//! The one phase in which every setting is decided. Option, then positional argument, then
//! environment, then configuration file, then default; a first argument without `HostName=` is the
//! next argument when the connection string comes from elsewhere; an empty variable is none.

use std::path::PathBuf;
use std::time::Duration;

use common::admin::AdminListen;
use common::identity::{DeviceId, StreamName};
use common::net::proxy::{ProxyOptions, ProxySettings};
use common::places;
use common::secret::Secret;
use common::settings::connection_string::{self, Found};
use common::settings::{self, Environment, Setting, Sources};
use common::status::Place;
use common::telemetry::LogFormat;
use common::text_input;
use tracing::level_filters::LevelFilter;

use super::forwards::{self, Given, Places};
use super::settings::Settings;
use super::{
    Config, ConfigError, ConnectConfig, DoctorConfig, ECHO_STREAM, EchoConfig, LoginConfig,
    by_name, fleet, hubs, keys,
};
use crate::cli::{Cli, Command, EchoArgs, Options};
use crate::echo_plan::{EchoPlan, Payload};
use crate::sample_output::SampleOutput;

/// Messages of an echo test, the bytes in each, and the time between them, by default.
const PINGS: u64 = 4;
const PING_SIZE: usize = 64;
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// How long each step of an examination may take, by default.
const EXAMINED: Duration = Duration::from_secs(10);

/// The configuration file that counts when the command line and the environment name neither one
/// nor a connection string: what `service-proxy login` has written.
pub fn default_file(cli: &Cli, environment: Environment<'_>) -> Option<PathBuf> {
    let options = &cli.options;
    let is_given = options.config.is_some()
        || options.connection_string.is_some()
        || options.connection_string_file.is_some()
        || cli.first.as_ref().is_some_and(connection_string::is_one)
        || matches!(cli.command, Some(Command::Login(_) | Command::Status(_)))
        || [keys::CONFIG, keys::CONNECTION_STRING]
            .iter()
            .flat_map(|key| key.variables)
            .any(|variable| environment(variable).is_some());
    if is_given {
        return None;
    }
    places::configuration(FILE)
}

/// The name of the configuration file that `service-proxy login` writes.
pub const FILE: &str = "service-proxy.toml";

/// The layers below the command line: this environment, and the configuration file if there is
/// one.
///
/// # Errors
/// [`ConfigError::Setting`] when that cannot be used.
pub fn sources<'a>(
    options: &Options,
    environment: Environment<'a>,
) -> Result<Sources<'a>, ConfigError> {
    let file = options.config.clone();
    Ok(Sources::open_with_tables(
        keys::CONFIG,
        file,
        environment,
        &keys::in_file(),
        &[keys::HUBS],
    )?)
}

/// How much to log.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no level.
pub fn log_level(options: &Options, sources: &Sources<'_>) -> Result<LevelFilter, ConfigError> {
    Ok(sources.log_level(keys::LOG_LEVEL, options.log_level)?)
}

/// How a line of the log is written.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no form.
pub fn log_format(options: &Options, sources: &Sources<'_>) -> Result<LogFormat, ConfigError> {
    Ok(sources.value(
        keys::LOG_FORMAT,
        options.log_format,
        settings::choice,
        LogFormat::Text,
    )?)
}

/// Where the admin listener listens.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no such place.
pub fn admin(options: &Options, sources: &Sources<'_>) -> Result<AdminListen, ConfigError> {
    Ok(sources.value(keys::ADMIN, options.admin, str::parse, AdminListen::Off)?)
}

/// Where the running program is asked for its status.
///
/// # Errors
/// [`ConfigError::Setting`] when a layer says something that is no path.
pub fn status_place(options: &Options, sources: &Sources<'_>) -> Result<Place, ConfigError> {
    let given = options.status_socket.clone();
    Ok(sources.value(keys::STATUS_SOCKET, given, str::parse, Place::Usual)?)
}

/// Decides everything. Reads the files that hold connection strings; blocks.
///
/// # Errors
/// [`ConfigError`] names what is missing or wrong, and never repeats a secret.
pub fn resolve(cli: Cli, sources: &Sources<'_>) -> Result<Config, ConfigError> {
    let Cli {
        first,
        second,
        third,
        mut options,
        command,
    } = cli;
    if let Some(Command::Login(args)) = command {
        let words = [first.map(|_| ()), second.map(|_| ()), third.map(|_| ())];
        if words.iter().any(Option::is_some) {
            return Err(ConfigError::BeforeCommand);
        }
        let proxy_options = ProxyOptions {
            proxy: options.proxy,
            file: options.proxy_auth_file,
            no_proxy: options.no_proxy,
        };
        return Ok(Config::Login(LoginConfig {
            proxy: ProxySettings::resolve(sources, keys::OF_PROXY, proxy_options.clone())?,
            proxy_options,
            args,
            hub: options.hub,
            ca_file: sources
                .path(keys::CA_FILE, options.ca_file)?
                .map(Setting::into_value),
        }));
    }
    if let Some(Command::Status(asked)) = command {
        return Ok(Config::Status(asked));
    }
    let option = connection_string::of_options(
        (keys::CONNECTION_STRING, options.connection_string.as_ref()),
        (
            keys::CONNECTION_STRING_FILE,
            options.connection_string_file.clone(),
        ),
    )?;
    let first = first
        .map(|text| Secret::new(text_input::value(text.expose()).as_str()))
        .filter(|text| !text.expose().is_empty());
    let is_named = first.as_ref().is_some_and(connection_string::is_one);
    let look = |sources: &Sources<'_>| match &option {
        Some(found) => Ok(Some(found.clone())),
        None if is_named => Ok(None),
        None => connection_string::of_sources(
            sources,
            keys::CONNECTION_STRING,
            keys::CONNECTION_STRING_FILE,
        ),
    };
    let mut elsewhere = look(sources)?;
    let names = hubs::names(sources)?;
    let has_other = is_named || elsewhere.is_some();
    // Without any argument that is about one hub, it is about all of them.
    let is_of_all = command.is_none()
        && options.hub.is_none()
        && !names.is_empty()
        && second.is_none()
        && (first.is_none() || is_named);
    let selected = if is_of_all {
        None
    } else {
        hubs::select(options.hub.as_ref(), &names, has_other)?
    };
    let of_hub;
    let sources = match &selected {
        Some(name) => {
            of_hub = hubs::sources_of(name, sources);
            elsewhere = look(&of_hub)?;
            if elsewhere.is_none() && !is_named {
                return Err(ConfigError::NoConnectionStringOf(name.clone()));
            }
            options.hub = selected.clone();
            &of_hub
        }
        None => sources,
    };
    // With no other source it can only be meant as the connection string.
    let (positional, words) = if is_named || elsewhere.is_none() {
        (first, [second, third, None])
    } else {
        match first.map(|text| text.expose().to_owned()) {
            Some(next) => (None, [Some(next), second, third]),
            None => (None, [second, third, None]),
        }
    };
    if command.is_some() && words.iter().any(Option::is_some) {
        return Err(ConfigError::BeforeCommand);
    }
    let found = elsewhere.or_else(|| positional.as_ref().map(Found::argument));
    if is_of_all {
        let unnamed = found.map(|found| Settings::resolve(options.clone(), Some(found), sources));
        return hubs::listen_for_all(unnamed.transpose()?, &options, &names, sources);
    }
    let settings = Settings::resolve(options, found, sources)?;
    match command {
        Some(command) => settings.command(command, sources),
        None => settings.positional_form(words, sources),
    }
}

impl Settings {
    fn command(self, command: Command, sources: &Sources<'_>) -> Result<Config, ConfigError> {
        match command {
            Command::Listen { device, forwards } => {
                let forwards = forwards.into_iter().map(|spec| (spec, None)).collect();
                self.listen_here(Some(device), forwards)
            }
            Command::Connect {
                device,
                target,
                suffix,
            } => Ok(Config::Connect(ConnectConfig {
                identity: self.identity(match suffix {
                    Some(suffix) => suffix.device(device.as_str())?,
                    None => device,
                }),
                name: match target {
                    Some(target) => self.usable(target)?,
                    None => self.usable(self.default_stream()?)?,
                },
                hub: self.hub,
                session: self.session,
                // stdout is the tunnel's.
                sample_output: SampleOutput::on_stderr(self.sample_output),
            })),
            Command::Echo { device, echo } => Ok(Config::Echo(EchoConfig {
                identity: self.identity(device),
                name: match self.stream {
                    Some(name) => name,
                    None => StreamName::parse(ECHO_STREAM)?,
                },
                hub: self.hub,
                plan: plan(echo),
                sample_output: SampleOutput::on_stdout(self.sample_output),
            })),
            Command::Doctor(args) => Ok(Config::Doctor(Box::new(DoctorConfig {
                identity: args.device.clone().map(|device| self.identity(device)),
                target: args.target.clone(),
                limit: args.timeout.map_or(EXAMINED, Duration::from_secs),
                name: self.name,
                hub: self.hub,
                session: self.session,
                args,
            }))),
            Command::Socks(args) => by_name::socks(self, args, sources),
            Command::Ssh(args) => by_name::ssh(self, args),
            Command::SshConfig(args) => by_name::ssh_config(self, args, sources),
            Command::Rdp(args) => by_name::rdp(self, args),
            Command::Fleet(command) => fleet::of(self, command),
            Command::Status(asked) => Ok(Config::Status(asked)),
            // It is decided before there are settings, which it needs none of.
            Command::Login(args) => Ok(Config::Login(LoginConfig {
                args,
                proxy: self.hub.proxy,
                proxy_options: ProxyOptions::default(),
                hub: None,
                ca_file: self.hub.ca_file,
            })),
        }
    }

    /// One port as the official samples are given it, or the ports of the configuration file.
    fn positional_form(
        self,
        words: [Option<String>; 3],
        sources: &Sources<'_>,
    ) -> Result<Config, ConfigError> {
        let [device, port, rest] = words.map(|word| word.filter(|text| !text.is_empty()));
        if rest.is_some() {
            return Err(ConfigError::TooMany);
        }
        let device = match device {
            Some(device) => Some(DeviceId::parse(device.trim())?),
            None => forwards::device(sources)?,
        };
        let forwards = match port {
            Some(port) => Ok(vec![(port.trim().parse()?, None)]),
            None => forwards::given(sources),
        };
        match forwards {
            Err(ConfigError::NoPort) if device.is_none() => Err(ConfigError::NoDevice),
            forwards => self.listen_here(device, forwards?),
        }
    }

    fn listen_here(
        self,
        device: Option<DeviceId>,
        forwards: Vec<Given>,
    ) -> Result<Config, ConfigError> {
        let name = self.name.clone();
        let config = self.listen(name, device, forwards, &mut Places::default())?;
        Ok(Config::Listen(config))
    }
}

/// The echo test that is asked for.
fn plan(echo: EchoArgs) -> EchoPlan {
    if let Some(total) = echo.bytes {
        return EchoPlan::Throughput { total };
    }
    let count = echo.count.unwrap_or(PINGS);
    EchoPlan::Pings {
        count: (count > 0).then_some(count),
        payload: match echo.text {
            Some(text) => Payload::Text(text),
            None => Payload::Pattern(echo.size.unwrap_or(PING_SIZE)),
        },
        interval: echo.interval.unwrap_or(PING_INTERVAL),
    }
}
