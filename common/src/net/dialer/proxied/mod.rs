//! Through a proxy: the proxy is dialled as any host, and asked for a connection. It resolves the
//! host's name, except in `socks5://`.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::either::Either;

use super::{DialError, Dialer, Failed, Unsecured, handshake, race};
use crate::limits;
use crate::net::host_stream::{HostStream, ProxyStream};
use crate::net::proxy::connect::{self, Answer};
use crate::net::proxy::socks::{self, Destination};
use crate::net::proxy::{Login, Protocol, Proxy, ProxyError, ProxyStep};

/// Requests of one attempt: without credentials, two for NTLM, and again with what a file has now.
const REQUESTS: u32 = 6;
/// Of a name that is resolved here, so many addresses are given to a SOCKS5 proxy, one after the
/// other.
const ADDRESSES: usize = 4;

impl Dialer {
    /// The proxy that is the way to this host.
    pub(in crate::net) fn proxy_to(&self, host: &str, port: u16) -> Option<Arc<Proxy>> {
        let proxy = self.way().proxy.clone();
        proxy.filter(|proxy| proxy.is_for(host, port))
    }

    /// The proxy that is the way to this host, as `HOST:PORT`; none if it is reached directly.
    pub fn way_to(&self, host: &str, port: u16) -> Option<Arc<str>> {
        self.proxy_to(host, port)
            .map(|proxy| Arc::clone(&proxy.name))
    }

    /// Has the proxy connect to a host. May be dropped at any time.
    pub(super) async fn open_through(
        &self,
        proxy: &Proxy,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Result<HostStream, DialError> {
        self.ask(proxy, None, (host, port), deadline)
            .await
            .map_err(|source| DialError::Proxy {
                host: host.to_owned(),
                port,
                proxy: Arc::clone(&proxy.name),
                source,
            })
    }

    /// The same, first over a connection to the proxy that is there already. May be dropped at any
    /// time.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub(in crate::net) async fn ask(
        &self,
        proxy: &Proxy,
        first: Option<TcpStream>,
        (host, port): (&str, u16),
        deadline: Instant,
    ) -> Result<HostStream, ProxyError> {
        let opening = Opening {
            dialer: self,
            proxy,
            first,
            deadline,
        };
        let opened = match proxy.address.protocol {
            Protocol::Http | Protocol::Https => opening.connect(host, port).await,
            Protocol::Socks5 | Protocol::Socks5Hostname => opening.socks(host, port).await,
        };
        if opened.is_err() {
            // Another machine may have its address by now.
            self.memory()
                .forget(&proxy.address.host, proxy.address.port);
        }
        opened
    }
}

/// One attempt to be led to a host.
struct Opening<'a> {
    dialer: &'a Dialer,
    proxy: &'a Proxy,
    /// A connection to the proxy that was not used yet.
    first: Option<TcpStream>,
    deadline: Instant,
}

impl Opening<'_> {
    /// By HTTP CONNECT.
    async fn connect(mut self, host: &str, port: u16) -> Result<HostStream, ProxyError> {
        let proxy = self.proxy;
        let target = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let (credentials, scheme) = proxy.credentials().await?;
        let mut login = Login::new(credentials, scheme);
        let mut kept = None;
        for _ in 0..REQUESTS {
            let is_kept = kept.is_some();
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None if login.is_bound() => {
                    return Err(ProxyError::Malformed(
                        "a proxy that keeps connections for NTLM",
                    ));
                }
                None => self.dial().await?,
            };
            let asking = connect::ask(&mut stream, &target, &mut login);
            match self.answer(asking).await {
                Ok(Answer::Open(early)) => {
                    proxy.note_accepted(login.scheme());
                    return Ok(HostStream::proxied(stream, early.freeze(), &proxy.name));
                }
                Ok(Answer::Again { is_reusable }) => kept = is_reusable.then_some(stream),
                // It has closed what it had promised to keep.
                Err(ProxyError::Lost(_)) if is_kept && !login.is_bound() => {}
                Err(error @ ProxyError::Refused { .. }) => {
                    if !proxy.note_refused().await {
                        return Err(error);
                    }
                    let (credentials, scheme) = proxy.credentials().await?;
                    login = Login::new(credentials, scheme);
                }
                Err(error) => return Err(error),
            }
        }
        Err(ProxyError::Malformed("a proxy whose login comes to an end"))
    }

    /// By SOCKS5.
    async fn socks(mut self, host: &str, port: u16) -> Result<HostStream, ProxyError> {
        let address = host.parse().map(|address| SocketAddr::new(address, port));
        if let Ok(address) = address {
            return self.socks_to(Destination::Address(address)).await;
        }
        if self.proxy.address.protocol == Protocol::Socks5Hostname {
            return self.socks_to(Destination::Name(host, port)).await;
        }
        let found = timeout_at(self.deadline, self.dialer.resolve(host, port))
            .await
            .map_err(|_| ProxyError::HostUnresolved(std::io::ErrorKind::TimedOut.into()))?
            .map_err(ProxyError::HostUnresolved)?;
        let none = || ProxyError::HostUnresolved(std::io::ErrorKind::NotFound.into());
        let mut failed = None;
        for address in race::order(&found.addresses, None)
            .into_iter()
            .take(ADDRESSES)
        {
            match self.socks_to(Destination::Address(address)).await {
                Ok(stream) => return Ok(stream),
                Err(error @ ProxyError::Socks(_)) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(none))
    }

    async fn socks_to(&mut self, destination: Destination<'_>) -> Result<HostStream, ProxyError> {
        let proxy = self.proxy;
        loop {
            let (credentials, _) = proxy.credentials().await?;
            let socket = match self.dial().await? {
                Either::Left(socket) => socket,
                Either::Right(_) => return Err(ProxyError::Malformed("a SOCKS5 proxy")),
            };
            let asking = socks::ask(socket, destination, credentials.as_ref());
            match self.answer(asking).await {
                Ok(socket) => {
                    proxy.note_accepted(None);
                    let stream = Either::Left(socket);
                    return Ok(HostStream::proxied(stream, Bytes::new(), &proxy.name));
                }
                Err(ProxyError::Refused { .. }) if proxy.note_refused().await => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Connects to the proxy itself, with TLS if it wants that.
    async fn dial(&mut self) -> Result<ProxyStream, ProxyError> {
        let (host, port) = (&self.proxy.address.host, self.proxy.address.port);
        let begun = Instant::now();
        let silent = |step, by: Instant| ProxyError::Silent {
            step,
            limit: by.saturating_duration_since(begun),
        };
        let socket = match self.first.take() {
            Some(socket) => socket,
            None => {
                let connected_by = self.deadline.min(begun + limits::TCP_CONNECT);
                let known = self.dialer.memory().resolved(host, port, begun);
                let socket = self
                    .dialer
                    .connect(host, port, known, connected_by, &|_| true)
                    .await;
                socket.map_err(|failed| match failed {
                    Failed::Unresolved(source) => ProxyError::Unresolved(source),
                    // All are permitted here.
                    Failed::Forbidden(_) => silent(ProxyStep::Accept, connected_by),
                    Failed::Unreached(unreached) => match unreached.explanation() {
                        Some(source) => ProxyError::Unreachable(source),
                        None => silent(ProxyStep::Accept, connected_by),
                    },
                })?
            }
        };
        if self.proxy.address.protocol != Protocol::Https {
            return Ok(Either::Left(socket));
        }
        let tls = without_certificate(&self.dialer.trust());
        match handshake(&tls, host, socket, self.deadline).await {
            Ok(stream) => Ok(Either::Right(Box::new(stream))),
            Err(Unsecured::Silent) => Err(silent(ProxyStep::Handshake, self.deadline)),
            Err(Unsecured::Certificate(bad)) => Err(ProxyError::Certificate(bad)),
            Err(Unsecured::Failed(source)) => Err(ProxyError::Tls(source)),
        }
    }

    /// An answer of the proxy, which has a limit of its own: what is left then is for TLS with the
    /// host.
    async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, ProxyError>>,
    ) -> Result<T, ProxyError> {
        let begun = Instant::now();
        let by = self.deadline.min(begun + limits::PROXY_ANSWER);
        timeout_at(by, answer).await.unwrap_or_else(|_| {
            Err(ProxyError::Silent {
                step: ProxyStep::Answer,
                limit: by.saturating_duration_since(begun),
            })
        })
    }
}

/// The same trust without the device's certificate, which is for its hub only.
fn without_certificate(tls: &ClientConfig) -> Arc<ClientConfig> {
    let mut tls = tls.clone();
    tls.client_auth_cert_resolver = Arc::new(NoCertificate);
    Arc::new(tls)
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) mod tests;
