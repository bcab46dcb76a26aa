//! Connecting to a target.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use common::net::{DialError, Dialer};
use common::session::RefusedCode;
use common::tunnel::LocalSocket;

use super::Target;
use crate::{echo, limits};

/// A target that is connected.
pub type Reached = Box<dyn LocalSocket>;

/// Why a target cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// A name that leads to where it may not.
    #[error(
        "{host} leads to {address}, which the device's configuration does not permit for it (allow-addresses)"
    )]
    Forbidden {
        /// The host name.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// A TCP service.
    #[error(transparent)]
    Tcp(DialError),
    /// A Unix socket.
    #[error("cannot connect to unix:{}{}", path.display(), advice(source))]
    Unix {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A Unix socket whose queue is full.
    #[error("unix:{} does not accept a connection within {} s", .0.display(), limits::TARGET_CONNECT.as_secs())]
    UnixTimeout(PathBuf),
}

/// What to do about it, if that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (is its program running?)",
        io::ErrorKind::PermissionDenied => " (may the user of device-proxy write to it?)",
        _ => "",
    }
}

impl From<DialError> for ReachError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Forbidden { host, address } => Self::Forbidden { host, address },
            error => Self::Tcp(error),
        }
    }
}

impl ReachError {
    /// How a session reports it.
    pub fn code(&self) -> RefusedCode {
        match self {
            Self::Tcp(DialError::Connect { source, .. }) | Self::Unix { source, .. }
                if source.kind() == io::ErrorKind::ConnectionRefused =>
            {
                RefusedCode::TargetRefused
            }
            Self::Tcp(DialError::Timeout { .. }) | Self::UnixTimeout(_) => RefusedCode::TimedOut,
            Self::Forbidden { .. } => RefusedCode::Denied,
            Self::Tcp(_) | Self::Unix { .. } => RefusedCode::Unreachable,
        }
    }
}

impl Target {
    /// Connects to it, at an address that is permitted; the echo prints what it echoes as the
    /// official samples do, if `sample_output`. May be dropped.
    ///
    /// # Errors
    /// [`ReachError`], within [`limits::TARGET_CONNECT`].
    pub async fn reach(
        &self,
        dialer: &Dialer,
        permits: &(dyn Fn(IpAddr) -> bool + Sync),
        sample_output: bool,
    ) -> Result<Reached, ReachError> {
        match self {
            Self::Echo => Ok(Box::new(echo::socket(sample_output))),
            Self::Tcp { host, port } => {
                let socket = dialer
                    .tcp_if(host, *port, limits::TARGET_CONNECT, permits)
                    .await?;
                Ok(Box::new(socket))
            }
            #[cfg(unix)]
            Self::Unix(path) => {
                let connecting = tokio::net::UnixStream::connect(path);
                match tokio::time::timeout(limits::TARGET_CONNECT, connecting).await {
                    Ok(Ok(socket)) => Ok(Box::new(socket)),
                    Ok(Err(source)) => Err(ReachError::Unix {
                        path: path.clone(),
                        source,
                    }),
                    Err(_) => Err(ReachError::UnixTimeout(path.clone())),
                }
            }
            // No configuration has one here.
            #[cfg(not(unix))]
            Self::Unix(path) => Err(ReachError::Unix {
                path: path.clone(),
                source: io::ErrorKind::Unsupported.into(),
            }),
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use common::report;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn a_unix_socket_is_reached_or_the_reason_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sock");
        let target = Target::at(&format!("unix:{}", path.display())).unwrap();
        let tls = common::tls::client_config(None, None).unwrap();
        let dialer = Dialer::new(&tls);
        let error = target.reach(&dialer, &|_| true, false).await.err().unwrap();
        assert_eq!(error.code(), RefusedCode::Unreachable);
        let shown = report::chain(&error);
        assert!(shown.contains("is its program running?"), "{shown}");
        let listener = UnixListener::bind(&path).unwrap();
        let mut socket = target.reach(&dialer, &|_| true, false).await.unwrap();
        let (mut there, _) = listener.accept().await.unwrap();
        socket.write_all(b"x").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut all = Vec::new();
        there.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"x");
        drop(listener);
        let error = target.reach(&dialer, &|_| true, false).await.err().unwrap();
        assert_eq!(error.code(), RefusedCode::TargetRefused);
    }
}
