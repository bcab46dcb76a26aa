//! From arguments, environment, files and defaults to what `serve` and the admin commands need to
//! know: no options left open.

mod access;
mod audit;
mod certificate;
mod keys;
mod limits;
mod reload;
mod resolve;

use std::net::SocketAddr;
use std::path::PathBuf;

use common::admin::AdminListen;
use common::hub_address::HubAddress;
use common::settings::{SettingError, Source};
use common::tls::TlsConfigError;

use crate::access::AccessError;
use crate::data_dir::DataDirError;
use crate::events::audit::AuditConfig;
use crate::limits::Limits;
use crate::tls::CertificateSource;
use crate::tls::acme::AcmeError;

pub use self::access::AccessConfig;
pub use self::reload::{Current, Reader};
pub use self::resolve::{admin, data_dir, default_file, log_format, log_level, serve, sources};

/// What is wrong with how the program was called.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A certificate without its key, or the reverse.
    #[error("--tls-cert FILE and --tls-key FILE belong together; {0} is given alone")]
    HalfCertificate(Source),
    /// Two sources of the certificate.
    #[error(
        "--acme and --tls-cert exclude each other, and {0} is given beside --acme: leave one of them out"
    )]
    TwoCertificates(Source),
    /// What only matters with ACME, without it.
    #[error("{0} needs --acme")]
    WithoutAcme(Source),
    /// A provider without a client, or the reverse.
    #[error("oidc.issuer and oidc.client-id belong together; {0} is given alone")]
    HalfProvider(Source),
    /// Nobody could do anything.
    #[error(
        "[oidc] needs access.file, which says what people may do; without it they could do nothing"
    )]
    ProviderWithoutAccess,
    /// The access file cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// ACME cannot be used.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// `off` beside a place.
    #[error("{0} says `off` beside another place; leave one of them out")]
    AuditOffAndOn(Source),
    /// More than one file.
    #[error("{0} names a second file; the audit log goes to one file, and to stdout")]
    TwoAuditFiles(Source),
    /// The address of the last time, without a `--hostname`, cannot be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
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
    /// Where metrics and health checks are answered.
    pub admin: AdminListen,
    /// The server's certificate.
    pub certificate: CertificateSource,
    /// What an operator has tuned.
    pub limits: Limits,
    /// Who may do what, and who says who somebody is.
    pub access: AccessConfig,
    /// The audit log.
    pub audit: AuditConfig,
}

impl ServeConfig {
    /// What has to be the same as long as the hub runs, and is not in `other`.
    pub fn fixed_differing(&self, other: &Self) -> Vec<&'static str> {
        let fixed = [
            ("data-dir", self.data_dir != other.data_dir),
            ("hostname", self.hostname != other.hostname),
            ("https", self.https != other.https),
            ("mqtts", self.mqtts != other.mqtts),
            ("amqps", self.amqps != other.amqps),
            ("admin", self.admin != other.admin),
            (
                "audit-log",
                (&self.audit.file, self.audit.stdout) != (&other.audit.file, other.audit.stdout),
            ),
            (
                "where the certificate is",
                self.certificate != other.certificate,
            ),
            ("[oidc]", self.access.oidc != other.access.oidc),
            ("[approvals]", self.access.webhook != other.access.webhook),
        ];
        let differing = fixed.into_iter().filter(|(_, is_other)| *is_other);
        differing.map(|(name, _)| name).collect()
    }

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
