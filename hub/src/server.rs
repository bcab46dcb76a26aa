//! A hub from its configuration to its end: build, bind, serve, drain.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::admin::{Admin, AdminError};
use common::hub_address::{HTTPS_PORT, HubAddress};
use common::optional::or_never;
use common::permits::Permits;
use common::service_manager::{self, Watchdog};
use common::tls::TlsConfigError;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity;
use crate::admission::Strangers;
use crate::approvals::{self, Webhook, WebhookError};
use crate::config::{AmqpsListen, ServeConfig};
use crate::data_dir::{DataDir, DataDirError, ServeLock};
use crate::events::audit::{Audit, AuditError};
use crate::events::{self, Counts, Event, Events, Fault};
use crate::follow::{Followed, Followers, follow};
use crate::inherited::Inherited;
use crate::jobs;
use crate::limits;
use crate::listeners::{self, AmqpListener, HttpListener, Listening, MqttListener, ServerTls};
use crate::noted;
use crate::observed::Observed;
use crate::oidc::Provider;
use crate::registry::RegistryError;
use crate::registry::SqliteRegistry;
use crate::revocation;
use crate::state::HubState;
use crate::tls::{Certificate, CertificateError};
use crate::usage;

/// The most that is waited at the end for what devices have written.
const SETTLE: Duration = Duration::from_secs(5);

/// Why a hub could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder is not usable.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The registry is not usable.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The certificate is not usable.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The webhook's files are not usable.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// The files of TLS are not usable.
    #[error(transparent)]
    TlsFiles(#[from] TlsConfigError),
    /// The audit log is not usable.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// TLS is not usable.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The admin listener cannot be bound.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A port cannot be bound.
    #[error("cannot listen on {address}{}", advice(source, option))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The option that chooses another place.
        option: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl ServeError {
    /// Whether what was given is at fault, and not the world: exit code 2, else 1.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::DataDir(error) => error.is_usage(),
            Self::Certificate(error) => error.is_usage(),
            Self::TlsFiles(_) | Self::Webhook(_) => true,
            Self::Audit(AuditError::File { .. }) => true,
            _ => false,
        }
    }
}

/// What to do about it, if that is known.
fn advice(error: &io::Error, option: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(": another program listens there; stop it or choose another port with {option}")
        }
        io::ErrorKind::PermissionDenied => format!(
            ": ports below 1024 need privileges; run as root, grant CAP_NET_BIND_SERVICE, or choose another port with {option}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!(": this machine does not have the address; choose another with {option}")
        }
        _ => String::new(),
    }
}

/// What all legs and device sessions have for their goodbyes, once the streams are drained.
const GOODBYES: Duration = limits::DRAIN;

/// A hub that is bound and ready to run.
pub struct Server {
    state: HubState,
    /// Who is told of approvals.
    webhook: Option<Webhook>,
    data_dir: DataDir,
    /// Held as long as the folder is in use.
    _lock: ServeLock,
    certificate: Certificate,
    https: TcpListener,
    mqtts: Option<TcpListener>,
    amqps: Option<TcpListener>,
    admin: Option<Admin>,
    https_tls: ServerTls,
    /// Of MQTT and of AMQP.
    mqtts_tls: ServerTls,
}

impl Server {
    /// Opens the data folder, makes what is missing in it, and binds the listeners.
    ///
    /// Dropped, it leaves what it has made in the data folder, and no port bound.
    ///
    /// # Errors
    /// [`ServeError`] says what is in the way, and what to do about it.
    pub async fn bind(config: ServeConfig) -> Result<Self, ServeError> {
        let data_dir = DataDir::open(&config.data_dir)?;
        let lock = data_dir.lock()?;
        let counts = Counts::default();
        let audit = Audit::open(&config.audit, data_dir.path(), &counts)?;
        let events = Events::new(audit, counts);
        let registry = SqliteRegistry::open(&data_dir)?.reporting_to(&events);
        let mut inherited = Inherited::of_process();
        let mut bind = |address, option| match inherited.take(address) {
            Some(listener) => Ok(listener),
            None => bind(address, option),
        };
        let https = bind(config.https, "--https")?;
        let mqtts = config.mqtts.map(|at| bind(at, "--mqtts")).transpose()?;
        let amqps = match config.amqps {
            AmqpsListen::At(at) => Some(bind(at, "--amqps")?),
            AmqpsListen::IfFree(at) => bind(at, "--amqps").ok(),
            AmqpsListen::Off => None,
        };
        let admin = Admin::bind(config.admin).await?;
        let address = config.advertised(&data_dir.address()?, local_address(&https)?.port());
        let certificate =
            Certificate::load(config.certificate, data_dir.tls()?, address.name(), &events)?;
        data_dir.store_address(&address)?;
        let https_tls = match certificate.challenges() {
            Some(challenges) => {
                let (host, port) = (address.name(), local_address(&https)?.port());
                if port != HTTPS_PORT {
                    events.emit(Event::Acme(events::Acme::OtherPort { host, port }));
                }
                ServerTls::with_challenges(challenges, &[b"http/1.1"], &events)?
            }
            None => ServerTls::new(certificate.slot(), &[b"http/1.1"], &events)?,
        };
        let webhook = config
            .access
            .webhook
            .as_ref()
            .map(Webhook::new)
            .transpose()?;
        let provider = config.access.oidc.map(Provider::new).transpose()?;
        let state = HubState::new(address, Arc::new(registry), config.limits, events)
            .with_certificate(certificate.slot())
            .with_provider(provider);
        state
            .access
            .set(config.access.rules.map(|(_, rules)| rules));
        // No device is to be refused because its CA is not known yet.
        state
            .auth
            .authorities()
            .read(&*state.registry, &state.events)
            .await?;
        Ok(Self {
            https_tls,
            mqtts_tls: ServerTls::new(certificate.slot(), &[], &state.events)?,
            state,
            webhook,
            data_dir,
            _lock: lock,
            certificate,
            https,
            mqtts,
            amqps,
            admin,
        })
    }

    /// The advertised address.
    pub fn address(&self) -> &HubAddress {
        &self.state.address
    }

    /// Where HTTPS listens.
    ///
    /// # Errors
    /// The system's.
    pub fn https_address(&self) -> io::Result<SocketAddr> {
        self.https.local_addr()
    }

    /// Where MQTT over TLS listens, if it does.
    ///
    /// # Errors
    /// The system's.
    pub fn mqtts_address(&self) -> io::Result<Option<SocketAddr>> {
        self.mqtts.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Where AMQP over TLS is refused, if it is.
    ///
    /// # Errors
    /// The system's.
    pub fn amqps_address(&self) -> io::Result<Option<SocketAddr>> {
        self.amqps.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Where metrics and health checks are answered, if they are.
    ///
    /// # Errors
    /// The system's.
    pub fn admin_address(&self) -> io::Result<Option<SocketAddr>> {
        self.admin.as_ref().map(Admin::address).transpose()
    }

    /// One readable line per listener, then `ready`: for stderr.
    pub fn announcement(&self) -> String {
        let mut text = String::new();
        if let Ok(address) = self.https_address() {
            text += &format!(
                "https: listening on {address}, known as {}\n",
                self.address()
            );
        }
        match self.mqtts_address() {
            Ok(Some(address)) => {
                text += &format!(
                    "mqtts: listening on {address}, known as {}\n",
                    self.address().name()
                );
            }
            _ => text += "mqtts: off\n",
        }
        if let Ok(Some(address)) = self.admin_address() {
            text += &format!("admin: metrics and health checks are at http://{address}\n");
        }
        text + "ready\n"
    }

    fn report_listeners(&self) {
        let started = |protocol, address: io::Result<SocketAddr>| {
            if let Ok(address) = address {
                self.state
                    .events
                    .emit(Event::ListenerStarted { protocol, address });
            }
        };
        started("HTTPS", self.https_address());
        if let Some(listener) = &self.mqtts {
            started("MQTT over TLS", listener.local_addr());
        }
    }

    /// The hub's handles, for programs that run it inside.
    pub fn state(&self) -> &HubState {
        &self.state
    }

    /// The data folder.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Serves until `stop` is cancelled, then drains: open streams have [`Limits::drain`] to end
    /// by themselves, and goodbyes [`GOODBYES`] after that. Dropped, it breaks everything off.
    ///
    /// [`Limits::drain`]: crate::limits::Limits::drain
    pub async fn run(self, stop: CancellationToken) {
        self.run_following(None, stop).await;
    }

    /// The same, with a configuration that is followed while it runs.
    pub async fn run_following(self, mut followed: Option<Followed>, stop: CancellationToken) {
        if let Some(followed) = &mut followed {
            followed.reloads.arm();
        }
        let limits = self.state.limits.now();
        let events = self.state.events.clone();
        let tasks = TaskTracker::new();
        let stop_listening = CancellationToken::new();
        let stop_requests = CancellationToken::new();
        let stop_sessions = CancellationToken::new();
        self.report_listeners();
        service_manager::ready();
        // Shared by their connections, which live long.
        let http = Arc::new(HttpListener {
            state: self.state.clone(),
            tls: self.https_tls,
            tasks: tasks.clone(),
            stop: stop_requests.clone(),
            stop_sessions: stop_sessions.clone(),
        });
        let strangers = Strangers::new(&limits);
        let listening = Listening {
            strangers: strangers.clone(),
            events: events.clone(),
            stop: stop_listening.clone(),
            tasks: tasks.clone(),
        };
        let most = listeners::most(limits.connections);
        // What is refused on AMQP's port takes from MQTT's half.
        let [http_permits, mqtt_permits] = [Permits::new(most), Permits::new(most)];
        tasks.spawn(listeners::run(
            ("https", self.https),
            Arc::clone(&http_permits),
            listening.clone(),
            Some(Watchdog::new()),
            move |socket, peer, permit, place| Arc::clone(&http).serve(socket, peer, permit, place),
        ));
        if let Some(listener) = self.amqps {
            if let Ok(address) = listener.local_addr() {
                events.emit(Event::AmqpListenerStarted { address });
            }
            let amqp = AmqpListener {
                tls: self.mqtts_tls.clone(),
                name: self.state.address.name().to_owned(),
                events: events.clone(),
                stop: stop_requests.clone(),
            };
            tasks.spawn(listeners::run(
                ("amqps", listener),
                Arc::clone(&mqtt_permits),
                listening.clone(),
                None,
                move |socket, peer, permit, place| amqp.clone().serve(socket, peer, permit, place),
            ));
        }
        if let Some(listener) = self.mqtts {
            let mqtt = Arc::new(MqttListener {
                state: self.state.clone(),
                tls: self.mqtts_tls,
                stop: stop_sessions.clone(),
            });
            tasks.spawn(listeners::run(
                ("mqtts", listener),
                Arc::clone(&mqtt_permits),
                listening.clone(),
                None,
                move |socket, peer, permit, place| {
                    Arc::clone(&mqtt).serve(socket, peer, permit, place)
                },
            ));
        }
        let stopping = CancellationToken::new();
        let permits = [&http_permits, &mqtt_permits];
        // To the end of the hub: it shows that the hub is stopping, and how far that is. Aborted when
        // this is dropped.
        let mut administering = JoinSet::new();
        if let Some(admin) = self.admin {
            let observed = Observed::new(&self.state, &strangers, permits, &stopping);
            administering.spawn(admin.run(observed, CancellationToken::new()));
        }
        let legs = self.state.legs.clone();
        let followers = Followers {
            state: &self.state,
            strangers: &strangers,
            permits: [&http_permits, &mqtt_permits],
            certificate: &self.certificate,
        };
        let following = or_never(followed.map(|followed| follow(followed, followers)));
        tokio::select! {
            () = stop.cancelled() => {}
            // Its terminal was closed.
            () = following => {}
            // None of these ends by itself.
            () = legs.sweep() => {}
            () = revocation::follow(self.state.clone()) => {}
            () = activity::keep(self.state.clone()) => {}
            () = usage::keep(self.state.clone()) => {}
            () = jobs::follow(self.state.clone()) => {}
            () = approvals::follow(self.state.clone(), self.webhook) => {}
            () = noted::follow(self.state.clone()) => {}
            () = self.certificate.keep_fresh() => {}
        }
        // Not ready: who distributes clients looks away.
        stopping.cancel();
        service_manager::stopping();
        events.emit(Event::Stopping);
        // No new strangers,
        stop_listening.cancel();
        // no new streams, and no leg waits for one that cannot come;
        stop_requests.cancel();
        self.state.pending.close();
        legs.close();
        // what was promised gets its grace,
        let grace = Instant::now() + self.state.limits.now().drain;
        while legs.count() > 0 && Instant::now() < grace {
            sleep_until((Instant::now() + Duration::from_millis(50)).min(grace)).await;
        }
        let streams_cut = legs.count();
        legs.end_everything();
        // and device sessions end last, since devices reconnect as soon as theirs does.
        stop_sessions.cancel();
        tasks.close();
        let in_time = timeout(GOODBYES, tasks.wait()).await.is_ok();
        activity::finish(&self.state).await;
        usage::finish(&self.state).await;
        if timeout(SETTLE, self.state.registry.settle()).await.is_err() {
            events.emit(Event::Fault(Fault::WritesNotStored));
        }
        events.emit(Event::Stopped {
            streams_cut,
            in_time,
        });
        events.finish().await;
    }
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::Bind {
        address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        option: "--https",
        source,
    })
}

/// Binds a port; `[::]` means all addresses of both families.
fn bind(address: SocketAddr, option: &'static str) -> Result<TcpListener, ServeError> {
    let listen = |address: SocketAddr| -> io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        // On Windows this option means something else, and restarts need it not.
        #[cfg(not(windows))]
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into())
    };
    let result = match listen(address) {
        // A machine without IPv6.
        Err(error)
            if address.is_ipv6()
                && address.ip().is_unspecified()
                && error.kind() != io::ErrorKind::AddrInUse
                && error.kind() != io::ErrorKind::PermissionDenied =>
        {
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        other => other,
    };
    result.map_err(|source| ServeError::Bind {
        address,
        option,
        source,
    })
}
