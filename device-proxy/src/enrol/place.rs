//! The files of an enrolled device.

use std::io;
use std::path::{Path, PathBuf};

use common::enrolment::Enrolled;
use common::files::{self, Access};
use common::net::proxy::ProxyOptions;
use common::places::{self, quoted};

use crate::config;

const KEY: &str = "device.key";
const CERTIFICATE: &str = "device.pem";
const AUTHORITIES: &str = "hub-ca.pem";
const CONNECTION_STRING: &str = "device.cs";

/// Why the files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
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

impl PlaceError {
    /// Whether another option helps: exit code 2, else 1.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Nowhere | Self::Exists(_))
    }
}

/// The folder of an enrolled device's files.
#[derive(Debug, Clone)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// This folder, or by default the machine's if it may be written, else the user's. It is made
    /// when it is missing. Blocks.
    ///
    /// # Errors
    /// [`PlaceError`]: also when it has a configuration file and `replaces` is false.
    pub fn open(given: Option<PathBuf>, replaces: bool) -> Result<Self, PlaceError> {
        let folder = match given {
            Some(folder) => folder,
            None if is_privileged() => places::of_system(),
            None => places::of_user().ok_or(PlaceError::Nowhere)?,
        };
        // Messages and the file itself name it whatever the working directory is.
        let folder = std::path::absolute(&folder).map_err(at(&folder))?;
        let config = folder.join(config::FILE);
        if !replaces && config.exists() {
            return Err(PlaceError::Exists(config));
        }
        files::create_folder(&folder).map_err(at(&folder))?;
        Ok(Self { folder })
    }

    /// Whether it is the machine's own.
    pub fn is_of_system(&self) -> bool {
        self.folder == places::of_system()
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.join(KEY)
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join(CERTIFICATE)
    }

    /// Writes what the hub has answered, and the configuration file last. Blocks.
    ///
    /// # Errors
    /// [`PlaceError::Write`].
    pub(super) fn write(
        &self,
        enrolled: &Enrolled,
        targets: &[String],
        proxy: &ProxyOptions,
    ) -> Result<PathBuf, PlaceError> {
        let write = |name: &str, text: &str, access| {
            let path = self.folder.join(name);
            self.write_file(&path, text, access).map_err(at(&path))
        };
        let connection_string = format!("{}\n", enrolled.connection_string.expose());
        // It has no key in it, but others of the kind have.
        write(CONNECTION_STRING, &connection_string, Access::Private)?;
        if let Some(authorities) = &enrolled.authorities {
            write(AUTHORITIES, authorities, Access::Public)?;
        }
        let text = self.text(enrolled, targets) + &proxy.to_lines();
        write(config::FILE, &text, Access::Public)?;
        Ok(self.folder.join(config::FILE))
    }

    /// Writes one of the files, for the owner of the folder. Blocks.
    pub(super) fn write_file(&self, path: &Path, text: &str, access: Access) -> io::Result<()> {
        files::write(path, text.as_bytes(), access)?;
        files::give_to_folder_owner(path)
    }

    fn text(&self, enrolled: &Enrolled, targets: &[String]) -> String {
        let path = |name: &str| quoted(&self.folder.join(name).display().to_string());
        let mut text = format!(
            "# Written by `device-proxy enrol`. `device-proxy --help` explains the settings.\n\
             connection-string-file = {}\ncert = {}\nkey = {}\n",
            path(CONNECTION_STRING),
            path(CERTIFICATE),
            path(KEY),
        );
        if enrolled.authorities.is_some() {
            text += &format!("ca-file = {}\n", path(AUTHORITIES));
        }
        text += "\n# What streams reach, by their names; and an echo target, for `service-proxy echo`.\ntarget = [\n";
        for target in targets {
            text += &format!("    {},\n", quoted(target));
        }
        text + "]\necho = true\n"
    }
}

/// Whether this process may write the machine's configuration, as a rule.
fn is_privileged() -> bool {
    #[cfg(unix)]
    return rustix::process::geteuid().is_root();
    #[cfg(not(unix))]
    return std::fs::create_dir_all(places::of_system()).is_ok();
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> PlaceError + use<> {
    let path = path.to_owned();
    |source| PlaceError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use common::secret::Secret;

    use super::*;

    #[test]
    fn an_existing_configuration_is_replaced_only_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a \"quoted\" one");
        let place = Place::open(Some(folder.clone()), false).unwrap();
        let enrolled = Enrolled {
            device: Some("d".to_owned()),
            connection_string: Secret::new("HostName=h;DeviceId=d;x509=true"),
            authorities: Some("pem".to_owned()),
        };
        let config = place
            .write(
                &enrolled,
                &["ssh=localhost:22".to_owned()],
                &ProxyOptions::default(),
            )
            .unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.contains(r#"    "ssh=localhost:22","#), "{text}");
        assert!(text.contains(r#"\"quoted\""#), "{text}");
        assert!(text.contains("hub-ca.pem"), "{text}");
        let error = Place::open(Some(folder.clone()), false).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("--force"));
        Place::open(Some(folder), true).unwrap();
    }
}
