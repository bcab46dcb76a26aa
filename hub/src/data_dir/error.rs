//! What can be wrong with a data folder, and what a person does about it.

use std::io;
use std::path::{Path, PathBuf};

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
    /// There is no such folder, and none should be made.
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

/// A failure of the system with this path.
pub(super) fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io {
        what,
        path: path.clone(),
        source,
    }
}
