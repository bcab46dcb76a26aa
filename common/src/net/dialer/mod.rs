//! Reaching a host: resolve, connect and shake hands, each with a deadline, and errors that say which
//! of them failed. Every connection outwards begins here. What leads to the hub is TLS, and goes
//! through the proxy if there is one ([`proxied`]); plain TCP, to a device's own targets, never does.

mod error;
mod memory;
mod proxied;
mod race;
mod steps;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::host_stream::{HostStream, TlsHostStream, Via};
use super::proxy::{Proxy, ProxySettings};
use crate::limits;
use crate::locks::lock;
use crate::network;
use crate::tls::BadCertificate;
use crate::tls::stream::ClientTlsStream;
pub use error::{DialError, inspection};
use memory::Memory;
pub(super) use race::Unreached;

/// Why no address could be connected to.
enum Failed {
    /// The resolver's error.
    Unresolved(io::Error),
    /// It has no address but such as may not be dialled; one of them.
    Forbidden(IpAddr),
    Unreached(Unreached),
}

impl Failed {
    /// With what the address has shown that was tried before the resolver was asked.
    fn and(self, tried: Unreached) -> Self {
        match self {
            Self::Unreached(others) => Self::Unreached(tried.and(others)),
            other @ (Self::Unresolved(_) | Self::Forbidden(_)) => other,
        }
    }

    fn at(self, host: &str, port: u16, limit: Duration) -> DialError {
        let host = host.to_owned();
        match self {
            Self::Unresolved(source) => DialError::Resolve { host, source },
            Self::Forbidden(address) => DialError::Forbidden { host, address },
            Self::Unreached(unreached) => match unreached.explanation() {
                Some(source) => DialError::Connect { host, port, source },
                None => DialError::Timeout {
                    host,
                    port,
                    limit,
                    via: Via::default(),
                },
            },
        }
    }
}

/// A host's addresses.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) addresses: Vec<SocketAddr>,
    /// When the resolver gave them.
    at: Instant,
}

impl Resolved {
    fn now(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            at: Instant::now(),
        }
    }
}

/// Which addresses may be dialled; it is asked with [`network::canonical`] ones.
type Permits<'a> = &'a (dyn Fn(IpAddr) -> bool + Sync);

/// Opens all connections of a program that lead outwards: to the hub, to streaming endpoints, to
/// targets. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Dialer {
    way: Arc<Mutex<Way>>,
    memory: Arc<Mutex<Memory>>,
}

/// How what is reached over TLS is reached. It can change while the program runs.
#[derive(Debug, Clone)]
struct Way {
    tls: Arc<ClientConfig>,
    proxy: Option<Arc<Proxy>>,
    /// How often it has changed.
    changes: u64,
}

impl Dialer {
    /// With this trust, and the client certificate if there is one, for what is reached over TLS.
    pub fn new(tls: &Arc<ClientConfig>) -> Self {
        Self {
            way: Arc::new(Mutex::new(Way {
                tls: Arc::clone(tls),
                proxy: None,
                changes: 0,
            })),
            memory: Arc::default(),
        }
    }

    /// The same, with what is reached over TLS behind the proxy of these settings.
    #[must_use]
    pub fn through(self, settings: ProxySettings) -> Self {
        self.way().proxy = Proxy::new(settings);
        self
    }

    /// Another one with this trust, which goes through the same proxy as this one does now.
    #[must_use]
    pub fn trusting(&self, tls: &Arc<ClientConfig>) -> Self {
        let proxy = self.way().proxy.clone();
        Self {
            way: Arc::new(Mutex::new(Way {
                tls: Arc::clone(tls),
                proxy,
                changes: 0,
            })),
            memory: Arc::default(),
        }
    }

    /// From now on everything is reached as `other` does it: with its trust, its client certificate
    /// and its proxy. What is open stays open. It forgets which credentials the proxy has refused,
    /// and no TLS session is resumed.
    pub fn follow(&self, other: &Self) {
        let other = other.way().clone();
        let mut way = self.way();
        let changes = way.changes + 1;
        *way = Way { changes, ..other };
    }

    /// How often the trust or the proxy has changed: what was dialled before the last change was not
    /// dialled as it should be now.
    pub(super) fn changes(&self) -> u64 {
        self.way().changes
    }

    fn trust(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.way().tls)
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        lock(&self.way)
    }

    /// Which addresses have accepted. The lock is held for a moment only.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Connects to `host:port`. Its addresses are tried one after the other, 250 ms apart or as
    /// soon as one fails, until the first accepts (RFC 8305); the one that accepted last time is
    /// the first. For some seconds it is tried without asking the resolver, which is asked as soon
    /// as the address fails, or has not answered within those 250 ms. May be dropped at any time.
    ///
    /// # Errors
    /// [`DialError`]; all attempts together end within `limit`.
    pub async fn tcp(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<TcpStream, DialError> {
        self.tcp_if(host, port, limit, &|_| true).await
    }

    /// The same, to no other address than such as `permits` says yes to: it is asked for what the
    /// name resolves to, in canonical form (an IPv4 address in IPv6 form is the IPv4 address, and
    /// the unspecified one is loopback, as the system takes it), and exactly those addresses are
    /// dialled, without asking the resolver again.
    ///
    /// # Errors
    /// [`DialError`]; [`DialError::Forbidden`] where none of the host's addresses is permitted.
    pub async fn tcp_if(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
        permits: Permits<'_>,
    ) -> Result<TcpStream, DialError> {
        let known = self.memory().resolved(host, port, Instant::now());
        let known = known.filter(|known| permits(network::canonical(known.ip())));
        self.connect(host, port, known, Instant::now() + limit, permits)
            .await
            .map_err(|failed| failed.at(host, port, limit))
    }

    /// Connects: first to the address that is known, if there is one.
    async fn connect(
        &self,
        host: &str,
        port: u16,
        known: Option<SocketAddr>,
        deadline: Instant,
        permits: Permits<'_>,
    ) -> Result<TcpStream, Failed> {
        let Some(known) = known else {
            return self.look_up(host, port, None, deadline, permits).await;
        };
        let addresses = [known];
        let mut first = pin!(race::connect(&addresses, deadline));
        let alone = deadline.min(Instant::now() + race::ATTEMPT_DELAY);
        let failed = match timeout_at(alone, &mut first).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(unreached)) => Some(unreached),
            Err(_) => None,
        };
        // The attempt goes on: the path may be slow, and the host where it was.
        let mut first = pin!(async {
            let unreached = match failed {
                Some(unreached) => unreached,
                None => match first.await {
                    Ok(socket) => return Ok(socket),
                    Err(unreached) => unreached,
                },
            };
            self.memory().forget(host, port);
            Err(unreached)
        });
        // Rarely needed, so not in the memory of every opening.
        let mut others = Box::pin(self.look_up(host, port, Some(known), deadline, permits));
        tokio::select! {
            biased;
            socket = &mut first => match socket {
                Ok(socket) => Ok(socket),
                Err(unreached) => others.await.map_err(|failed| failed.and(unreached)),
            },
            socket = &mut others => match socket {
                Ok(socket) => Ok(socket),
                // The resolver may be what is out of reach.
                Err(failed) => first.await.map_err(|unreached| failed.and(unreached)),
            },
        }
    }

    /// Asks the resolver and connects to one of the host's addresses other than `tried`.
    async fn look_up(
        &self,
        host: &str,
        port: u16,
        tried: Option<SocketAddr>,
        deadline: Instant,
        permits: Permits<'_>,
    ) -> Result<TcpStream, Failed> {
        let mut found = timeout_at(deadline, self.resolve(host, port))
            .await
            .map_err(|_| Failed::Unreached(Unreached::silent()))?
            .map_err(Failed::Unresolved)?;
        if found.addresses.is_empty() {
            let none = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(Failed::Unresolved(none));
        }
        let first = found.addresses.first().copied();
        for address in &mut found.addresses {
            let canonical = network::canonical(address.ip());
            if canonical != address.ip() {
                *address = SocketAddr::new(canonical, address.port());
            }
        }
        found.addresses.retain(|address| permits(address.ip()));
        if let (Some(first), true) = (first, found.addresses.is_empty()) {
            return Err(Failed::Forbidden(network::canonical(first.ip())));
        }
        found.addresses.retain(|address| Some(*address) != tried);
        self.reach(host, port, &found, deadline)
            .await
            .map_err(Failed::Unreached)
    }

    /// All addresses of a host, as the system sorts them.
    ///
    /// # Errors
    /// The resolver's.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Resolved> {
        #[cfg(test)]
        if let Some(addresses) = tests::known(host, port) {
            return Ok(Resolved::now(addresses));
        }
        let addresses = tokio::net::lookup_host((host, port)).await?;
        Ok(Resolved::now(addresses.collect()))
    }

    /// Connects to one of a host's addresses, as [`tcp`](Self::tcp) does; `host` and `port` are
    /// what its last address is remembered by.
    ///
    /// # Errors
    /// [`Unreached`], by `deadline` at latest.
    pub(super) async fn reach(
        &self,
        host: &str,
        port: u16,
        found: &Resolved,
        deadline: Instant,
    ) -> Result<TcpStream, Unreached> {
        let last = self.memory().last(host, port, Instant::now());
        let socket = race::connect(&race::order(&found.addresses, last), deadline).await?;
        let is_name = host.parse::<IpAddr>().is_err();
        if is_name && let Ok(address) = socket.peer_addr() {
            self.memory().note(host, address, found.at, Instant::now());
        }
        Ok(socket)
    }

    /// Connects to `host:port` over TLS, through the proxy if that is the way to it. May be dropped
    /// at any time.
    ///
    /// # Errors
    /// [`DialError`]; everything together ends within [`limits::DIAL`].
    pub async fn tls(&self, host: &str, port: u16) -> Result<TlsHostStream, DialError> {
        let deadline = Instant::now() + limits::DIAL;
        if let Some(proxy) = self.proxy_to(host, port) {
            // Rarely needed, so not in the memory of every opening.
            let opening = Box::pin(self.open_through(&proxy, host, port, deadline));
            let stream = opening.await?;
            return self.secure(stream, (host, port), deadline).await;
        }
        let known = self.memory().resolved(host, port, Instant::now());
        match self.tls_at(host, port, known, deadline).await {
            // Another host may have the address by now: its certificate is no reason to give up.
            Err(DialError::Certificate { .. } | DialError::Tls { .. }) if known.is_some() => {
                Box::pin(self.tls_at(host, port, None, deadline)).await
            }
            connected => connected,
        }
    }

    async fn tls_at(
        &self,
        host: &str,
        port: u16,
        known: Option<SocketAddr>,
        deadline: Instant,
    ) -> Result<TlsHostStream, DialError> {
        let connected_by = deadline.min(Instant::now() + limits::TCP_CONNECT);
        let socket = self
            .connect(host, port, known, connected_by, &|_| true)
            .await
            .map_err(|failed| failed.at(host, port, limits::TCP_CONNECT))?;
        let secured = self
            .secure(HostStream::direct(socket), (host, port), deadline)
            .await;
        if secured.is_err() {
            self.memory().forget(host, port);
        }
        secured
    }

    /// Shakes hands for TLS with a host.
    async fn secure(
        &self,
        stream: HostStream,
        (host, port): (&str, u16),
        deadline: Instant,
    ) -> Result<TlsHostStream, DialError> {
        let via = stream.via();
        match handshake(&self.trust(), host, stream, deadline).await {
            Ok(stream) => Ok(stream),
            Err(Unsecured::Silent) => Err(DialError::Timeout {
                host: host.to_owned(),
                port,
                limit: limits::DIAL,
                via,
            }),
            Err(Unsecured::Certificate(bad)) => Err(DialError::Certificate {
                host: host.to_owned(),
                port,
                bad,
                via,
            }),
            Err(Unsecured::Failed(source)) => Err(DialError::Tls {
                host: host.to_owned(),
                port,
                source,
                via,
            }),
        }
    }
}

/// Why a TLS handshake was not completed.
enum Unsecured {
    Silent,
    Certificate(BadCertificate),
    Failed(io::Error),
}

/// Shakes hands for TLS with who is at the other end, and should be `host`.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &Arc<ClientConfig>,
    host: &str,
    stream: S,
    deadline: Instant,
) -> Result<ClientTlsStream<S>, Unsecured> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| Unsecured::Failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let handshake = ClientTlsStream::connect(tls, name, stream);
    match timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match BadCertificate::find(&error) {
            Some(bad) => Unsecured::Certificate(bad),
            None => Unsecured::Failed(error::explained(error)),
        }),
        Err(_) => Err(Unsecured::Silent),
    }
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) use proxied::tests as proxied_tests;
