//! Why ssh or its configuration cannot be used.

use std::io;
use std::path::PathBuf;

/// Why ssh or its configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpensshError {
    /// The path of this program is not known.
    #[error("the path of this program is not known")]
    OwnFile(#[source] io::Error),
    /// There is no ssh.
    #[error("ssh cannot be started; install OpenSSH's client")]
    NoSsh(#[source] io::Error),
    /// ssh has ended with this exit code, and has said why.
    #[error("ssh ended with exit code {0}")]
    Ended(u8),
    /// The user has no home.
    #[error("the folder of ssh's configuration is not known: set HOME")]
    NoHome,
    /// A file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file or folder cannot be written.
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A path cannot stand in ssh's configuration.
    #[error("{} cannot stand in ssh's configuration: it has a quote or a line end", .0.display())]
    Path(PathBuf),
}
