//! From the command line and the environment to what they mean:
//! every value decided, every mistake named. Option, then positional argument, then
//! environment; a first argument without `HostName=` is the next argument when the
//! connection string comes from elsewhere; an empty variable is none.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use common::connection_string::{ConnectionStringError, ServiceConnectionString};
use common::identity::{DeviceId, DeviceIdentity, IdentityError, StreamName};
use common::limits;
use common::secret::Secret;
use common::session::STREAM_PREFIX;
use common::session_mode::SessionMode;
use common::streaming_hosts::{PatternError, Patterns};
use common::text_input::{self, TextError};
use common::wire::initiation::Timeouts;
use tracing::level_filters::LevelFilter;

use crate::cli::{Cli, Command, Options};
use crate::echo_plan::EchoPlan;
use crate::forward::{Forward, ForwardError, ForwardSpec};
use crate::sample_output::SampleOutput;

/// The stream name of the official samples.
pub const DEFAULT_STREAM: &str = "TestStream";
/// The stream name of echo tests, which device-proxy's built-in echo target has.
pub const ECHO_STREAM: &str = "echo";

const CONNECTION_STRING: &str = "IOTHUB_CONNECTION_STRING";
const DEVICE: [&str; 2] = ["STREAMING_TARGET_DEVICE", "DEVICE_ID"];
const PORT: [&str; 2] = ["PROXY_PORT", "LOCAL_PORT"];
const CA_FILE: &str = "SERVICE_PROXY_CA_FILE";
const STREAMING_HOSTS: &str = "SERVICE_PROXY_STREAMING_HOSTS";
const LOG: &str = "SERVICE_PROXY_LOG";

/// How to reach a hub as a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// The hub, and who we are there.
    pub service: ServiceConnectionString,
    /// The file that the connection string came from, to read it again.
    pub connection_file: Option<PathBuf>,
    /// A CA in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Where streams may lead instead of what the hub's name allows.
    pub streaming_hosts: Option<Patterns>,
    /// How long the hub waits for the device.
    pub timeouts: Timeouts,
}

/// How connections get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// In sessions, or in plain streams.
    pub mode: SessionMode,
    /// How long a session is kept while no stream carries it.
    pub grace: Duration,
    /// Bytes that all sessions may hold in memory.
    pub memory: u64,
}

impl SessionConfig {
    fn new(options: &Options) -> Self {
        Self {
            // The samples' lines tell of plain streams.
            mode: if options.sample_output {
                SessionMode::Never
            } else {
                options.session
            },
            memory: common::session::memory::limit(options.memory),
            // Far beyond the life of a process is as good as for ever.
            grace: Duration::from_secs(options.session_grace.min(100 * 365 * 24 * 3600)),
        }
    }
}

/// Listening on local ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenConfig {
    /// The hub.
    pub hub: HubConfig,
    /// The device, or a module of it.
    pub identity: DeviceIdentity,
    /// The ports, and the stream name behind each.
    pub forwards: Vec<Forward>,
    /// How connections get through.
    pub session: SessionConfig,
    /// Connections at once, over all ports; more wait.
    pub max_connections: usize,
    /// Whether and where to print the official samples' lines.
    pub sample_output: SampleOutput,
}

/// One stream on stdin and stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectConfig {
    /// The hub.
    pub hub: HubConfig,
    /// The device, or a module of it.
    pub identity: DeviceIdentity,
    /// The stream's name.
    pub name: StreamName,
    /// How the connection gets through.
    pub session: SessionConfig,
    /// Whether and where to print the official samples' lines.
    pub sample_output: SampleOutput,
}

/// An echo test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchoConfig {
    /// The hub.
    pub hub: HubConfig,
    /// The device, or a module of it.
    pub identity: DeviceIdentity,
    /// The stream's name.
    pub name: StreamName,
    /// What to send.
    pub plan: EchoPlan,
    /// Whether and where to print the official samples' lines.
    pub sample_output: SampleOutput,
}

/// What the program is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Config {
    /// Listen on local ports.
    Listen(ListenConfig),
    /// Carry one stream on stdin and stdout.
    Connect(ConnectConfig),
    /// Test a stream.
    Echo(EchoConfig),
}

/// Why the command line and the environment do not say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No connection string anywhere.
    #[error(
        "no connection string: give --connection-string-file FILE or set {CONNECTION_STRING}; `stream-hub policy connection-string service` prints one"
    )]
    NoConnectionString,
    /// The connection string is none.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// The connection string's file cannot be read.
    #[error("cannot read the connection string from {}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TextError,
    },
    /// A variable holds something that is not text.
    #[error("the environment variable {0} is not UTF-8 text")]
    NotText(&'static str),
    /// No device anywhere.
    #[error(
        "no device: give DEVICE_ID behind the connection string, or set STREAMING_TARGET_DEVICE"
    )]
    NoDevice,
    /// The device's id is none.
    #[error(transparent)]
    Device(#[from] IdentityError),
    /// No port anywhere.
    #[error("no local port: give LOCAL_PORT behind the device, or set PROXY_PORT")]
    NoPort,
    /// The port is none.
    #[error(transparent)]
    Port(#[from] ForwardError),
    /// More arguments than there are things to say.
    #[error(
        "one argument too many: the connection string comes from elsewhere, so DEVICE_ID and LOCAL_PORT are all"
    )]
    TooMany,
    /// Something else than a connection string before a command.
    #[error(
        "only the connection string may stand before a command; write `--` before a device called echo, listen or connect"
    )]
    BeforeCommand,
    /// The name is one of ours.
    #[error(
        "a target's name may not begin with {STREAM_PREFIX} as {0} does: streams of session mode do"
    )]
    Reserved(StreamName),
    /// The name leaves no room for session mode's own.
    #[error(
        "{0} is too long a name for session mode, which has {length} characters for one: give a shorter one, or --session auto",
        length = limits::ID_LENGTH - STREAM_PREFIX.len()
    )]
    TooLongForSessions(StreamName),
    /// The hosts are none.
    #[error("the environment variable {STREAMING_HOSTS} cannot be used")]
    StreamingHosts(#[source] PatternError),
    /// The log level is none.
    #[error("{LOG} is not a log level: off, error, warn, info, debug or trace")]
    LogLevel,
}

/// Where environment variables come from: the process, or a test's table.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn variable(
    environment: Environment<'_>,
    name: &'static str,
) -> Result<Option<String>, ConfigError> {
    let text = environment(name)
        .filter(|value| !value.is_empty())
        .map(|value| value.into_string().map_err(|_| ConfigError::NotText(name)))
        .transpose()?;
    Ok(text
        .and_then(|text| text_input::variable(&text))
        .map(|value| value.to_string()))
}

/// The first of several variables that is set.
fn any_variable(
    environment: Environment<'_>,
    names: [&'static str; 2],
) -> Result<Option<String>, ConfigError> {
    for name in names {
        if let Some(value) = variable(environment, name)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// How much to log.
///
/// # Errors
/// [`ConfigError`] when the environment says something that is no level.
pub fn log_level(
    options: &Options,
    environment: Environment<'_>,
) -> Result<LevelFilter, ConfigError> {
    match (options.log_level, variable(environment, LOG)?) {
        (Some(level), _) => Ok(level),
        (None, Some(text)) => text.trim().parse().map_err(|_| ConfigError::LogLevel),
        (None, None) => Ok(LevelFilter::INFO),
    }
}

/// Decides everything.
///
/// # Errors
/// [`ConfigError`] names what is missing or wrong, and never repeats a secret.
pub fn resolve(cli: Cli, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let Cli {
        first,
        second,
        third,
        options,
        command,
    } = cli;
    let elsewhere = from_option(&options)?;
    let set = variable(environment, CONNECTION_STRING)?.map(Secret::new);
    let first = first
        .map(|text| Secret::new(text_input::value(text.expose()).as_str()))
        .filter(|text| !text.expose().is_empty());
    let is_first = first.as_ref().is_some_and(is_connection_string)
        // With no other source it can only be meant as the connection string.
        || (elsewhere.is_none() && set.is_none());
    let (positional, words) = if is_first {
        (first, [second, third, None])
    } else {
        let next = first.map(|text| text.expose().to_owned());
        match next {
            Some(next) => (None, [Some(next), second, third]),
            None => (None, [second, third, None]),
        }
    };
    if command.is_some() && words.iter().any(Option::is_some) {
        return Err(ConfigError::BeforeCommand);
    }
    let service = match elsewhere.or(positional).or(set) {
        None => return Err(ConfigError::NoConnectionString),
        // A word and nothing of a connection string: the device alone was given.
        Some(text) if !text.expose().contains(['=', ';']) && !text.expose().trim().is_empty() => {
            return Err(ConfigError::NoConnectionString);
        }
        Some(text) => ServiceConnectionString::parse(text.expose().trim())?,
    };
    let hub = HubConfig {
        service,
        connection_file: options
            .connection_string_file
            .clone()
            .filter(|_| options.connection_string.is_none()),
        ca_file: options.ca_file.clone().or_else(|| {
            environment(CA_FILE)
                .filter(|path| !path.to_string_lossy().trim().is_empty())
                .map(PathBuf::from)
        }),
        streaming_hosts: match &options.streaming_hosts {
            Some(patterns) => Some(patterns.clone()),
            None => variable(environment, STREAMING_HOSTS)?
                .map(|text| text.parse().map_err(ConfigError::StreamingHosts))
                .transpose()?,
        },
        timeouts: Timeouts {
            connect: options.connect_timeout,
            response: options.response_timeout,
        },
    };
    match command {
        Some(command) => of_command(command, hub, &options),
        None => positional_form(words, hub, &options, environment),
    }
}

fn from_option(options: &Options) -> Result<Option<Secret>, ConfigError> {
    match (&options.connection_string, &options.connection_string_file) {
        (Some(text), _) => Ok(Some(Secret::new(text_input::value(text.expose()).as_str()))),
        (None, Some(path)) => match text_input::read(path) {
            Ok(text) => Ok(Some(Secret::new(text_input::value(&text).as_str()))),
            Err(source) => Err(ConfigError::File {
                path: path.clone(),
                source,
            }),
        },
        (None, None) => Ok(None),
    }
}

fn is_connection_string(text: &Secret) -> bool {
    text.expose().to_ascii_lowercase().contains("hostname=")
}

fn of_command(command: Command, hub: HubConfig, options: &Options) -> Result<Config, ConfigError> {
    let default = StreamName::parse(DEFAULT_STREAM)?;
    let default = options.stream.clone().unwrap_or(default);
    let identity = |device| DeviceIdentity {
        device,
        module: options.module.clone(),
    };
    Ok(match command {
        Command::Listen { device, forwards } => Config::Listen(ListenConfig {
            hub,
            identity: identity(device),
            forwards: forwards
                .into_iter()
                .map(|spec| forward(spec, &default, options))
                .collect::<Result<_, _>>()?,
            session: SessionConfig::new(options),
            max_connections: max_connections(options),
            sample_output: SampleOutput::on_stdout(options.sample_output),
        }),
        Command::Connect { device, target } => Config::Connect(ConnectConfig {
            hub,
            identity: identity(device),
            name: usable(target.unwrap_or(default), options)?,
            session: SessionConfig::new(options),
            // stdout is the tunnel's.
            sample_output: SampleOutput::on_stderr(options.sample_output),
        }),
        Command::Echo { device, echo } => Config::Echo(EchoConfig {
            hub,
            identity: identity(device),
            name: match &options.stream {
                Some(name) => name.clone(),
                None => StreamName::parse(ECHO_STREAM)?,
            },
            plan: echo.into_plan(),
            sample_output: SampleOutput::on_stdout(options.sample_output),
        }),
    })
}

fn positional_form(
    words: [Option<String>; 3],
    hub: HubConfig,
    options: &Options,
    environment: Environment<'_>,
) -> Result<Config, ConfigError> {
    let [device, port, rest] = words.map(|word| word.filter(|text| !text.is_empty()));
    if rest.is_some() {
        return Err(ConfigError::TooMany);
    }
    let device = match device {
        Some(device) => device,
        None => any_variable(environment, DEVICE)?.ok_or(ConfigError::NoDevice)?,
    };
    let device = DeviceId::parse(device.trim())?;
    let port = match port {
        Some(port) => port,
        None => any_variable(environment, PORT)?.ok_or(ConfigError::NoPort)?,
    };
    let spec: ForwardSpec = port.trim().parse()?;
    let command = Command::Listen {
        device,
        forwards: vec![spec],
    };
    of_command(command, hub, options)
}

fn forward(
    spec: ForwardSpec,
    default: &StreamName,
    options: &Options,
) -> Result<Forward, ConfigError> {
    Ok(Forward {
        bind: spec.bind,
        port: spec.port,
        name: usable(spec.target.unwrap_or_else(|| default.clone()), options)?,
    })
}

/// A name for a target that connections can be opened to as the options say.
fn usable(name: StreamName, options: &Options) -> Result<StreamName, ConfigError> {
    if name.as_str().starts_with(STREAM_PREFIX) {
        return Err(ConfigError::Reserved(name));
    }
    if options.session == SessionMode::Always
        && !options.sample_output
        && StreamName::parse(&format!("{STREAM_PREFIX}{name}")).is_err()
    {
        return Err(ConfigError::TooLongForSessions(name));
    }
    Ok(name)
}

fn max_connections(options: &Options) -> usize {
    usize::try_from(options.max_connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
