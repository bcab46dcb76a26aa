//! A Unix socket that clients of this user connect to. Its file is made for this user alone, replaces
//! one that another program has left behind, and goes with the program.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::socket_turn::SocketTurn;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::accept::Accepting;
use crate::tunnel::Peer;

/// Only this user may connect.
const MODE: u32 = 0o600;
/// Connections that may wait to be accepted: as for TCP ports.
const BACKLOG: u32 = 1024;
/// How long it may take to find out whether a program listens on a socket that exists. One that does
/// not answer is there.
const LOOK: Duration = Duration::from_secs(1);

/// A Unix socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on unix:{}{}", path.display(), advice(source))]
pub struct UnixBindError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// What to do about it, if that is known.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": another program listens there; stop it or choose another path"
        }
        io::ErrorKind::AlreadyExists => {
            ": a file that is no socket is there; remove it or choose another path"
        }
        io::ErrorKind::NotFound => ": its folder does not exist",
        io::ErrorKind::InvalidInput => ": the path is too long for a socket; choose a shorter one",
        _ => "",
    }
}

/// A bound Unix socket; dropped, its file is removed.
#[derive(Debug)]
pub(super) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
}

impl UnixSocket {
    /// Binds this path. Dropping the future leaves nothing behind, but a file that nobody listened on
    /// may be gone.
    ///
    /// # Errors
    /// [`UnixBindError`] names the path, and what to do.
    pub(super) async fn bind(path: &Path) -> Result<Self, UnixBindError> {
        let failed = |source| UnixBindError {
            path: path.to_owned(),
            source,
        };
        let of_path = path.to_owned();
        let turn = tokio::task::spawn_blocking(move || SocketTurn::take(&of_path)).await;
        // Until it listens.
        let _turn = turn.map_err(io::Error::other).map_err(failed)?;
        make_way(path).await.map_err(failed)?;
        let socket = tokio::net::UnixSocket::new_stream().map_err(failed)?;
        socket.bind(path).map_err(failed)?;
        let mut bound = Bound {
            path,
            is_kept: false,
        };
        // Before it listens: until then nobody can connect.
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        bound.is_kept = true;
        Ok(Self {
            listener,
            path: path.to_owned(),
            file: file(path),
        })
    }
}

/// A file that was made and goes again if the rest fails.
struct Bound<'a> {
    path: &'a Path,
    is_kept: bool,
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_file(self.path);
        }
    }
}

impl Accepting for UnixSocket {
    type Socket = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        let (socket, _) = self.listener.accept().await?;
        Ok((socket, Peer::UnixSocket))
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another program may have put its own there.
        if self.file.is_some() && file(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of what is at this path itself.
fn file(path: &Path) -> Option<(u64, u64)> {
    let data = fs::symlink_metadata(path).ok()?;
    Some((data.dev(), data.ino()))
}

/// Removes a socket on which nothing listens.
async fn make_way(path: &Path) -> io::Result<()> {
    let data = match fs::symlink_metadata(path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !data.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    match timeout(LOOK, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It may also be somebody else's, to whom we may not connect.
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use common::report;

    use super::*;

    #[tokio::test]
    async fn the_file_is_ours_alone_and_goes_with_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sock");
        let socket = UnixSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        let (connected, accepted) = tokio::join!(UnixStream::connect(&path), socket.next());
        assert_eq!(accepted.unwrap().1, Peer::UnixSocket);
        drop(connected);
        let error = UnixSocket::bind(&path).await.unwrap_err();
        let shown = report::chain(&error);
        assert!(shown.contains("another program listens there"), "{shown}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn of_those_that_start_at_once_one_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sock");
        for _ in 0..100 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let one = || {
                let path = path.clone();
                tokio::spawn(async move { UnixSocket::bind(&path).await.ok() })
            };
            let all: Vec<_> = std::iter::repeat_with(one).take(4).collect();
            let mut bound = Vec::new();
            for one in all {
                bound.extend(one.await.unwrap());
            }
            assert_eq!(bound.len(), 1, "the others have taken its place");
            UnixStream::connect(&path).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = UnixSocket::bind(&path).await.unwrap();
        // Another program's socket in the place of ours stays.
        fs::remove_file(&path).unwrap();
        let second = UnixSocket::bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        fs::write(&path, "text").unwrap();
        let error = UnixSocket::bind(&path).await.unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"text");
        let error = UnixSocket::bind(&folder.path().join("no/d.sock")).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("folder does not exist"), "{error}");
        let long = folder.path().join("x".repeat(120));
        let error = UnixSocket::bind(&long).await.unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
    }
}
