//! The options of every command, decided: option, then environment, then configuration file, then
//! default.

use std::time::Duration;

use common::connection_string::ServiceConnectionString;
use common::identity::{DeviceId, DeviceIdentity, ModuleId, StreamName};
use common::net::proxy::{ProxyOptions, ProxySettings};
use common::session::STREAM_PREFIX;
use common::session_mode::SessionMode;
use common::settings::connection_string::Found;
use common::settings::session::{SessionConfig, SessionOptions};
use common::settings::{self, Setting, Source, Sources};
use common::wire::initiation::Timeouts;

use super::connection::ServiceConnection;
use super::{ConfigError, DEFAULT_STREAM, HubConfig, keys};
use crate::cli::{Options, handshake_seconds, wait_seconds};
use crate::hub_name::HubName;
use crate::limits;

/// How long the hub waits for the device, each time, by default: both together are what it allows.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The options of every command, decided.
pub(super) struct Settings {
    /// The name of the hub, if it has one.
    pub(super) name: Option<HubName>,
    pub(super) hub: HubConfig,
    pub(super) module: Option<ModuleId>,
    /// How long the hub waits for an offline device, if a layer says so.
    pub(super) connect_timeout: Option<Duration>,
    /// What a further service-proxy needs to reach the same hub.
    pub(super) connection: ServiceConnection,
    pub(super) stream: Option<StreamName>,
    pub(super) session: SessionConfig,
    pub(super) max_connections: usize,
    pub(super) sample_output: bool,
}

impl Settings {
    pub(super) fn resolve(
        options: Options,
        found: Option<Found>,
        sources: &Sources<'_>,
    ) -> Result<Self, ConfigError> {
        let found = found.ok_or(ConfigError::NoConnectionString)?;
        let sample_output = sources.flag(keys::SAMPLE_OUTPUT, options.sample_output)?;
        let given = SessionOptions {
            mode: options.session,
            grace: options.session_grace,
            memory: options.memory,
        };
        let connection = ServiceConnection::of(&options, &found);
        let proxy = ProxyOptions {
            proxy: options.proxy,
            file: options.proxy_auth_file,
            no_proxy: options.no_proxy,
        };
        let proxy = ProxySettings::resolve(sources, keys::OF_PROXY, proxy)?;
        let timeout = |key, given| sources.setting(key, given, handshake_seconds);
        let connect_timeout =
            timeout(keys::CONNECT_TIMEOUT, options.connect_timeout)?.map(Setting::into_value);
        let response_timeout = timeout(keys::RESPONSE_TIMEOUT, options.response_timeout)?;
        let max_connections =
            sources.setting(keys::MAX_CONNECTIONS, options.max_connections, |text| {
                settings::number(text, 1..=1_000_000)
            })?;
        Ok(Self {
            name: options.hub,
            hub: HubConfig {
                service: service(&found)?,
                connection_file: found.file,
                ca_file: sources
                    .path(keys::CA_FILE, options.ca_file.clone())?
                    .map(Setting::into_value),
                proxy,
                streaming_hosts: sources
                    .setting(
                        keys::STREAMING_HOSTS,
                        options.streaming_hosts.clone(),
                        str::parse,
                    )?
                    .map(Setting::into_value),
                timeouts: Timeouts {
                    connect: connect_timeout.unwrap_or(TIMEOUT),
                    response: response_timeout.map_or(TIMEOUT, Setting::into_value),
                },
                approval_wait: sources
                    .setting(keys::APPROVAL_WAIT, options.approval_wait, wait_seconds)?
                    .map_or(limits::APPROVAL_WAIT, Setting::into_value),
            },
            connect_timeout,
            connection,
            session: SessionConfig::resolve(sources, keys::OF_SESSION, given, sample_output)?,
            module: sources
                .setting(keys::MODULE, options.module, ModuleId::parse)?
                .map(Setting::into_value),
            stream: sources
                .setting(keys::STREAM, options.stream, StreamName::parse)?
                .map(Setting::into_value),
            max_connections: max_connections.map_or(limits::LOCAL_CONNECTIONS, |most| {
                usize::try_from(most.value).unwrap_or(usize::MAX)
            }),
            sample_output,
        })
    }

    pub(super) fn identity(&self, device: DeviceId) -> DeviceIdentity {
        DeviceIdentity {
            device,
            module: self.module.clone(),
        }
    }

    /// The name where none is given.
    pub(super) fn default_stream(&self) -> Result<StreamName, ConfigError> {
        match &self.stream {
            Some(name) => Ok(name.clone()),
            None => Ok(StreamName::parse(DEFAULT_STREAM)?),
        }
    }

    /// A name for a target that connections can be opened to in the session mode that is wanted.
    pub(super) fn usable(&self, name: StreamName) -> Result<StreamName, ConfigError> {
        if name.as_str().starts_with(STREAM_PREFIX) {
            return Err(ConfigError::Reserved(name));
        }
        if self.session.mode == SessionMode::Always
            && StreamName::parse(&format!("{STREAM_PREFIX}{name}")).is_err()
        {
            return Err(ConfigError::TooLongForSessions(name));
        }
        Ok(name)
    }
}

fn service(found: &Found) -> Result<ServiceConnectionString, ConfigError> {
    let text = found.text.expose().trim();
    // A word and nothing of a connection string: the device alone was given.
    if !text.contains(['=', ';']) && !text.is_empty() {
        return Err(ConfigError::NoConnectionString);
    }
    ServiceConnectionString::parse(text).map_err(|error| match &found.source {
        None | Some(Source::Option(_)) => error.into(),
        Some(source) => ConfigError::ConnectionStringAt(source.clone(), error),
    })
}
