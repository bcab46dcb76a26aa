//! The file with our block, and the line at the top of the user's `~/.ssh/config` that includes it. A
//! file is replaced as a whole, so that no reader sees half of one; its mode stays, and a symlink
//! stays a symlink.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::OpensshError;

/// The file with our block, in ssh's folder.
const OURS: &str = "device-streams.conf";

/// The folder of a user's ssh configuration.
#[derive(Debug)]
pub(super) struct SshFolder(PathBuf);

impl SshFolder {
    /// Of the user that runs this program.
    ///
    /// # Errors
    /// [`OpensshError::NoHome`].
    pub(super) fn of_user() -> Result<Self, OpensshError> {
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        Ok(Self(home.ok_or(OpensshError::NoHome)?.join(".ssh")))
    }

    /// Writes our file, and has the user's configuration include it. Can be repeated. Returns lines
    /// that say what was done.
    ///
    /// # Errors
    /// [`OpensshError`] names the file at fault; the user's configuration is then as it was.
    pub(super) fn install(&self, block: &str) -> Result<String, OpensshError> {
        self.make()?;
        let (ours, config) = (self.0.join(OURS), self.config()?);
        let line = include(&ours)?;
        let is_new = replace(&ours, block.as_bytes())?;
        let mut done = format!(
            "{} {}\n",
            if is_new { "wrote" } else { "unchanged:" },
            ours.display()
        );
        let before = read(&config)?;
        if before.split(|b| *b == b'\n').any(|it| is_line(it, &line)) {
            done += &format!("unchanged: {} includes it\n", config.display());
        } else {
            let after = [line.as_bytes(), b"\n", &before].concat();
            replace(&config, &after)?;
            done += &format!("{} includes it, in its first line\n", config.display());
        }
        Ok(done)
    }

    /// Removes our file, and the line that includes it. Can be repeated. Returns lines that say what
    /// was done.
    ///
    /// # Errors
    /// [`OpensshError`] names the file at fault.
    pub(super) fn uninstall(&self) -> Result<String, OpensshError> {
        let (ours, config) = (self.0.join(OURS), self.config()?);
        let line = include(&ours)?;
        let before = read(&config)?;
        let kept = before.split_inclusive(|b| *b == b'\n');
        let kept: Vec<&[u8]> = kept.filter(|it| !is_line(it, &line)).collect();
        let after = kept.concat();
        let mut done = String::new();
        if after.len() < before.len() {
            replace(&config, &after)?;
            done += &format!("{} does not include it any more\n", config.display());
        }
        match fs::remove_file(&ours) {
            Ok(()) => done += &format!("removed {}\n", ours.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(OpensshError::Write(ours, error)),
        }
        if done.is_empty() {
            done += "nothing is installed\n";
        }
        Ok(done)
    }

    fn make(&self) -> Result<(), OpensshError> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let made = builder.recursive(true).create(&self.0);
        made.map_err(|error| OpensshError::Write(self.0.clone(), error))
    }

    /// The user's configuration: the file itself, where the usual name is a symlink.
    fn config(&self) -> Result<PathBuf, OpensshError> {
        let path = self.0.join("config");
        match fs::canonicalize(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match fs::symlink_metadata(&path) {
                    // A symlink to nothing: we would have to guess what is meant.
                    Ok(_) => Err(OpensshError::Read(path, error)),
                    Err(_) => Ok(path),
                }
            }
            Err(error) => Err(OpensshError::Read(path, error)),
        }
    }
}

/// The line that includes a file. Its path is absolute, so that it is found also where the
/// configuration is read as another file (`ssh -F`).
fn include(path: &Path) -> Result<String, OpensshError> {
    let text = path.display().to_string();
    let text = if cfg!(windows) {
        text.replace('\\', "/")
    } else {
        text
    };
    if text.contains(['"', '\n', '\r', '\\', '*', '?', '[']) {
        return Err(OpensshError::Path(path.to_owned()));
    }
    Ok(format!("Include \"{text}\""))
}

fn is_line(bytes: &[u8], line: &str) -> bool {
    bytes.trim_ascii() == line.as_bytes()
}

/// The contents of a file; nothing if there is none.
fn read(path: &Path) -> Result<Vec<u8>, OpensshError> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(OpensshError::Read(path.to_owned(), error)),
    }
}

/// Gives a file other contents, in one step; it keeps its mode, and a new one is for its user alone.
/// Returns whether anything has changed.
fn replace(path: &Path, contents: &[u8]) -> Result<bool, OpensshError> {
    let failed = |error| OpensshError::Write(path.to_owned(), error);
    let permissions = match fs::metadata(path) {
        Ok(data) => Some(data.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    if permissions.is_some() && read(path)? == contents {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    // For its user alone, and removed if the rest fails.
    let mut file = tempfile::Builder::new()
        .prefix(".device-streams-")
        .tempfile_in(folder)
        .map_err(failed)?;
    file.write_all(contents).map_err(failed)?;
    if let Some(permissions) = permissions {
        file.as_file()
            .set_permissions(permissions)
            .map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, SshFolder) {
        let home = tempfile::tempdir().unwrap();
        let folder = SshFolder(home.path().join(".ssh"));
        (home, folder)
    }

    fn first_line(path: &Path) -> String {
        let text = fs::read_to_string(path).unwrap();
        text.lines().next().unwrap().to_owned()
    }

    #[test]
    fn a_new_configuration_is_made_and_goes_again() {
        let (home, folder) = folder();
        let said = folder.install("Host *.device\n").unwrap();
        assert!(said.contains("wrote"), "{said}");
        let (config, ours) = (folder.0.join("config"), folder.0.join(OURS));
        let line = format!("Include \"{}\"", ours.display());
        assert_eq!(first_line(&config), line);
        assert_eq!(fs::read_to_string(&ours).unwrap(), "Host *.device\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(
                (mode(&folder.0), mode(&config), mode(&ours)),
                (0o700, 0o600, 0o600)
            );
        }
        let said = folder.install("Host *.device\n").unwrap();
        assert_eq!(said.matches("unchanged").count(), 2, "{said}");
        assert_eq!(fs::read_to_string(&config).unwrap().lines().count(), 1);
        folder.uninstall().unwrap();
        assert!(!ours.exists());
        assert_eq!(fs::read(&config).unwrap(), b"");
        assert!(folder.uninstall().unwrap().contains("nothing"));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_the_user_has_stays_byte_for_byte() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let (home, folder) = folder();
        folder.make().unwrap();
        let real = home.path().join("dotfiles-config");
        let config = folder.0.join("config");
        let text = b"# \xff\r\nHost a\r\n  User b\n\n  Include other";
        fs::write(&real, text).unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &config).unwrap();
        folder.install("x\n").unwrap();
        assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
        let installed = fs::read(&real).unwrap();
        assert!(installed.ends_with(text) && installed.starts_with(b"Include \""));
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o640
        );
        // Moved by the user, it is found and not added again.
        let moved = [
            &text[..],
            b"\n  ",
            installed.split(|b| *b == b'\n').next().unwrap(),
        ]
        .concat();
        fs::write(&real, &moved).unwrap();
        folder.install("y\n").unwrap();
        assert_eq!(fs::read(&real).unwrap(), moved);
        fs::write(&real, &installed).unwrap();
        folder.uninstall().unwrap();
        assert_eq!(fs::read(&real).unwrap(), text);
        assert_eq!(
            fs::metadata(&real).unwrap().permissions().mode() & 0o777,
            0o640
        );
        // No temporary file is left.
        let names: Vec<_> = fs::read_dir(&folder.0).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        // A symlink to nothing is not replaced.
        fs::remove_file(&real).unwrap();
        assert!(matches!(folder.install("x\n"), Err(OpensshError::Read(..))));
        assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
    }
}
