//! The steps by which a host is reached over TLS, one by one: for those who want to see which of them
//! fails, and how long each takes. [`Dialer::tls`] makes the same steps.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{DialError, Dialer};
use crate::net::host_stream::{HostStream, TlsHostStream, Via};

impl Dialer {
    /// A host's addresses, in the system's order. May be dropped at any time.
    ///
    /// # Errors
    /// [`DialError`], within `limit`.
    pub async fn addresses(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let failed = |source| DialError::Resolve {
            host: host.to_owned(),
            source,
        };
        match timeout(limit, self.resolve(host, port)).await {
            Err(_) => Err(silent(host, port, limit, Via::default())),
            Ok(Err(error)) => Err(failed(error)),
            Ok(Ok(found)) if found.addresses.is_empty() => {
                let none = std::io::ErrorKind::NotFound;
                Err(failed(std::io::Error::new(none, "the name has no address")))
            }
            Ok(Ok(found)) => Ok(found.addresses),
        }
    }

    /// What TLS with a host goes over: TCP, or what a proxy opens if that is the way to it. May be
    /// dropped at any time.
    ///
    /// # Errors
    /// [`DialError`], within `limit`.
    pub async fn open(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<HostStream, DialError> {
        let Some(proxy) = self.proxy_to(host, port) else {
            return self.open_direct(host, port, limit).await;
        };
        self.open_through(&proxy, host, port, Instant::now() + limit)
            .await
    }

    /// The same without a proxy, also where there is one.
    ///
    /// # Errors
    /// [`DialError`], within `limit`.
    pub async fn open_direct(
        &self,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<HostStream, DialError> {
        let socket = self.tcp(host, port, limit).await?;
        Ok(HostStream::direct(socket))
    }

    /// Shakes hands for TLS with a host over what was opened to it. May be dropped at any time.
    ///
    /// # Errors
    /// [`DialError`], within `limit`.
    pub async fn shake_hands(
        &self,
        stream: HostStream,
        host: &str,
        port: u16,
        limit: Duration,
    ) -> Result<TlsHostStream, DialError> {
        let via = stream.via();
        let handshake = self.secure(stream, (host, port), Instant::now() + limit);
        handshake.await.map_err(|error| match error {
            DialError::Timeout { .. } => silent(host, port, limit, via),
            error => error,
        })
    }
}

fn silent(host: &str, port: u16, limit: Duration, via: Via) -> DialError {
    DialError::Timeout {
        host: host.to_owned(),
        port,
        limit,
        via,
    }
}
