//! The hub's own TLS material: a CA for devices and services to trust, and
//! the certificate it signs for the hub. The CA is constrained to the hub's host name,
//! so that trusting it means trusting this hub and nothing else.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use self::authority::Authority;
use self::host::Host;
use self::server::Pair;

mod authority;
mod host;
mod pem;
mod server;

/// The CA's certificate, in the folder of the TLS material.
pub(crate) const CA_CERTIFICATE: &str = "ca.pem";
/// The CA's private key.
pub(crate) const CA_KEY: &str = "ca.key";
const SERVER_CERTIFICATE: &str = "server.pem";
/// The private key of the server's certificate.
pub(crate) const SERVER_KEY: &str = "server.key";

/// Life of the CA.
const CA_LIFE: Duration = Duration::days(3650);
/// Life of the server's certificate: the most that clients commonly accept.
const SERVER_LIFE: Duration = Duration::days(397);
/// With less life left than this a certificate is made anew.
const RENEWAL: Duration = Duration::days(30);
/// Certificates begin in the past, for devices whose clocks are behind.
const SKEW: Duration = Duration::hours(1);

/// Why there is no usable TLS material.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file holds something else; it is not overwritten, since it may be precious.
    #[error(
        "{} is not a PEM certificate or key; put the right file there, or remove it so that a new one is made",
        .0.display()
    )]
    Unreadable(PathBuf),
    /// No certificate can be made for the name.
    #[error("{0:?} cannot stand in a certificate; choose another --hostname")]
    HostName(String),
    /// Making a certificate failed.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// What was just made is not accepted.
    #[error("the new certificate for {host} is not acceptable")]
    Refused {
        /// For which host.
        host: String,
        /// Why.
        source: rustls::Error,
    },
}

/// What [`ensure`] had to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// Everything was there and good.
    Nothing,
    /// The server's certificate: no client has to change.
    Server,
    /// CA and certificate: everybody needs the new `ca.pem`.
    CaAndServer,
}

/// What a TLS listener needs.
#[derive(Debug)]
pub struct Material {
    /// The server's certificate, then the CA's.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The server's private key; its `Debug` shows nothing.
    pub key: PrivateKeyDer<'static>,
    /// What was made.
    pub made: Made,
    /// The CA's certificate file, for people to copy.
    pub ca_file: PathBuf,
}

/// Gives the TLS material for a host name (no port; IPv6 without brackets), and makes
/// what is missing, does not fit the name, or has fewer than 30 days left. A hub that
/// runs for long calls this once a day. Blocks.
///
/// # Errors
/// [`PkiError`] names the file or the name at fault.
pub fn ensure(dir: &Path, host_name: &str, now: OffsetDateTime) -> Result<Material, PkiError> {
    let host = Host::parse(host_name)?;
    let ca_file = dir.join(CA_CERTIFICATE);
    let material = |pair: Pair, ca: CertificateDer<'static>, made| Material {
        certificates: vec![pair.certificate, ca],
        key: pair.key,
        made,
        ca_file: ca_file.clone(),
    };
    let ca_certificate = pem::certificate_in(&ca_file)?;
    if let Some(ca) = &ca_certificate {
        if let Some(server) = Pair::read(dir)?
            && server.check(ca, &host, now).is_ok()
        {
            return Ok(material(server, ca.clone(), Made::Nothing));
        }
        if let Some(authority) = Authority::read(dir, ca)? {
            // The present CA may not be allowed to sign for this name, or be near its
            // end: whether what it signs is acceptable answers both.
            let server = authority.issue(&host, now)?;
            if server.check(ca, &host, now).is_ok() {
                server.write(dir)?;
                return Ok(material(server, ca.clone(), Made::Server));
            }
        }
    }
    let authority = Authority::new(&host, now)?;
    let server = authority.issue(&host, now)?;
    server
        .check(&authority.certificate, &host, now)
        .map_err(|source| PkiError::Refused {
            host: host_name.to_owned(),
            source,
        })?;
    authority.write(dir)?;
    server.write(dir)?;
    Ok(material(server, authority.certificate, Made::CaAndServer))
}

/// A certificate for a host name and a key, and the CA that has signed it, if the folder has a CA that
/// may: nothing is made or written but this. Blocks.
pub(crate) fn stand_in(
    dir: &Path,
    host_name: &str,
    key: &KeyPair,
    now: OffsetDateTime,
) -> Option<Vec<CertificateDer<'static>>> {
    let host = Host::parse(host_name).ok()?;
    let ca = pem::certificate_in(&dir.join(CA_CERTIFICATE)).ok()??;
    let authority = Authority::read(dir, &ca).ok()??;
    let certificate = authority.sign(&host, key, now).ok()?;
    Some(vec![certificate.der().clone(), ca])
}

#[cfg(test)]
mod tests;
