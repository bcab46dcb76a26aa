//! TLS for clients: one crypto provider, the system's roots and those of a file, or one certificate
//! that is known by its fingerprint, and explanations of certificate errors. Verification cannot be
//! switched off.

mod chain;
mod pinned;
#[cfg(all(unix, not(target_vendor = "apple")))]
mod roots;
pub mod stream;
mod tickets;
mod verify;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tickets::Tickets;
use verify::ServerVerifier;

use crate::text_input::{self, TextError};

pub use chain::{Link, links};
pub use pinned::{Fingerprint, OwnCertificate, pinned_config};
pub use verify::{BadCertificate, CertificateProblem};

/// The crypto provider of all our programs. Of the TLS 1.3 suites, the one with SHA-256 comes
/// first: processors have instructions for it, but not for SHA-384, and half of a resumed handshake
/// is hashing.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let first = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != first);
    Arc::new(provider)
}

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A PEM file cannot be read or does not contain what is needed.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        fault: PemFault,
    },
    /// Neither the system nor `--ca-file` has a root certificate.
    #[error("the system has no trusted root certificates; name the hub's CA with --ca-file")]
    NoRoots,
    /// Certificate and key do not match, or rustls refuses them.
    #[error("the TLS certificate or key is not usable")]
    Rustls(#[from] rustls::Error),
}

/// What is wrong with a PEM file. No variant repeats any of it.
#[derive(Debug, thiserror::Error)]
pub enum PemFault {
    /// It cannot be read.
    #[error(transparent)]
    Text(#[from] TextError),
    /// It contains no certificate.
    #[error("there is no PEM certificate in it")]
    NoCertificate,
    /// It does not contain what is needed.
    #[error("there is nothing of the kind in it")]
    Nothing,
    /// It is not PEM.
    #[error("it is not a PEM file")]
    NotPem,
    /// Its certificate cannot be trusted as a CA's.
    #[error(transparent)]
    Certificate(rustls::Error),
}

impl From<pem::Error> for PemFault {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::Text(error.into()),
            pem::Error::NoItemsFound => Self::Nothing,
            // Other variants may quote the file's content.
            _ => Self::NotPem,
        }
    }
}

/// Reads all certificates of a PEM file.
///
/// # Errors
/// [`TlsConfigError::File`] when it cannot be read or has no certificate.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let failed = |fault: PemFault| TlsConfigError::File {
        what: "certificates",
        path: path.to_owned(),
        fault,
    };
    let text = text_input::read(path).map_err(|error| failed(error.into()))?;
    let found = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(error.into()))?;
    if found.is_empty() {
        return Err(failed(PemFault::NoCertificate));
    }
    Ok(found)
}

/// Reads the private key of a PEM file.
///
/// # Errors
/// [`TlsConfigError::File`] when it cannot be read or has no key.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsConfigError> {
    let failed = |fault: PemFault| TlsConfigError::File {
        what: "a private key",
        path: path.to_owned(),
        fault,
    };
    let text = text_input::read(path).map_err(|error| failed(error.into()))?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| failed(error.into()))
}

/// A client certificate and its key, for X.509 device identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// PEM file of the certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// A client configuration with the system's roots, those of `ca_file`, and a client certificate if
/// there is one.
///
/// # Errors
/// [`TlsConfigError`] names the invalid file.
pub fn client_config(
    ca_file: Option<&Path>,
    identity: Option<&ClientIdentity>,
) -> Result<Arc<ClientConfig>, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    // Unreadable system roots are ignored.
    #[cfg(all(unix, not(target_vendor = "apple")))]
    roots::add_to(&mut roots);
    #[cfg(not(all(unix, not(target_vendor = "apple"))))]
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            roots
                .add(certificate)
                .map_err(|error| TlsConfigError::File {
                    what: "a CA certificate",
                    path: path.to_owned(),
                    fault: PemFault::Certificate(error),
                })?;
        }
    }
    if roots.is_empty() {
        return Err(TlsConfigError::NoRoots);
    }
    let provider = provider();
    let verifier = ServerVerifier::new(roots, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // This does not weaken verification: it wraps rustls' own verifier, to explain refusals.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(
            certificates(&identity.certificate)?,
            private_key(&identity.key)?,
        )?,
    };
    config.resumption = Resumption::store(Arc::new(Tickets::default()));
    Ok(Arc::new(config))
}

/// Finds an error of type `T` among an error and its causes, also inside `io::Error`s, whose
/// `source` skips the wrapped error.
pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        if let Some(inner) = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            && let Some(found) = find::<T>(inner)
        {
            return Some(found);
        }
        current = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files_are_named() {
        let error = client_config(Some(Path::new("/no/such/ca.pem")), None).unwrap_err();
        assert!(error.to_string().contains("/no/such/ca.pem"), "{error}");
    }
}
