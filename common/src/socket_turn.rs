//! Programs that make Unix sockets, one at a time.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another program may take to make its socket.
const OTHERS: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(1);

/// The turn to remove or make sockets in a folder. Without it, between the look at a socket that nobody
/// listens on and its removal, another program could put its own there, which would be removed. It is a
/// lock on the folder: no file is left by it. Dropped, it is the next one's.
#[derive(Debug)]
pub struct SocketTurn(
    #[expect(dead_code, reason = "it is locked as long as it is open")] Option<File>,
);

impl SocketTurn {
    /// Waits for the turn in the folder of this socket, for some seconds at most. Where the folder cannot
    /// be opened or has no locks, as on NFS, there are no turns; and in a folder of all, as `/tmp` is,
    /// whoever keeps the lock keeps nobody from starting. Blocks.
    pub fn take(socket: &Path) -> Self {
        let folder = socket.parent().filter(|it| !it.as_os_str().is_empty());
        let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) else {
            return Self(None);
        };
        let until = Instant::now() + OTHERS;
        loop {
            match folder.try_lock() {
                Ok(()) => return Self(Some(folder)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOOK),
                Err(_) => return Self(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_one_folders_and_ends_when_it_is_dropped() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let take = |folder: &Path| SocketTurn::take(&folder.join("a.sock"));
        let turn = take(one.path());
        let _other = take(other.path());
        let locked = File::open(one.path()).unwrap();
        assert!(matches!(locked.try_lock(), Err(TryLockError::WouldBlock)));
        drop(turn);
        locked.try_lock().unwrap();
        // What makes the socket says that there is no folder.
        take(&one.path().join("none"));
    }
}
