//! The data folder: where a hub keeps its database, its TLS material and the address
//! it is known by. The folder is for its owner only, and one hub at a time serves it;
//! admin commands work on it beside a running hub.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::files::{self, Access};
use common::hub_address::HubAddress;
use common::tls::Fingerprint;

use self::error::io_error;
use crate::tls::FINGERPRINT;
use crate::tls::acme;
use crate::tls::ca::CA_CERTIFICATE;

mod access;
mod error;

pub use error::DataDirError;

/// The host name of a hub that was given none.
pub const DEFAULT_HOST: &str = "localhost";

const DATABASE: &str = "hub.db";
const ADDRESS: &str = "address";
const LOCK: &str = "serve.lock";
const TLS: &str = "tls";

/// An open data folder.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
    is_new: bool,
}

/// The right to serve a data folder, given back on drop and when the process ends.
#[derive(Debug)]
pub struct ServeLock {
    _file: File,
}

impl DataDir {
    /// Opens the folder; makes it when it is missing, for its owner only.
    ///
    /// # Errors
    /// [`DataDirError`] when it cannot be made or closed to others.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let is_new = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => false,
            Ok(_) => return Err(DataDirError::NotAFolder(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                files::create_folder(path).map_err(io_error("create the data folder", path))?;
                true
            }
            Err(source) => return Err(io_error("open the data folder", path)(source)),
        };
        // Messages and hints shall name the folder whatever the working directory is.
        let root = std::path::absolute(path).map_err(io_error("find the data folder", path))?;
        let dir = Self { root, is_new };
        dir.check_access()?;
        Ok(dir)
    }

    /// Opens the folder of a hub that is there already.
    ///
    /// # Errors
    /// [`DataDirError::Missing`] when it is not, and as [`DataDir::open`].
    pub fn open_existing(path: &Path) -> Result<Self, DataDirError> {
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(DataDirError::Missing(path.to_owned()))
            }
            _ => {
                let dir = Self::open(path)?;
                // What only a hub, or a command of its, has put there.
                if [DATABASE, ADDRESS, LOCK]
                    .map(|name| dir.root.join(name).exists())
                    .contains(&true)
                {
                    Ok(dir)
                } else {
                    Err(DataDirError::Missing(path.to_owned()))
                }
            }
        }
    }

    /// Where it is, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Whether opening it made it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The database file: there, and private, before SQLite opens it. SQLite gives the
    /// files it puts beside it the same rights.
    ///
    /// # Errors
    /// [`DataDirError::Io`] when it cannot be made; [`DataDirError::EmptyDatabase`] when it has
    /// no content although the folder has a CA, or a key for one by ACME: as an empty registry it would make a stranger
    /// of every device.
    pub fn database(&self) -> Result<PathBuf, DataDirError> {
        let path = self.root.join(DATABASE);
        let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        // What SQLite has not moved into the database yet is content too.
        let log = self.root.join(format!("{DATABASE}-wal"));
        let tls = self.root.join(TLS);
        let has_served =
            tls.join(CA_CERTIFICATE).exists() || tls.join(acme::FOLDER).join(acme::KEY).exists();
        if size(&path) == Some(0) && size(&log).unwrap_or(0) == 0 && has_served {
            return Err(DataDirError::EmptyDatabase(path));
        }
        files::open_private(&path).map_err(io_error("create the database", &path))?;
        Ok(path)
    }

    /// The folder of the TLS material, made when it is missing.
    ///
    /// # Errors
    /// [`DataDirError::Io`] when it cannot be made.
    pub fn tls(&self) -> Result<PathBuf, DataDirError> {
        let path = self.root.join(TLS);
        files::create_folder(&path).map_err(io_error("create the folder", &path))?;
        Ok(path)
    }

    /// The address that `serve` stored last, if it ever did.
    ///
    /// # Errors
    /// [`DataDirError`] when it cannot be read.
    pub fn stored_address(&self) -> Result<Option<HubAddress>, DataDirError> {
        let path = self.root.join(ADDRESS);
        match std::fs::read_to_string(&path) {
            Ok(text) => HubAddress::parse(text.trim())
                .map(Some)
                .map_err(|_| DataDirError::BadAddress(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(DataDirError::BadAddress(path))
            }
            Err(source) => Err(io_error("read", &path)(source)),
        }
    }

    /// The address that connection strings carry: the stored one, and before the first
    /// `serve` [`DEFAULT_HOST`].
    ///
    /// # Errors
    /// [`DataDirError`] when it cannot be read.
    pub fn address(&self) -> Result<HubAddress, DataDirError> {
        match self.stored_address()? {
            Some(address) => Ok(address),
            None => HubAddress::parse(DEFAULT_HOST)
                .map_err(|_| DataDirError::BadAddress(self.root.join(ADDRESS))),
        }
    }

    /// By which certificate enrolment codes name the hub that serves this folder; `None`: none has
    /// served it yet.
    ///
    /// # Errors
    /// [`DataDirError`] when it cannot be read.
    pub fn fingerprint(&self) -> Result<Option<Fingerprint>, DataDirError> {
        let path = self.root.join(TLS).join(FINGERPRINT);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Fingerprint::parse(text.trim())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error("read", &path)(source)),
        }
    }

    /// Stores the address for the admin commands; one that is stored already is not written
    /// again, so that a full disk does not keep a hub from starting.
    ///
    /// # Errors
    /// [`DataDirError::Io`] when it cannot be written; the old one then stays.
    pub fn store_address(&self, address: &HubAddress) -> Result<(), DataDirError> {
        let path = self.root.join(ADDRESS);
        let text = format!("{address}\n");
        if std::fs::read(&path).is_ok_and(|stored| stored == text.as_bytes()) {
            return Ok(());
        }
        files::write(&path, text.as_bytes(), Access::Private).map_err(io_error("write", &path))
    }

    /// Takes the right to serve this folder; blocks for a moment at most.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] when another hub has it.
    pub fn lock(&self) -> Result<ServeLock, DataDirError> {
        let (path, file) = self.lock_file()?;
        // An admin command that looks whether a hub runs holds the lock for an instant.
        for _ in 0..10 {
            match file.try_lock() {
                Ok(()) => return Ok(ServeLock { _file: file }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
                Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
            }
        }
        Err(DataDirError::InUse(self.root.clone()))
    }

    /// Whether a hub serves this folder now.
    ///
    /// # Errors
    /// [`DataDirError::Io`] when that cannot be found out.
    pub fn is_served(&self) -> Result<bool, DataDirError> {
        let (path, file) = self.lock_file()?;
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
        }
    }

    fn lock_file(&self) -> Result<(PathBuf, File), DataDirError> {
        let path = self.root.join(LOCK);
        let file = files::open_private(&path).map_err(io_error("open", &path))?;
        Ok((path, file))
    }
}

#[cfg(test)]
mod tests;
