//! From arguments, environment, files and defaults to what `serve` and the admin commands need to
//! know: no options left open.

mod keys;
mod limits;
mod resolve;

use std::net::SocketAddr;
use std::path::PathBuf;

use common::hub_address::HubAddress;
use common::settings::{SettingError, Source};
use common::tls::TlsConfigError;

use crate::limits::Limits;
use crate::tls::CertificateSource;

pub use self::resolve::{admin, data_dir, default_file, log_level, serve, sources};

/// What is wrong with how the program was called.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A certificate without its key, or the reverse.
    #[error("--tls-cert FILE and --tls-key FILE belong together; {0} is given alone")]
    HalfCertificate(Source),
    /// TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// Where clients of AMQP are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmqpsListen {
    /// Here; port 0 picks one.
    At(SocketAddr),
    /// Here, unless another program listens there.
    IfFree(SocketAddr),
    /// Nowhere: the port is closed.
    Off,
}

/// How to run a hub.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// The data folder.
    pub data_dir: PathBuf,
    /// The advertised name, and port if it is not the HTTPS listener's. `None`: the
    /// name of the last time, at first `localhost`.
    pub hostname: Option<HubAddress>,
    /// Where HTTPS listens; port 0 picks one.
    pub https: SocketAddr,
    /// Where MQTT over TLS listens, if it does; port 0 picks one.
    pub mqtts: Option<SocketAddr>,
    /// Where AMQP over TLS is refused.
    pub amqps: AmqpsListen,
    /// The server's certificate.
    pub certificate: CertificateSource,
    /// What an operator has tuned.
    pub limits: Limits,
}

impl ServeConfig {
    /// The advertised address, when HTTPS listens on `https_port`; `last` is that of
    /// the last time, whose name stays: devices know the hub by it.
    pub fn advertised(&self, last: &HubAddress, https_port: u16) -> HubAddress {
        match &self.hostname {
            Some(address) if address.port().is_some() => address.clone(),
            Some(address) => address.with_port(https_port),
            None => last.with_port(https_port),
        }
    }
}

#[cfg(test)]
mod tests;
