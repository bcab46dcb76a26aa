//! The folder `acme` in that of the TLS material: the hub's key, the CA's certificate for it, and the
//! account.

use std::io;
use std::path::{Path, PathBuf};

use common::files::{self, Access};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::Value;

use super::AcmeError;
use super::error::io_error;

/// The folder, in that of the TLS material.
pub(crate) const FOLDER: &str = "acme";
/// The one key of all the hub's certificates of this kind.
pub(crate) const KEY: &str = "key.pem";
/// The last certificate with its chain, behind a line with the directory of its CA.
const CERTIFICATE: &str = "certificate.pem";
/// The account, with its key.
pub(crate) const ACCOUNT: &str = "account.json";
/// Begins the line with the directory; what stands before the first certificate is a comment in PEM.
const DIRECTORY: &str = "directory: ";

/// The folder.
#[derive(Debug)]
pub struct Store(PathBuf);

impl Store {
    /// In the folder of the TLS material; made when it is missing.
    ///
    /// # Errors
    /// [`AcmeError::Io`].
    pub fn open(tls_dir: &Path) -> Result<Self, AcmeError> {
        let folder = tls_dir.join(FOLDER);
        files::create_folder(&folder).map_err(io_error("create the folder", &folder))?;
        Ok(Self(folder))
    }

    /// The hub's key; made when it is missing.
    ///
    /// # Errors
    /// [`AcmeError`] names the file.
    pub fn key(&self) -> Result<KeyPair, AcmeError> {
        let path = self.0.join(KEY);
        if let Some(text) = read(&path)? {
            return KeyPair::from_pem(&text).map_err(|_| AcmeError::Unreadable(path));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        write(&path, &key.serialize_pem(), Access::Private)?;
        Ok(key)
    }

    /// The last certificate, and the directory of the CA that has signed it.
    ///
    /// # Errors
    /// [`AcmeError::Io`].
    pub fn certificate(&self) -> Result<Option<(String, String)>, AcmeError> {
        let Some(text) = read(&self.0.join(CERTIFICATE))? else {
            return Ok(None);
        };
        let line = text.lines().next().unwrap_or_default();
        let directory = line.strip_prefix(DIRECTORY).unwrap_or_default().to_owned();
        Ok(Some((directory, text)))
    }

    /// Keeps a certificate.
    ///
    /// # Errors
    /// [`AcmeError::Io`]; the one before is still there.
    pub fn set_certificate(&self, directory: &str, pem: &str) -> Result<(), AcmeError> {
        let text = format!("{DIRECTORY}{directory}\n{pem}");
        write(&self.0.join(CERTIFICATE), &text, Access::Public)
    }

    /// The account.
    ///
    /// # Errors
    /// [`AcmeError`] names the file.
    pub fn account(&self) -> Result<Option<Value>, AcmeError> {
        let path = self.account_file();
        let text = read(&path)?;
        // The error would quote the file.
        text.map(|text| serde_json::from_str(&text).map_err(|_| AcmeError::Unreadable(path)))
            .transpose()
    }

    /// Keeps an account.
    ///
    /// # Errors
    /// [`AcmeError::Io`]; the one before is still there.
    pub fn set_account(&self, account: &Value) -> Result<(), AcmeError> {
        write(
            &self.account_file(),
            &format!("{account:#}\n"),
            Access::Private,
        )
    }

    /// Where the account is.
    pub fn account_file(&self) -> PathBuf {
        self.0.join(ACCOUNT)
    }
}

fn read(path: &Path) -> Result<Option<String>, AcmeError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(AcmeError::Unreadable(path.to_owned()))
        }
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn write(path: &Path, text: &str, access: Access) -> Result<(), AcmeError> {
    files::write(path, text.as_bytes(), access).map_err(io_error("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_and_what_is_precious_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = store.key().unwrap().serialize_pem();
        assert_eq!(store.key().unwrap().serialize_pem(), key);
        assert!(store.certificate().unwrap().is_none() && store.account().unwrap().is_none());
        store.set_certificate("https://ca/dir", "pem\n").unwrap();
        let (directory, text) = store.certificate().unwrap().unwrap();
        assert_eq!(directory, "https://ca/dir");
        assert!(text.ends_with("\npem\n"));
        let account = serde_json::json!({"a": "secret"});
        store.set_account(&account).unwrap();
        assert_eq!(store.account().unwrap(), Some(account));
        let folder = dir.path().join(FOLDER);
        #[cfg(unix)]
        for (name, wanted) in [(KEY, 0o600), (ACCOUNT, 0o600), (CERTIFICATE, 0o644)] {
            use std::os::unix::fs::PermissionsExt as _;
            let metadata = std::fs::metadata(folder.join(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, wanted, "{name}");
        }
        for name in [KEY, ACCOUNT] {
            std::fs::write(folder.join(name), "precious").unwrap();
        }
        assert!(matches!(store.key(), Err(AcmeError::Unreadable(_))));
        let error = store.account().unwrap_err().to_string();
        assert!(
            error.contains(ACCOUNT) && !error.contains("precious"),
            "{error}"
        );
    }
}
