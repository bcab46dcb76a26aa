//! Files that appear whole or not at all, with their access rights from the first
//! moment: written beside their place, flushed, then renamed over it. On Windows a file has the
//! rights of its folder, so there the folders are closed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Its owner only: keys and the database.
    Private,
    /// Everybody who reaches its folder: certificates.
    Public,
}

impl Access {
    #[cfg(unix)]
    fn mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// Options that create a file with these rights, whatever the umask forgot.
fn creating(access: Access) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(access.mode());
    }
    #[cfg(not(unix))]
    let _ = access;
    options
}

/// Gives an open file exactly these rights.
fn set_access(file: &File, access: Access) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if file.metadata()?.permissions().mode() & 0o777 != access.mode() {
            file.set_permissions(std::fs::Permissions::from_mode(access.mode()))?;
        }
    }
    #[cfg(not(unix))]
    let _ = (file, access);
    Ok(())
}

/// Replaces a file's content in one step that survives a crash.
///
/// # Errors
/// Any error of the file system; the old content is then still there.
pub fn write(path: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let beside = beside(path);
    let result = write_beside(&beside, content, access).and_then(|()| {
        std::fs::rename(&beside, path)?;
        sync_parent(path)
    });
    if result.is_err() {
        // Best effort: the first error is reported.
        let _ = std::fs::remove_file(&beside);
    }
    result
}

/// Room beside a file for its next content. It was taken from the disk already, so that content that
/// exists nowhere else can be written even if the disk is full by then; file systems that write nothing in
/// place (btrfs, ZFS, APFS) may need more all the same. Dropped, it is given back.
#[derive(Debug)]
pub struct Room {
    path: PathBuf,
    beside: PathBuf,
    access: Access,
}

impl Room {
    /// Takes room for so many bytes, for the owner of the folder. Blocks.
    ///
    /// # Errors
    /// Any error of the file system.
    pub fn take(path: &Path, bytes: usize, access: Access) -> io::Result<Self> {
        let room = Self {
            path: path.to_owned(),
            beside: beside(path),
            access,
        };
        write_beside(&room.beside, &vec![b'\n'; bytes], access)?;
        give_to_folder_owner(&room.beside)?;
        Ok(room)
    }

    /// Replaces the file's content, as [`write`] does. Blocks.
    ///
    /// # Errors
    /// Any error of the file system; the old content is then still there.
    pub fn fill(self, content: &[u8]) -> io::Result<()> {
        // Not shortened before: the room would be given back.
        let mut file = creating(self.access).open(&self.beside)?;
        file.write_all(content)?;
        file.set_len(u64::try_from(content.len()).unwrap_or(u64::MAX))?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&self.beside, &self.path)?;
        sync_parent(&self.path)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // Best effort; once it was renamed, there is none.
        let _ = std::fs::remove_file(&self.beside);
    }
}

fn write_beside(beside: &Path, content: &[u8], access: Access) -> io::Result<()> {
    let mut file = creating(access).create_new(true).open(beside)?;
    set_access(&file, access)?;
    file.write_all(content)?;
    file.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let random = u64::from_be_bytes(crate::random::bytes());
    name.push(format!(".{random:016x}.tmp"));
    path.with_file_name(name)
}

/// Makes durable that a file is in its folder under this name; where folders cannot be opened, the
/// system sees to it. Blocks.
///
/// # Errors
/// Any error of the file system.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes a folder for its owner only, and the folders above it, where they are missing. On Windows
/// also for the system and its administrators. What is there already keeps its rights.
///
/// # Errors
/// Any error of the file system.
pub fn create_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    #[cfg(windows)]
    if !path.try_exists()? {
        builder.create(path)?;
        return rights::close(path, &[]);
    }
    builder.create(path)
}

#[cfg(windows)]
pub use rights::take_over;

/// Who may do what with a folder and everything in it, as `icacls` sets it: a part of Windows. The
/// crates for this are old (windows-acl, windows-permissions), and the calls below them are unsafe.
#[cfg(windows)]
mod rights {
    use std::ffi::{OsStr, OsString};
    use std::io;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    /// The system, its administrators, and each file's owner, by the ids that they have in every
    /// language of Windows (Microsoft, "Well-known SIDs").
    const ALWAYS: [&str; 3] = [
        "*S-1-5-18:(OI)(CI)F",
        "*S-1-5-32-544:(OI)(CI)F",
        "*S-1-3-4:(OI)(CI)F",
    ];
    const ADMINISTRATORS: &str = "*S-1-5-32-544";

    /// Takes all rights to a folder from others, except that `readers`, by their SIDs, may read.
    pub(super) fn close(folder: &Path, readers: &[&str]) -> io::Result<()> {
        let mut arguments: Vec<OsString> = vec!["/inheritance:r".into(), "/grant:r".into()];
        arguments.extend(ALWAYS.map(OsString::from));
        let readers = readers.iter().map(|sid| format!("*{sid}:(OI)(CI)RX"));
        arguments.extend(readers.map(OsString::from));
        icacls(folder, arguments)
    }

    /// Has a folder and everything in it belong to the administrators, and takes all rights from
    /// others, except that `readers`, by their SIDs, may read. Any user can make a folder in
    /// %ProgramData% before an administrator does, with rights of their own choice. Blocks.
    ///
    /// # Errors
    /// Any error of the file system, also when this process is no administrator's.
    pub fn take_over(folder: &Path, readers: &[&str]) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        icacls(folder, ["/setowner", ADMINISTRATORS, "/T", "/L"])?;
        icacls(folder, ["/reset", "/T", "/L"])?;
        close(folder, readers)
    }

    fn icacls<A: AsRef<OsStr>>(
        folder: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> io::Result<()> {
        // By its full path: what is called so in the working directory is another program.
        let system = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
        let program = PathBuf::from(system).join(r"System32\icacls.exe");
        let status = Command::new(program)
            .arg(folder)
            .args(arguments)
            .arg("/Q")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if status.success() {
            return Ok(());
        }
        let folder = folder.display();
        Err(io::Error::other(format!(
            "icacls cannot set the access rights of {folder} ({status}); only folders on NTFS have some"
        )))
    }
}

/// Gives a file to the owner of the folder that it is in, when another user, root, has written it:
/// a package makes the folder for the user that its service runs as.
///
/// # Errors
/// Any error of the file system.
pub fn give_to_folder_owner(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        use std::os::unix::fs::{MetadataExt as _, lchown};
        let (folder, file) = (std::fs::metadata(folder)?, std::fs::symlink_metadata(path)?);
        if (folder.uid(), folder.gid()) != (file.uid(), file.gid()) {
            // Never what a link leads to, which the owner of the folder may have put there meanwhile.
            lchown(path, Some(folder.uid()), Some(folder.gid()))?;
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Opens a file for writing, made empty when it is missing, private in any case.
///
/// # Errors
/// Any error of the file system.
pub fn open_private(path: &Path) -> io::Result<File> {
    let file = creating(Access::Private)
        .read(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    set_access(&file, Access::Private)?;
    sync_parent(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_replaces_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write(&path, b"one", Access::Public).unwrap();
        write(&path, b"two", Access::Private).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&dir.path().join("no/such"), b"x", Access::Public).is_err());
    }

    #[test]
    fn room_is_filled_or_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        write(&path, b"old", Access::Private).unwrap();
        let room = Room::take(&path, 4096, Access::Private).unwrap();
        assert_eq!((names(), std::fs::read(&path).unwrap()), (2, b"old".into()));
        drop(room);
        assert_eq!(names(), 1);
        for content in [&b"short"[..], &[b'x'; 5000]] {
            let room = Room::take(&path, 4096, Access::Private).unwrap();
            room.fill(content).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), content);
            assert_eq!(names(), 1);
        }
        assert!(Room::take(&dir.path().join("no/such"), 1, Access::Private).is_err());
        // What stands in the place is still there, and nothing else.
        let room = Room::take(&path, 1, Access::Private).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(room.fill(b"new").is_err());
        assert_eq!(names(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_given_away_and_never_what_a_link_leads_to() {
        use std::os::unix::fs::{MetadataExt as _, chown, symlink};
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: only root gives files away");
        }
        let dir = tempfile::tempdir().unwrap();
        let (folder, other) = (dir.path().join("folder"), dir.path().join("other"));
        create_folder(&folder).unwrap();
        chown(&folder, Some(65_534), Some(65_534)).unwrap();
        write(&other, b"", Access::Private).unwrap();
        let owner = |path: &Path| std::fs::symlink_metadata(path).unwrap().uid();
        let (file, link) = (folder.join("file"), folder.join("link"));
        write(&file, b"", Access::Private).unwrap();
        symlink(&other, &link).unwrap();
        for path in [&file, &link] {
            give_to_folder_owner(path).unwrap();
            assert_eq!(owner(path), 65_534);
        }
        assert_eq!(owner(&other), 0);
    }

    #[cfg(unix)]
    #[test]
    fn rights_are_exact() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let metadata = std::fs::metadata(dir.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        write(&dir.path().join("key"), b"", Access::Private).unwrap();
        write(&dir.path().join("certificate"), b"", Access::Public).unwrap();
        assert_eq!((mode("key"), mode("certificate")), (0o600, 0o644));
        std::fs::set_permissions(
            dir.path().join("key"),
            std::fs::Permissions::from_mode(0o644),
        )
        .unwrap();
        open_private(&dir.path().join("key")).unwrap();
        assert_eq!(mode("key"), 0o600);
    }
}
