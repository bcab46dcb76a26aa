//! The folder that an enrolment writes its files to.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::{self, Access};
use crate::places::quoted;

/// More bytes than all files of an enrolment have together.
const TRIAL: usize = 16 << 10;

/// Why the files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The user has no folder for it.
    #[error("this user has no folder for configuration files; name one with --dir")]
    Nowhere,
    /// There is a configuration already.
    #[error(
        "{} is there already; --force replaces it, --dir puts the new one elsewhere",
        .0.display()
    )]
    Exists(PathBuf),
    /// A file or the folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl FolderError {
    /// Whether another option helps: exit code 2, else 1.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Nowhere | Self::Exists(_))
    }

    /// That this file or folder cannot be written.
    pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }
}

/// A folder that has no configuration file yet, or one that may be replaced.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    configuration: &'static str,
}

impl Folder {
    /// Makes the folder if it is missing, and tries to write there: a code works once, so that what
    /// is wrong must show before. The file of the name `configuration` may be there already only if
    /// `replaces`; it is not touched. Blocks.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn open(
        path: &Path,
        configuration: &'static str,
        replaces: bool,
    ) -> Result<Self, FolderError> {
        // Messages and the file itself name it whatever the working directory is.
        let path = std::path::absolute(path).map_err(FolderError::at(path))?;
        let folder = Self {
            path,
            configuration,
        };
        let file = folder.configuration();
        if !replaces && file.exists() {
            return Err(FolderError::Exists(file));
        }
        files::create_folder(&folder.path).map_err(FolderError::at(&folder.path))?;
        let trial = folder.file("trial");
        files::write(&trial, &[b'\n'; TRIAL], Access::Private)
            .and_then(|()| std::fs::remove_file(&trial))
            .map_err(FolderError::at(&trial))?;
        Ok(folder)
    }

    /// Where it is: absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration file.
    pub fn configuration(&self) -> PathBuf {
        self.file(self.configuration)
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The path of a file in it, as a string of TOML.
    pub fn quoted(&self, name: &str) -> String {
        quoted(&self.file(name).display().to_string())
    }

    /// Writes a file, for the owner of the folder. Blocks.
    ///
    /// # Errors
    /// [`FolderError::Write`]; what was there is then still there.
    pub fn write(&self, name: &str, text: &str, access: Access) -> Result<(), FolderError> {
        let path = self.file(name);
        files::write(&path, text.as_bytes(), access)
            .and_then(|()| files::give_to_folder_owner(&path))
            .map_err(FolderError::at(&path))
    }

    /// Writes the configuration file, which programs look for: last, when all that it names is
    /// there. Blocks.
    ///
    /// # Errors
    /// [`FolderError::Write`].
    pub fn write_configuration(&self, text: &str) -> Result<PathBuf, FolderError> {
        self.write(self.configuration, text, Access::Public)?;
        Ok(self.configuration())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_is_there_is_replaced_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a \"quoted\" one");
        let folder = Folder::open(&path, "c.toml", false).unwrap();
        folder.write_configuration("x = 1\n").unwrap();
        let error = Folder::open(&path, "c.toml", false).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("--force"));
        let folder = Folder::open(&path, "c.toml", true).unwrap();
        let text = std::fs::read_to_string(folder.configuration()).unwrap();
        assert_eq!(text, "x = 1\n");
        assert!(folder.quoted("f").contains(r#"\"quoted\""#));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_cannot_be_written_shows_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Folder::open(&file.join("folder"), "c.toml", false).unwrap_err();
        assert!(!error.is_usage(), "{error}");
    }
}
