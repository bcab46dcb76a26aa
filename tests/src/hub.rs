//! A hub on free ports, with its own folder, CA and registry.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use common::admin::AdminListen;
use common::connection_string::{
    DeviceConnectionString, DeviceCredential, ServiceConnectionString, ServiceCredential,
};
use common::hub_address::HubAddress;
use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use hub::config::{AccessConfig, AmqpsListen, ServeConfig};
use hub::events::audit::AuditConfig;
use hub::limits::Limits;
use hub::registry::{Authentication, IdentitySettings, IfMatch, Registry, Status};
use hub::server::Server;
use hub::state::HubState;
use hub::tls::CertificateSource;
use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::slow_link::{self, SlowLink};

/// A running hub; dropped, it stops.
pub struct TestHub {
    /// Its state, for inspection.
    pub state: HubState,
    /// Address of HTTPS for clients: the listener's, or that of the link before it.
    pub https: SocketAddr,
    /// Address of MQTT over TLS for clients: the listener's, or that of the link before it.
    pub mqtts: SocketAddr,
    /// Address where AMQP over TLS is refused.
    pub amqps: SocketAddr,
    /// Address of metrics and health checks.
    pub admin: SocketAddr,
    folder: Arc<TempDir>,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

/// The links before a hub.
pub struct Links {
    /// Before its HTTPS listener, which also serves the streams.
    pub https: SlowLink,
    /// Before its listener for MQTT over TLS.
    pub mqtts: SlowLink,
}

/// An identity from `device` or `device/module`.
pub fn identity(text: &str) -> DeviceIdentity {
    match text.split_once('/') {
        None => DeviceIdentity::of_device(DeviceId::parse(text).unwrap()),
        Some((device, module)) => DeviceIdentity::of_module(
            DeviceId::parse(device).unwrap(),
            ModuleId::parse(module).unwrap(),
        ),
    }
}

impl TestHub {
    /// Starts a hub that is known as `localhost`.
    pub async fn start() -> Self {
        Self::start_with(Limits::default()).await
    }

    /// As [`TestHub::start`], with limits other than the defaults.
    pub async fn start_with(limits: Limits) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        Self::start_limited(folder, "localhost", limits).await
    }

    /// The name of [`TestHub::start_hidden`].
    pub const HIDDEN: &str = "hub.invalid";

    /// Starts a hub of a name that no resolver knows: only a [`ForwardProxy`](crate::ForwardProxy)
    /// leads to it.
    pub async fn start_hidden() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), Self::HIDDEN).await
    }

    /// Starts a hub that is reached only through links: one for MQTT over TLS, the other for MQTT
    /// over WebSocket, the service's requests and both legs of the streams.
    pub async fn start_behind(settings: slow_link::Settings) -> (Self, Links) {
        let links = Links {
            https: SlowLink::start(None, settings).await,
            mqtts: SlowLink::start(None, settings).await,
        };
        let mut hub = Self::start_in(
            Arc::new(tempfile::tempdir().unwrap()),
            &format!("localhost:{}", links.https.address.port()),
        )
        .await;
        links.https.lead_to(hub.https);
        links.mqtts.lead_to(hub.mqtts);
        hub.https = links.https.address;
        hub.mqtts = links.mqtts.address;
        (hub, links)
    }

    async fn start_in(folder: Arc<TempDir>, address: &str) -> Self {
        Self::start_limited(folder, address, Limits::default()).await
    }

    async fn start_limited(folder: Arc<TempDir>, address: &str, limits: Limits) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(ServeConfig {
            data_dir: folder.path().join("hub-data"),
            hostname: Some(HubAddress::parse(address).unwrap()),
            https: any,
            mqtts: Some(any),
            amqps: AmqpsListen::At(any),
            admin: AdminListen::Here(any),
            certificate: CertificateSource::Managed,
            limits,
            access: AccessConfig::default(),
            audit: AuditConfig::default(),
        })
        .await
        .unwrap();
        let stop = CancellationToken::new();
        Self {
            state: server.state().clone(),
            https: server.https_address().unwrap(),
            mqtts: server.mqtts_address().unwrap().unwrap(),
            amqps: server.amqps_address().unwrap().unwrap(),
            admin: server.admin_address().unwrap().unwrap(),
            folder,
            running: Some(tokio::spawn(server.run(stop.clone()))),
            stop,
        }
    }

    /// Stops the hub and starts one in the same folder, on other ports.
    pub async fn restart(self) -> Self {
        let folder = Arc::clone(&self.folder);
        self.shut_down().await;
        Self::start_in(folder, "localhost").await
    }

    /// The same with limits other than the defaults.
    pub async fn restart_with(self, limits: Limits) -> Self {
        let folder = Arc::clone(&self.folder);
        self.shut_down().await;
        Self::start_limited(folder, "localhost", limits).await
    }

    /// As [`TestHub::restart`], for a hub behind links: its name and addresses stay the same.
    pub async fn restart_behind(self, links: &Links) -> Self {
        let folder = Arc::clone(&self.folder);
        let address = self.state.address.to_string();
        self.shut_down().await;
        let mut hub = Self::start_in(folder, &address).await;
        links.https.lead_to(hub.https);
        links.mqtts.lead_to(hub.mqtts);
        hub.https = links.https.address;
        hub.mqtts = links.mqtts.address;
        hub
    }

    /// Tells the hub to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Stops the hub and waits for its end.
    pub async fn shut_down(mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            crate::soon("the hub's end", running).await.unwrap();
        }
    }

    /// What its admin listener answers at this path: the status, and the body.
    pub async fn ask(&self, path: &str) -> (u16, String) {
        crate::admin::ask(self.admin, path).await
    }

    /// Its metrics, in Prometheus form.
    pub async fn metrics(&self) -> String {
        let (status, text) = self.ask("/metrics").await;
        assert_eq!(status, 200, "{text}");
        text
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("hub-data")
    }

    /// The CA's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.data_dir().join("tls/ca.pem")
    }

    /// TLS that trusts this hub.
    pub fn tls(&self) -> Arc<ClientConfig> {
        common::tls::client_config(Some(&self.ca_file()), None).unwrap()
    }

    /// Registers a device, or a module on a registered device.
    pub async fn create(&self, id: &str) -> DeviceConnectionString {
        self.create_with(id, Authentication::random_keys()).await
    }

    /// Registers an identity with this authentication.
    pub async fn create_with(
        &self,
        id: &str,
        authentication: Authentication,
    ) -> DeviceConnectionString {
        let settings = IdentitySettings::new(authentication);
        let made = self
            .state
            .registry
            .create(&identity(id), settings)
            .await
            .unwrap();
        DeviceConnectionString {
            host: self.state.address.clone(),
            identity: made.id,
            credential: match made.authentication {
                Authentication::Sas { primary, .. } => DeviceCredential::Key {
                    key: primary,
                    policy: None,
                },
                _ => DeviceCredential::X509,
            },
            gateway: None,
        }
    }

    /// Enables or disables a device.
    pub async fn set_status(&self, id: &str, status: Status) {
        let id = identity(id);
        let found = self.state.registry.identity(&id).await.unwrap().unwrap();
        let settings = IdentitySettings {
            status,
            ..found.settings()
        };
        let registry: &dyn Registry = &*self.state.registry;
        registry.update(&id, settings, IfMatch::Any).await.unwrap();
    }

    /// Deletes a device or module.
    pub async fn delete(&self, id: &str) {
        let registry: &dyn Registry = &*self.state.registry;
        registry.delete(&identity(id), IfMatch::Any).await.unwrap();
    }

    /// The connection string of a policy.
    pub async fn policy(&self, name: &str) -> ServiceConnectionString {
        let policy = self.state.registry.policy(name).await.unwrap().unwrap();
        ServiceConnectionString {
            host: self.state.address.clone(),
            policy: policy.name,
            credential: ServiceCredential::Key(policy.primary),
        }
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
