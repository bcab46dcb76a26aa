//! The server's certificate.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::host::Host;
use super::pem::{certificate_in, text_in, write};
use super::{PkiError, RENEWAL, SERVER_CERTIFICATE, SERVER_KEY};
use common::files::Access;

/// The server's certificate with its key, and their text when they are new.
pub(super) struct Pair {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: PrivateKeyDer<'static>,
    pem: Option<(String, String)>,
}

impl Pair {
    /// A new one, with the text of certificate and key.
    pub(super) fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        pem: (String, String),
    ) -> Self {
        Self {
            certificate,
            key,
            pem: Some(pem),
        }
    }

    pub(super) fn read(dir: &Path) -> Result<Option<Self>, PkiError> {
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
    pub(super) fn check(
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

    pub(super) fn write(&self, dir: &Path) -> Result<(), PkiError> {
        let Some((certificate, key)) = &self.pem else {
            return Ok(());
        };
        write(dir.join(SERVER_KEY), key, Access::Private)?;
        write(dir.join(SERVER_CERTIFICATE), certificate, Access::Public)
    }
}
