//! The three programs, configured to work together.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use common::admin::AdminListen;
use common::connection_string::{
    DeviceConnectionString, DeviceCredential, ServiceConnectionString, ServiceCredential,
};
use common::hub_address::HubAddress;
use common::identity::{DeviceId, DeviceIdentity, IdentityError, StreamName};
use common::net::Dialer;
use common::net::proxy::ProxySettings;
use common::settings::session::SessionConfig;
use common::tls::{self, TlsConfigError};
use common::wire::initiation::Timeouts;
use device_proxy::config::Config as DeviceConfig;
use device_proxy::hub_session::Fatal;
use device_proxy::target::{TargetError, Targets};
use device_proxy::transport::Transport;
use hub::config::{AccessConfig, AmqpsListen, ServeConfig};
use hub::events::audit::AuditConfig;
use hub::limits::Limits;
use hub::registry::{Authentication, IdentitySettings, RegistryError};
use hub::server::{ServeError, Server};
use hub::tls::CertificateSource;
use service_proxy::config::{HubConfig, HubForwards, ListenConfig};
use service_proxy::echo::EchoFailure;
use service_proxy::forward::{Bind, Forward, Local, Place};
use service_proxy::local::listener::{ListenError, Listener};
use service_proxy::sample_output::SampleOutput;
use service_proxy::stream::{SetupError, StreamError, StreamOpener};
use tokio::task::JoinError;

/// The usual port of a self-hosted hub that runs without privileges.
const HTTPS_PORT: u16 = 8443;

/// Why the quickstart could not continue.
#[derive(Debug, thiserror::Error)]
pub enum QuickstartError {
    /// The hub.
    #[error("the hub cannot start")]
    Hub(#[from] ServeError),
    /// Its registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry is not as a hub makes it.
    #[error("the built-in shared access policy {0} is missing in this data folder")]
    NoPolicy(&'static str),
    /// The registered device cannot be used.
    #[error(
        "the device {0} in this data folder has no key; name another with --device, or another folder with --data-dir"
    )]
    NoKey(DeviceIdentity),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A name.
    #[error(transparent)]
    Name(#[from] IdentityError),
    /// The local port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The service side.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The echo test's stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The echo test.
    #[error("the echo test failed")]
    Echo(#[from] EchoFailure),
    /// The device-proxy.
    #[error("the device-proxy ended")]
    Device(#[from] Fatal),
    /// A part of the program.
    #[error("a part of the program ended")]
    Part(#[from] JoinError),
}

/// A hub on loopback: on the usual ports, or on free ones where those are taken.
///
/// The future may be dropped: only files in the folder remain.
pub async fn hub(data_dir: &Path) -> Result<Server, QuickstartError> {
    let bind = async |https: u16, mqtts: u16| {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Server::bind(ServeConfig {
            data_dir: data_dir.to_owned(),
            hostname: HubAddress::parse("localhost").ok(),
            https: loopback(https),
            mqtts: Some(loopback(mqtts)),
            admin: AdminListen::Off,
            amqps: AmqpsListen::Off,
            certificate: CertificateSource::Managed,
            limits: Limits::default(),
            access: AccessConfig::default(),
            audit: AuditConfig::default(),
        })
        .await
    };
    match bind(HTTPS_PORT, common::hub_address::MQTTS_PORT).await {
        Err(ServeError::Bind { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
            Ok(bind(0, 0).await?)
        }
        other => Ok(other?),
    }
}

/// The address of the hub's MQTT listener, for display.
pub fn mqtts(server: &Server) -> String {
    match server.mqtts_address() {
        Ok(Some(address)) => address.to_string(),
        _ => "no port".to_owned(),
    }
}

/// The hub's CA.
pub fn ca_file(server: &Server) -> PathBuf {
    server.data_dir().path().join("tls").join("ca.pem")
}

/// The device, registered if it is not.
///
/// The future may be dropped: the device may be registered then, and the next call finds it.
pub async fn device(
    server: &Server,
    id: &DeviceId,
) -> Result<DeviceConnectionString, QuickstartError> {
    let registry = &server.state().registry;
    let id = DeviceIdentity::of_device(id.clone());
    let identity = match registry.identity(&id).await? {
        Some(identity) => identity,
        None => {
            let settings = IdentitySettings::new(Authentication::random_keys());
            registry.create(&id, settings).await?
        }
    };
    let Authentication::Sas { primary, .. } = identity.authentication else {
        return Err(QuickstartError::NoKey(id));
    };
    Ok(DeviceConnectionString {
        host: server.address().clone(),
        identity: id,
        credential: DeviceCredential::Key {
            key: primary,
            policy: None,
        },
        gateway: None,
    })
}

/// The service's connection string.
///
/// The future may be dropped: it only reads.
pub async fn service(server: &Server) -> Result<ServiceConnectionString, QuickstartError> {
    let name = "service";
    let policy = server.state().registry.policy(name).await?;
    let policy = policy.ok_or(QuickstartError::NoPolicy(name))?;
    Ok(ServiceConnectionString {
        host: server.address().clone(),
        policy: policy.name,
        credential: ServiceCredential::Key(policy.primary),
    })
}

/// The configuration of a device-proxy with the echo target, and with `target` if it is given.
pub fn device_config(
    connection: DeviceConnectionString,
    ca_file: &Path,
    target: Option<&str>,
) -> Result<DeviceConfig, QuickstartError> {
    let targets: Vec<String> = target.map(str::to_owned).into_iter().collect();
    Ok(DeviceConfig {
        connection,
        connection_file: None,
        targets: Targets::parse(&targets, true)?,
        transport: Transport::MqttWs,
        session: SessionConfig::default(),
        mqtts_port: common::hub_address::MQTTS_PORT,
        dialer: Dialer::new(&tls::client_config(Some(ca_file), None)?),
        tls_files: vec![ca_file.to_owned()],
        ca_file: Some(ca_file.to_owned()),
        certificate_file: None,
        key_file: None,
        proxy: ProxySettings::default(),
        streaming_hosts: None,
        max_streams: device_proxy::limits::STREAMS_PER_DEVICE,
        allowed: device_proxy::policy::Allowed::default(),
        addresses: device_proxy::policy::Addresses::default(),
        rules: device_proxy::policy::Rules::default(),
        limits: device_proxy::policy::Limits::default(),
        report_connections: Default::default(),
        sample_output: false,
    })
}

fn hub_config(service: &ServiceConnectionString, ca_file: &Path) -> HubConfig {
    let limit = std::time::Duration::from_secs(30);
    HubConfig {
        service: service.clone(),
        connection_file: None,
        ca_file: Some(ca_file.to_owned()),
        proxy: ProxySettings::default(),
        streaming_hosts: None,
        approval_wait: service_proxy::limits::APPROVAL_WAIT,
        timeouts: Timeouts {
            connect: limit,
            response: limit,
        },
    }
}

/// A listener on the given local port, or on a free one where that is taken.
///
/// The future may be dropped: the ports are then free again.
pub async fn listener(
    service: &ServiceConnectionString,
    ca_file: &Path,
    identity: &DeviceIdentity,
    name: StreamName,
    port: u16,
) -> Result<Listener, QuickstartError> {
    let bind = async |port: u16| {
        Listener::bind(ListenConfig {
            hubs: vec![HubForwards {
                name: None,
                hub: hub_config(service, ca_file),
                forwards: vec![Forward {
                    identity: identity.clone(),
                    local: Local::Port(Place {
                        bind: Bind::Loopback,
                        port,
                    }),
                    name: name.clone(),
                }],
            }],
            session: SessionConfig::default(),
            max_connections: service_proxy::limits::LOCAL_CONNECTIONS,
            sample_output: SampleOutput::Off,
        })
        .await
    };
    match bind(port).await {
        Err(ListenError::Bind(error)) if port != 0 => {
            say!("service-proxy  {error}; taking a free port instead");
            Ok(bind(0).await?)
        }
        other => Ok(other?),
    }
}

/// Opens single streams, for the echo test.
pub fn opener(
    service: &ServiceConnectionString,
    ca_file: &Path,
) -> Result<StreamOpener, QuickstartError> {
    Ok(StreamOpener::new(
        &hub_config(service, ca_file),
        SampleOutput::Off,
    )?)
}

/// A stream's name.
pub fn name(text: &str) -> Result<StreamName, QuickstartError> {
    Ok(StreamName::parse(text)?)
}

/// The result of a device-proxy that ended by itself.
pub fn ended_early(ended: Result<Result<(), Fatal>, JoinError>) -> Result<(), QuickstartError> {
    Ok(ended??)
}
