//! A hub from its configuration to its end: build, bind, serve, drain.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use common::hub_address::HubAddress;
use common::service_manager::{self, Watchdog};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::activity;
use crate::admission::Strangers;
use crate::config::{AmqpsListen, ServeConfig};
use crate::data_dir::{DataDir, DataDirError, ServeLock};
use crate::events::{Event, Fault};
use crate::inherited::Inherited;
use crate::jobs;
use crate::limits;
use crate::listeners::{self, AmqpListener, HttpListener, MqttListener, ServerTls};
use crate::registry::RegistryError;
use crate::registry::SqliteRegistry;
use crate::revocation;
use crate::state::HubState;
use crate::tls::{Certificate, CertificateError};

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
    /// TLS is not usable.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
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
            // A certificate, or a key that does not fit it, of the operator's.
            Self::Certificate(CertificateError::File(_) | CertificateError::Unusable(_)) => true,
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
    data_dir: DataDir,
    /// Held as long as the folder is in use.
    _lock: ServeLock,
    certificate: Certificate,
    https: TcpListener,
    mqtts: Option<TcpListener>,
    amqps: Option<TcpListener>,
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
        let registry = SqliteRegistry::open(&data_dir)?;
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
        let address = config.advertised(&data_dir.address()?, local_address(&https)?.port());
        let certificate = Certificate::load(config.certificate, data_dir.tls()?, address.name())?;
        data_dir.store_address(&address)?;
        Ok(Self {
            https_tls: ServerTls::new(certificate.slot(), &[b"http/1.1"])?,
            mqtts_tls: ServerTls::new(certificate.slot(), &[])?,
            state: HubState::new(address, Arc::new(registry), config.limits)
                .with_certificate(certificate.slot()),
            data_dir,
            _lock: lock,
            certificate,
            https,
            mqtts,
            amqps,
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
        text + "ready\n"
    }

    fn report_listeners(&self) {
        let started = |protocol, address: io::Result<SocketAddr>| {
            if let Ok(address) = address {
                Event::ListenerStarted { protocol, address }.emit();
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
        let limits = Arc::clone(&self.state.limits);
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
        tasks.spawn(listeners::run(
            self.https,
            listeners::permits(limits.connections),
            strangers.clone(),
            stop_listening.clone(),
            tasks.clone(),
            Some(Watchdog::new()),
            move |socket, peer, permit, place| Arc::clone(&http).serve(socket, peer, permit, place),
        ));
        // What is refused on AMQP's port takes from MQTT's half.
        let mqtt_permits = listeners::permits(limits.connections);
        if let Some(listener) = self.amqps {
            if let Ok(address) = listener.local_addr() {
                Event::AmqpListenerStarted { address }.emit();
            }
            let amqp = AmqpListener {
                tls: self.mqtts_tls.clone(),
                name: self.state.address.name().to_owned(),
                stop: stop_requests.clone(),
            };
            tasks.spawn(listeners::run(
                listener,
                Arc::clone(&mqtt_permits),
                strangers.clone(),
                stop_listening.clone(),
                tasks.clone(),
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
                listener,
                mqtt_permits,
                strangers,
                stop_listening.clone(),
                tasks.clone(),
                None,
                move |socket, peer, permit, place| {
                    Arc::clone(&mqtt).serve(socket, peer, permit, place)
                },
            ));
        }
        let legs = self.state.legs.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            // None of these ends by itself.
            () = legs.sweep() => {}
            () = revocation::follow(self.state.clone()) => {}
            () = activity::keep(self.state.clone()) => {}
            () = jobs::follow(self.state.clone()) => {}
            () = self.certificate.keep_fresh() => {}
        }
        service_manager::stopping();
        Event::Stopping.emit();
        // No new strangers,
        stop_listening.cancel();
        // no new streams, and no leg waits for one that cannot come;
        stop_requests.cancel();
        self.state.pending.close();
        legs.close();
        // what was promised gets its grace,
        let grace = Instant::now() + limits.drain;
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
        if timeout(SETTLE, self.state.registry.settle()).await.is_err() {
            Event::Fault(Fault::WritesNotStored).emit();
        }
        Event::Stopped {
            streams_cut,
            in_time,
        }
        .emit();
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
