//! Files that appear whole or not at all, with their access rights from the first
//! moment: written beside their place, flushed, then renamed over it.

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

/// Makes a rename durable; where folders cannot be opened, the system sees to it.
fn sync_parent(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Makes a folder for its owner only, and the folders above it, where they are missing.
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
    builder.create(path)
}

/// Gives a file to the owner of the folder that it is in, when another user, root, has written it:
/// a package makes the folder for the user that its service runs as.
///
/// # Errors
/// Any error of the file system.
pub fn give_to_folder_owner(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let (folder, file) = (std::fs::metadata(folder)?, std::fs::metadata(path)?);
        if (folder.uid(), folder.gid()) != (file.uid(), file.gid()) {
            chown(path, Some(folder.uid()), Some(folder.gid()))?;
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
