//! The files of certificates and keys.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::PkiError;
use common::files::{self, Access};

pub(super) fn text_in(path: &Path) -> Result<Option<String>, PkiError> {
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

pub(super) fn certificate_in(path: &Path) -> Result<Option<CertificateDer<'static>>, PkiError> {
    text_in(path)?
        .map(|text| {
            CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|_| PkiError::Unreadable(path.to_owned()))
        })
        .transpose()
}

pub(super) fn write(path: PathBuf, text: &str, access: Access) -> Result<(), PkiError> {
    files::write(&path, text.as_bytes(), access).map_err(|source| PkiError::Io {
        what: "write",
        path,
        source,
    })
}
