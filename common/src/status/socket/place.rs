//! Where status sockets are: in a folder that only this user can open.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::files;

/// The folder's name in other folders.
const FOLDER: &str = "device-streams";
/// For root, and what `RuntimeDirectory=` of our units makes.
const RUN: &str = "/run";

/// The folder in which a program of this user makes its socket: it is made if need be.
///
/// # Errors
/// When there is none that only this user can open.
pub(super) fn of_our_own() -> io::Result<PathBuf> {
    // The service manager makes it for a service, and removes it.
    if let Some(folder) = absolute("RUNTIME_DIRECTORY") {
        return Ok(folder);
    }
    let folder = match of_session() {
        Some(folder) => folder,
        None if geteuid().is_root() => Path::new(RUN).join(FOLDER),
        None => in_temporary(),
    };
    files::create_folder(&folder)?;
    match is_private(&folder) {
        true => Ok(folder),
        false => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is open to others", folder.display()),
        )),
    }
}

/// All folders in which sockets of this program may be, that this user may ask.
pub(super) fn all(program: &str) -> Vec<PathBuf> {
    let of_user = of_session().into_iter().chain([in_temporary()]);
    let of_user = of_user.filter(|folder| is_private(folder));
    let of_system = [FOLDER, program].map(|name| Path::new(RUN).join(name));
    of_user.chain(of_system).collect()
}

/// The socket of a process.
pub(super) fn socket(folder: &Path, program: &str, process: u32) -> PathBuf {
    folder.join(format!("{program}-{process}.sock"))
}

/// The sockets of this program in a folder.
pub(super) fn sockets(folder: &Path, program: &str) -> Vec<PathBuf> {
    let is_ours = |name: &str| {
        let process = name.strip_prefix(program)?.strip_prefix('-')?;
        process.strip_suffix(".sock")?.parse::<u32>().ok()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_str().and_then(is_ours).is_some());
    let mut found: Vec<_> = named.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// The folder of this user's login, if it is this user's: `su` leaves another's.
fn of_session() -> Option<PathBuf> {
    let base = absolute("XDG_RUNTIME_DIR")?;
    let is_ours = base
        .metadata()
        .is_ok_and(|it| it.uid() == geteuid().as_raw());
    is_ours.then(|| base.join(FOLDER))
}

fn in_temporary() -> PathBuf {
    let user = geteuid().as_raw();
    std::env::temp_dir().join(format!("{FOLDER}-{user}"))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    // systemd names several with colons between.
    let value = std::env::var(variable).ok()?;
    let first = PathBuf::from(value.split(':').next()?);
    first.is_absolute().then_some(first)
}

/// Whether it is a folder of this user's that nobody else can open.
fn is_private(folder: &Path) -> bool {
    folder
        .symlink_metadata()
        .is_ok_and(|it| it.is_dir() && it.uid() == geteuid().as_raw() && it.mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_a_folder_of_ours_alone_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        files::create_folder(&inner).unwrap();
        assert!(is_private(&inner));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&inner, &link).unwrap();
        assert!(!is_private(&link), "somebody else may have made it");
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o710)).unwrap();
        assert!(!is_private(&inner));
        assert!(!is_private(&folder.path().join("none")));
    }

    #[test]
    fn sockets_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "a-1.sock",
            "a-x.sock",
            "a-22.sock",
            "b-1.sock",
            "a-1.sock.old",
            "a-b-1.sock",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let expected = [1, 22].map(|process| socket(folder.path(), "a", process));
        assert_eq!(sockets(folder.path(), "a"), expected);
    }
}
