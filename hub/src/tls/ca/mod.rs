//! The hub's own TLS material: a CA for devices and services to trust, and
//! the certificate it signs for the hub. The CA is constrained to the hub's host name,
//! so that trusting it means trusting this hub and nothing else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

use crate::files::{self, Access};

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
    let ca_certificate = certificate_in(&ca_file)?;
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

/// The host, and the names that its certificate carries.
struct Host {
    names: Vec<ServerName<'static>>,
}

impl Host {
    fn parse(text: &str) -> Result<Self, PkiError> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let mut names = vec![
            ServerName::try_from(name.clone()).map_err(|_| PkiError::HostName(text.to_owned()))?,
        ];
        if name == "localhost" {
            names.push(IpAddr::from(Ipv4Addr::LOCALHOST).into());
            names.push(IpAddr::from(Ipv6Addr::LOCALHOST).into());
        }
        Ok(Self { names })
    }

    fn alternative_names(&self) -> Result<Vec<SanType>, PkiError> {
        self.names
            .iter()
            .map(|name| match name {
                ServerName::IpAddress(ip) => Ok(SanType::IpAddress((*ip).into())),
                name => Ok(SanType::DnsName(name.to_str().as_ref().try_into()?)),
            })
            .collect()
    }

    /// These names and no others: a kind of name of which none is permitted is excluded
    /// as a whole (the empty DNS name stands for all, as does a prefix of length 0).
    fn constraints(&self) -> NameConstraints {
        let mut constraints = NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: Vec::new(),
        };
        let (mut has_dns, mut has_ip) = (false, false);
        for name in &self.names {
            constraints.permitted_subtrees.push(match name {
                ServerName::IpAddress(ip) => {
                    has_ip = true;
                    let ip = IpAddr::from(*ip);
                    let whole = if ip.is_ipv4() { 32 } else { 128 };
                    GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, whole))
                }
                name => {
                    has_dns = true;
                    GeneralSubtree::DnsName(name.to_str().into_owned())
                }
            });
        }
        if !has_dns {
            let all = GeneralSubtree::DnsName(String::new());
            constraints.excluded_subtrees.push(all);
        }
        if !has_ip {
            for all in [
                IpAddr::from(Ipv4Addr::UNSPECIFIED),
                Ipv6Addr::UNSPECIFIED.into(),
            ] {
                let all = GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(all, 0));
                constraints.excluded_subtrees.push(all);
            }
        }
        constraints
    }
}

/// The CA with its key.
struct Authority {
    certificate: CertificateDer<'static>,
    pem: Option<String>,
    issuer: Issuer<'static, KeyPair>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Authority {
    fn new(host: &Host, now: OffsetDateTime) -> Result<Self, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // A name of its own, so that an older CA in the same trust store is not taken
        // for this one.
        let mark = u32::from_be_bytes(common::random::bytes());
        params.distinguished_name = name(&format!("stream-hub CA {mark:08x}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(host.constraints());
        (params.not_before, params.not_after) = (now - SKEW, now + CA_LIFE);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            pem: Some(certificate.pem()),
            not_before: params.not_before,
            not_after: params.not_after,
            issuer: Issuer::new(params, key),
        })
    }

    /// The CA on disk, if its key is there too.
    fn read(dir: &Path, certificate: &CertificateDer<'static>) -> Result<Option<Self>, PkiError> {
        let path = dir.join(CA_KEY);
        let Some(text) = text_in(&path)? else {
            return Ok(None);
        };
        let key = KeyPair::from_pem(&text).map_err(|_| PkiError::Unreadable(path))?;
        let unreadable = || PkiError::Unreadable(dir.join(CA_CERTIFICATE));
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
        let validity = parsed.validity();
        Ok(Some(Self {
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
            issuer: Issuer::from_ca_cert_der(certificate, key).map_err(|_| unreadable())?,
            certificate: certificate.clone(),
            pem: None,
        }))
    }

    /// A certificate for the host, within the CA's own life. A clock that is not set
    /// yet stands before the CA's begin: then the CA's begin is the better clock.
    fn issue(&self, host: &Host, now: OffsetDateTime) -> Result<Pair, PkiError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // No host name here: verifiers that look at it would judge it by other rules.
        params.distinguished_name = name("stream-hub server");
        params.subject_alt_names = host.alternative_names()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - SKEW).max(self.not_before);
        params.not_after = (now.max(self.not_before) + SERVER_LIFE).min(self.not_after);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let pem = (certificate.pem(), key.serialize_pem());
        Ok(Pair {
            certificate: certificate.der().clone(),
            key: key.into(),
            pem: Some(pem),
        })
    }

    fn write(&self, dir: &Path) -> Result<(), PkiError> {
        let Some(pem) = &self.pem else {
            return Ok(());
        };
        let key = self.issuer.key().serialize_pem();
        write(dir.join(CA_KEY), &key, Access::Private)?;
        write(dir.join(CA_CERTIFICATE), pem, Access::Public)
    }
}

/// The server's certificate with its key, and their text when they are new.
struct Pair {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pem: Option<(String, String)>,
}

impl Pair {
    fn read(dir: &Path) -> Result<Option<Self>, PkiError> {
        let path = dir.join(SERVER_KEY);
        let Some(certificate) = certificate_in(&dir.join(SERVER_CERTIFICATE))? else {
            return Ok(None);
        };
        let Some(text) = text_in(&path)? else {
            return Ok(None);
        };
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| PkiError::Unreadable(path))?;
        Ok(Some(Self {
            certificate,
            key,
            pem: None,
        }))
    }

    /// Whether a client that trusts only this CA accepts the certificate under every
    /// name of the host, still in [`RENEWAL`], and the key belongs to it. Where our
    /// clock is not set yet, the certificate's begin counts instead: a good
    /// certificate is not thrown away for it.
    fn check(
        &self,
        ca: &CertificateDer<'static>,
        host: &Host,
        now: OffsetDateTime,
    ) -> Result<(), rustls::Error> {
        let provider = common::tls::provider();
        CertifiedKey::from_der(
            vec![self.certificate.clone()],
            self.key.clone_key(),
            &provider,
        )?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.certificate)
            .map_err(|_| rustls::CertificateError::BadEncoding)?;
        let at = now.max(parsed.validity().not_before.to_datetime()) + RENEWAL;
        let at = std::time::Duration::from_secs(at.unix_timestamp().unsigned_abs());
        for name in &host.names {
            verifier.verify_server_cert(
                &self.certificate,
                &[],
                name,
                &[],
                UnixTime::since_unix_epoch(at),
            )?;
        }
        Ok(())
    }

    fn write(&self, dir: &Path) -> Result<(), PkiError> {
        let Some((certificate, key)) = &self.pem else {
            return Ok(());
        };
        write(dir.join(SERVER_KEY), key, Access::Private)?;
        write(dir.join(SERVER_CERTIFICATE), certificate, Access::Public)
    }
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn text_in(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(PkiError::Unreadable(path.to_owned()))
        }
        Err(source) => Err(PkiError::Io {
            what: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

fn certificate_in(path: &Path) -> Result<Option<CertificateDer<'static>>, PkiError> {
    text_in(path)?
        .map(|text| {
            CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|_| PkiError::Unreadable(path.to_owned()))
        })
        .transpose()
}

fn write(path: PathBuf, text: &str, access: Access) -> Result<(), PkiError> {
    files::write(&path, text.as_bytes(), access).map_err(|source| PkiError::Io {
        what: "write",
        path,
        source,
    })
}

#[cfg(test)]
mod tests;
