//! Whose the data folder is, and who has a way into it.

#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::path::PathBuf;

use super::DataDir;
use super::error::DataDirError;
#[cfg(unix)]
use super::error::io_error;
#[cfg(unix)]
use super::{ADDRESS, DATABASE, LOCK, TLS};
#[cfg(unix)]
use crate::tls::acme;
#[cfg(unix)]
use crate::tls::ca::{CA_CERTIFICATE, CA_KEY, SERVER_KEY};

impl DataDir {
    /// Only the user that runs the hub may have a way to its keys. An empty folder of theirs
    /// is closed to others; one in use is refused, since what happened to the keys meanwhile
    /// is for a person to judge; and a mistyped `--data-dir /tmp` must not close /tmp.
    #[cfg(unix)]
    pub(super) fn check_access(&self) -> Result<(), DataDirError> {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let user = rustix::process::geteuid().as_raw();
        let owner = |path: PathBuf, metadata: &std::fs::Metadata| {
            if metadata.uid() == user {
                return Ok(());
            }
            Err(DataDirError::Owner {
                path,
                root: self.root.clone(),
                owner: metadata.uid(),
                user,
            })
        };
        let is_open = |metadata: &std::fs::Metadata| metadata.permissions().mode() & 0o077 != 0;

        let metadata = std::fs::metadata(&self.root)
            .map_err(io_error("see the access rights of", &self.root))?;
        let is_ours = self.root.join(DATABASE).exists() || self.root.join(LOCK).exists();
        if is_open(&metadata) && !is_ours {
            let mut entries = std::fs::read_dir(&self.root)
                .map_err(io_error("look into the data folder", &self.root))?;
            if entries.next().is_some() {
                return Err(DataDirError::Foreign(self.root.clone()));
            }
            owner(self.root.clone(), &metadata)?;
            return std::fs::set_permissions(&self.root, std::fs::Permissions::from_mode(0o700))
                .map_err(io_error("set the access rights of", &self.root));
        }
        owner(self.root.clone(), &metadata)?;
        if is_open(&metadata) {
            return Err(DataDirError::Open(self.root.clone()));
        }
        let tls = self.root.join(TLS);
        let kept = [DATABASE, ADDRESS, LOCK].map(|name| self.root.join(name));
        let keys = [CA_CERTIFICATE, CA_KEY, SERVER_KEY].map(|name| tls.join(name));
        let acme = tls.join(acme::FOLDER);
        let keys_of_acme = [acme::KEY, acme::ACCOUNT].map(|name| acme.join(name));
        let folders = [tls, acme];
        let all = kept.into_iter().chain(folders).chain(keys);
        for path in all.chain(keys_of_acme) {
            let metadata = match std::fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(io_error("see the access rights of", &path)(source)),
            };
            if metadata.is_dir() && is_open(&metadata) {
                return Err(DataDirError::Open(path));
            }
            owner(path, &metadata)?;
        }
        Ok(())
    }

    /// On Windows a folder that the hub makes is closed to other users (`files::create_folder`), and
    /// one that was there has the rights that its owner gave it.
    #[cfg(not(unix))]
    pub(super) fn check_access(&self) -> Result<(), DataDirError> {
        Ok(())
    }
}
