//! Where the certificate comes from: files, ACME, or else the hub's own CA.

use std::convert::Infallible;

use common::settings::{Setting, Sources};

use super::{ConfigError, ServeConfig, keys};
use crate::cli::{self, ServeArgs};
use crate::data_dir::{DEFAULT_HOST, DataDir, DataDirError};
use crate::tls::CertificateSource;
use crate::tls::acme::{AcmeError, AcmeSettings, LETS_ENCRYPT, check_name};

/// The source of the certificate.
///
/// # Errors
/// [`ConfigError`]: one sentence on what to give.
pub(super) fn resolve(
    args: &ServeArgs,
    sources: &Sources<'_>,
) -> Result<CertificateSource, ConfigError> {
    let certificate = sources.path(keys::TLS_CERT, args.tls_cert.clone())?;
    let key = sources.path(keys::TLS_KEY, args.tls_key.clone())?;
    let files = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(one), None) | (None, Some(one)) => {
            return Err(ConfigError::HalfCertificate(one.source));
        }
        (None, None) => None,
    };
    let is_acme = sources.flag(keys::ACME, args.acme)?;
    let acme = acme(args, sources, is_acme)?;
    match (acme, files) {
        (Some(_), Some((certificate, _))) => Err(ConfigError::TwoCertificates(certificate.source)),
        (Some(settings), None) => Ok(CertificateSource::Acme(settings)),
        (None, Some((certificate, key))) => Ok(CertificateSource::Files {
            certificate: certificate.value,
            key: key.value,
        }),
        (None, None) => Ok(CertificateSource::Managed),
    }
}

/// The settings of ACME, if it is wanted.
fn acme(
    args: &ServeArgs,
    sources: &Sources<'_>,
    is_wanted: bool,
) -> Result<Option<AcmeSettings>, ConfigError> {
    let given = args.acme_directory.clone();
    let directory = sources.setting(keys::ACME_DIRECTORY, given, cli::acme_directory)?;
    let contacts = sources.list(keys::ACME_CONTACT, args.acme_contact.clone())?;
    let contacts = contacts.into_iter().map(|contact| contact.read(as_url));
    let contacts = contacts.collect::<Result<Vec<_>, _>>()?;
    let ca_file = sources.path(keys::ACME_CA_FILE, args.acme_ca_file.clone())?;
    if !is_wanted {
        let unused = [
            directory.map(|setting| setting.source),
            contacts.into_iter().next().map(|setting| setting.source),
            ca_file.map(|setting| setting.source),
        ];
        return match unused.into_iter().flatten().next() {
            Some(source) => Err(ConfigError::WithoutAcme(source)),
            None => Ok(None),
        };
    }
    Ok(Some(AcmeSettings {
        directory: directory.map_or_else(|| LETS_ENCRYPT.to_owned(), Setting::into_value),
        contacts: contacts.into_iter().map(Setting::into_value).collect(),
        ca_file: ca_file.map(Setting::into_value),
    }))
}

/// A contact as the CA wants it: a bare e-mail address is one, too.
fn as_url(contact: String) -> Result<String, Infallible> {
    Ok(match contact.contains(':') {
        true => contact,
        false => format!("mailto:{contact}"),
    })
}

impl ServeConfig {
    /// Reads what else a start would read: the certificate's files, and of ACME the host name and the
    /// roots. Blocks.
    ///
    /// # Errors
    /// [`ConfigError`] names the file or the name at fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(provider) = &self.access.oidc {
            common::tls::client_config(provider.ca_file.as_deref(), None)?;
        }
        match &self.certificate {
            CertificateSource::Managed => {}
            CertificateSource::Files { certificate, key } => {
                common::tls::certificates(certificate)?;
                common::tls::private_key(key)?;
            }
            CertificateSource::Acme(settings) => {
                let host = match &self.hostname {
                    Some(address) => address.name().to_owned(),
                    None => self.last_host()?,
                };
                check_name(&host, &settings.directory).map_err(AcmeError::from)?;
                let roots = settings.ca_file.as_deref();
                common::tls::client_config(roots, None).map_err(AcmeError::from)?;
            }
        }
        Ok(())
    }

    /// The name that a start without `--hostname` would use.
    fn last_host(&self) -> Result<String, ConfigError> {
        match DataDir::open_existing(&self.data_dir) {
            Ok(dir) => Ok(dir.address()?.name().to_owned()),
            Err(DataDirError::Missing(_)) => Ok(DEFAULT_HOST.to_owned()),
            Err(error) => Err(error.into()),
        }
    }
}
