//! Where a program is asked on Unix: a socket in a folder that only its own user can open.

mod place;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::serve::{BindError, CLIENTS};
use crate::socket_turn::SocketTurn;

/// Only this user may connect.
const MODE: u32 = 0o600;

/// A bound socket; dropped, its file is removed.
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    file: Option<(u64, u64)>,
}

impl Listener {
    /// Binds it in the usual folder, for `status` to find.
    ///
    /// # Errors
    /// [`BindError`].
    pub(super) fn usual(program: &str) -> Result<Self, BindError> {
        let folder = place::of_our_own().map_err(BindError::nowhere)?;
        remove_stale(&folder, program);
        let path = place::socket(&folder, program, std::process::id());
        Self::at(&path).map_err(BindError::at(&path))
    }

    /// Binds it at this path.
    ///
    /// # Errors
    /// Any of the system.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        // Until it listens.
        let _turn = SocketTurn::take(path);
        remove_if_stale(path);
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Before it listens: until then nobody can connect.
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
        Ok(Self {
            listener: socket.listen(CLIENTS.try_into().unwrap_or(u32::MAX))?,
            path: path.to_owned(),
            file: file(path),
        })
    }

    /// The next client; `None`: one that may not ask, and is sent away. May be dropped.
    ///
    /// # Errors
    /// Any of the system; later there may be another client.
    pub(super) async fn accept(&self) -> io::Result<Option<UnixStream>> {
        let (socket, _) = self.listener.accept().await?;
        Ok(may_ask(&socket).then_some(socket))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Another program may have made one of its own since.
        if self.file.is_some() && file(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A connection to a program.
pub(super) type Connection = UnixStream;

/// Connects to a program. May be dropped.
///
/// # Errors
/// Any of the system.
pub(super) async fn connect(path: &Path) -> io::Result<Connection> {
    UnixStream::connect(path).await
}

/// The sockets of all programs of this name that this user may ask.
pub(super) fn all(program: &str) -> Vec<PathBuf> {
    let folders = place::all(program);
    for folder in &folders {
        remove_stale(folder, program);
    }
    let found = folders
        .iter()
        .flat_map(|folder| place::sockets(folder, program));
    let mut all: Vec<PathBuf> = Vec::new();
    for path in found {
        if path.exists() && !all.contains(&path) {
            all.push(path);
        }
    }
    all
}

fn file(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// This user, and root, whatever the access rights of the folder have become.
fn may_ask(socket: &UnixStream) -> bool {
    let user = socket.peer_cred().map(|peer| peer.uid());
    user.is_ok_and(|user| user == 0 || user == geteuid().as_raw())
}

/// Removes the sockets of this program in a folder that nobody listens on.
fn remove_stale(folder: &Path, program: &str) {
    let found = place::sockets(folder, program);
    let Some(first) = found.first() else {
        return;
    };
    let _turn = SocketTurn::take(first);
    for path in &found {
        remove_if_stale(path);
    }
}

/// Removes a socket that no program listens on. In our turn.
fn remove_if_stale(path: &Path) {
    let is_socket = |path: &Path| {
        let metadata = path.symlink_metadata();
        metadata.is_ok_and(|it| it.file_type().is_socket())
    };
    // A program that is suspended has a full queue: nobody waits for it.
    let connect = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    if is_socket(path)
        && let Err(error) = connect()
        && error.kind() == io::ErrorKind::ConnectionRefused
    {
        let _ = fs::remove_file(path);
    }
}

/// The path of a socket, for a test.
#[cfg(test)]
pub(super) fn a_path(folder: &Path) -> PathBuf {
    folder.join("a.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_its_user_may_connect_and_the_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = Listener::at(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_an_ended_program_has_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Listener::at(&path).unwrap();
        assert!(Listener::at(&path).is_err(), "it is in use");
        drop(first);
        std::fs::write(&path, "no socket").unwrap();
        assert!(Listener::at(&path).is_err());
        assert!(path.exists());
    }

    #[tokio::test]
    async fn of_those_that_start_at_once_one_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        for _ in 0..100 {
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(4);
            let runtime = tokio::runtime::Handle::current();
            let one = || {
                let _entered = runtime.enter();
                start.wait();
                Listener::at(&path).ok()
            };
            let listening: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
                let all = all.into_iter().map(|one| one.join().unwrap());
                all.flatten().collect()
            });
            assert_eq!(listening.len(), 1, "the others have taken its place");
            connect(&path).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_program_that_answers_nobody_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        // As if it were suspended: nothing is accepted.
        let _listener = Listener::at(&path).unwrap();
        let connect = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let connected = socket.connect(&SockAddr::unix(&path).unwrap());
            connected.map(|()| socket)
        };
        let mut waiting = Vec::new();
        while let Ok(socket) = connect() {
            waiting.push(socket);
        }
        remove_if_stale(&path);
        assert!(path.exists());
    }
}
