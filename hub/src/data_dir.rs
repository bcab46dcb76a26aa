//! The data folder: where a hub keeps its database, its TLS material and the address
//! it is known by. The folder is for its owner only, and one hub at a time serves it;
//! admin commands work on it beside a running hub.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::hub_address::HubAddress;

use crate::files::{self, Access};
use crate::tls::ca::{CA_CERTIFICATE, CA_KEY, SERVER_KEY};

/// The host name of a hub that was given none.
pub const DEFAULT_HOST: &str = "localhost";

const DATABASE: &str = "hub.db";
const ADDRESS: &str = "address";
const LOCK: &str = "serve.lock";
const TLS: &str = "tls";

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file or folder in it cannot be made, read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// There is no such folder, and nothing is to be made.
    #[error(
        "there is no data folder {}; name the hub's with --data-dir (`stream-hub serve` and `stream-hub device create` make one)",
        .0.display()
    )]
    Missing(PathBuf),
    /// The path is a file.
    #[error("{} is not a folder; name another one with --data-dir", .0.display())]
    NotAFolder(PathBuf),
    /// Others can look into a folder that holds files which are not a hub's.
    #[error(
        "the folder {path} holds other files and is open to others; name an empty or a new folder with --data-dir, or close this one with `chmod 700 {path}`",
        path = .0.display()
    )]
    Foreign(PathBuf),
    /// The folder, or something in it that keys are kept in, belongs to another user.
    #[error(
        "{path} belongs to user {owner}, who could read or replace the hub's keys; run this as that user (`sudo -u '#{owner}' stream-hub …`), or make the folder yours with `chown -R {user} {root}`",
        path = .path.display(), root = .root.display()
    )]
    Owner {
        /// What belongs to another user.
        path: PathBuf,
        /// The data folder.
        root: PathBuf,
        /// The id of the user that it belongs to.
        owner: u32,
        /// The id of the user that runs this program.
        user: u32,
    },
    /// Other users can get at a folder that holds keys.
    #[error(
        "the folder {path} is open to other users, who may have read or replaced the hub's keys; close it with `chmod 700 {path}`, or name another folder with --data-dir",
        path = .0.display()
    )]
    Open(PathBuf),
    /// A database without content lies beside a CA that devices trust.
    #[error(
        "the database {path} is empty, although this folder has served before: its devices and policies are lost; put it back from a backup, or remove it with `rm {path}` to start with an empty registry and new keys",
        path = .0.display()
    )]
    EmptyDatabase(PathBuf),
    /// The stored address cannot be read.
    #[error(
        "{} does not hold a host name; `stream-hub serve --hostname NAME[:PORT]` writes it anew",
        .0.display()
    )]
    BadAddress(PathBuf),
    /// Another hub serves this folder.
    #[error(
        "another stream-hub is serving {}; stop it first, or name another folder with --data-dir",
        .0.display()
    )]
    InUse(PathBuf),
}

impl DataDirError {
    /// Whether another folder was meant, or none has been named: what was given is at fault.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::NotAFolder(_))
    }
}

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
                create_folder(path).map_err(io_error("create the data folder", path))?;
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
    /// no content although the folder has a CA: as an empty registry it would make a stranger
    /// of every device.
    pub fn database(&self) -> Result<PathBuf, DataDirError> {
        let path = self.root.join(DATABASE);
        let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        // What SQLite has not moved into the database yet is content too.
        let log = self.root.join(format!("{DATABASE}-wal"));
        if size(&path) == Some(0)
            && size(&log).unwrap_or(0) == 0
            && self.root.join(TLS).join(CA_CERTIFICATE).exists()
        {
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
        create_folder(&path).map_err(io_error("create the folder", &path))?;
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

    /// Only the user that runs the hub may have a way to its keys. An empty folder of theirs
    /// is closed to others; one in use is refused, since what happened to the keys meanwhile
    /// is for a person to judge; and a mistyped `--data-dir /tmp` must not close /tmp.
    #[cfg(unix)]
    fn check_access(&self) -> Result<(), DataDirError> {
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
        for path in kept.into_iter().chain([tls.clone()]).chain(keys) {
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

    /// Elsewhere the folder has the rights of the one it lies in.
    #[cfg(not(unix))]
    fn check_access(&self) -> Result<(), DataDirError> {
        Ok(())
    }
}

fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path)
}

fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io {
        what,
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let dir = DataDir::open(&path).unwrap();
        assert!(dir.is_new());
        assert_eq!(dir.address().unwrap().to_string(), "localhost");
        assert_eq!(dir.stored_address().unwrap(), None);
        dir.store_address(&HubAddress::parse("localhost:8443").unwrap())
            .unwrap();
        let again = DataDir::open(&path).unwrap();
        assert!(!again.is_new());
        let address = again.address().unwrap();
        assert_eq!(address.to_string(), "localhost:8443");
        let written = || {
            std::fs::metadata(path.join(ADDRESS))
                .unwrap()
                .modified()
                .unwrap()
        };
        let before = written();
        again.store_address(&address).unwrap();
        assert_eq!(written(), before, "it is stored already");
        std::fs::write(path.join(ADDRESS), "a b").unwrap();
        assert!(matches!(again.address(), Err(DataDirError::BadAddress(_))));
    }

    #[test]
    fn one_hub_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(temporary.path()).unwrap();
        assert!(!dir.is_served().unwrap());
        let lock = dir.lock().unwrap();
        assert!(dir.is_served().unwrap());
        let error = dir.lock().unwrap_err();
        assert!(error.to_string().contains("another stream-hub"), "{error}");
        drop(lock);
        assert!(!dir.is_served().unwrap());
        dir.lock().unwrap();
    }

    #[test]
    fn a_file_is_no_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("f");
        std::fs::write(&path, "").unwrap();
        assert!(matches!(
            DataDir::open(&path),
            Err(DataDirError::NotAFolder(_))
        ));
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_look_inside() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let open_up = |path: &Path| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("new");
        let dir = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&dir.database().unwrap()), 0o600);
        assert_eq!(mode(&dir.tls().unwrap()), 0o700);

        for open in [path.clone(), path.join(TLS)] {
            open_up(&open);
            let error = DataDir::open(&path).unwrap_err();
            let command = format!("`chmod 700 {}`", open.display());
            assert!(error.to_string().contains(&command), "{error}");
            assert_eq!(mode(&open), 0o755, "it is left for a person to judge");
            std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        DataDir::open(&path).unwrap();

        let empty = temporary.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        open_up(&empty);
        DataDir::open(&empty).unwrap();
        assert_eq!(mode(&empty), 0o700, "nothing was in it to be read");

        let foreign = temporary.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("something"), "").unwrap();
        open_up(&foreign);
        let error = DataDir::open(&foreign).unwrap_err();
        assert!(matches!(error, DataDirError::Foreign(_)), "{error}");
        assert_eq!(mode(&foreign), 0o755, "it is left alone");
    }

    /// Only root can give a file away, so only root can try.
    #[cfg(unix)]
    #[test]
    fn what_belongs_to_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("data");
        let dir = DataDir::open(&path).unwrap();
        dir.database().unwrap();
        dir.tls().unwrap();
        std::fs::write(path.join(TLS).join(CA_KEY), "").unwrap();
        let own = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), None).unwrap();
        for foreign in ["", DATABASE, TLS, "tls/ca.key"] {
            let foreign = path.join(foreign);
            own(&foreign, 4321);
            let error = DataDir::open(&path).unwrap_err();
            assert!(matches!(error, DataDirError::Owner { .. }), "{error}");
            let command = format!("`chown -R 0 {}`", path.display());
            assert!(error.to_string().contains(&command), "{error}");
            own(&foreign, 0);
        }
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn an_empty_database_beside_a_ca_is_a_loss() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&temporary.path().join("data")).unwrap();
        let path = dir.database().unwrap();
        // A first start that did not come far.
        dir.database().unwrap();
        std::fs::write(dir.tls().unwrap().join(CA_CERTIFICATE), "a CA").unwrap();
        let error = dir.database().unwrap_err();
        assert!(matches!(error, DataDirError::EmptyDatabase(_)), "{error}");
        let log = path.with_file_name("hub.db-wal");
        std::fs::write(&log, "a change").unwrap();
        dir.database().unwrap();
        std::fs::remove_file(&log).unwrap();
        std::fs::remove_file(&path).unwrap();
        dir.database().unwrap();
    }
}
