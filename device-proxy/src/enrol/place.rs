//! The files of an enrolled device.

use std::path::PathBuf;

use common::enrolment::{Enrolled, Folder, FolderError};
use common::files::Access;
use common::net::proxy::ProxyOptions;
use common::places::{self, quoted};

use crate::config;

const CERTIFICATE: &str = "device.pem";
const AUTHORITIES: &str = "hub-ca.pem";
const CONNECTION_STRING: &str = "device.cs";

/// The folder of an enrolled device's files.
#[derive(Debug, Clone)]
pub struct Place {
    folder: Folder,
}

impl Place {
    /// This folder, or by default the machine's if it may be written, else the user's. It is made
    /// when it is missing. Blocks.
    ///
    /// # Errors
    /// [`FolderError`]: also when it has a configuration file and `replaces` is false.
    pub fn open(given: Option<PathBuf>, replaces: bool) -> Result<Self, FolderError> {
        let folder = match given {
            Some(folder) => folder,
            None if is_privileged() => places::of_system(),
            None => places::of_user().ok_or(FolderError::Nowhere)?,
        };
        #[cfg(windows)]
        if folder == places::of_system() {
            use crate::service;
            service::close_folder(&folder, service::is_installed())
                .map_err(FolderError::at(&folder))?;
        }
        let folder = Folder::open(&folder, config::FILE, replaces)?;
        Ok(Self { folder })
    }

    /// Whether it is the machine's own.
    pub fn is_of_system(&self) -> bool {
        self.folder.path() == places::of_system()
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.file(config::KEY_FILE)
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.file(CERTIFICATE)
    }

    /// Writes what the hub has answered, and the configuration file last. Blocks.
    ///
    /// # Errors
    /// [`FolderError::Write`].
    pub(super) fn write(
        &self,
        enrolled: &Enrolled,
        targets: &[String],
        proxy: &ProxyOptions,
    ) -> Result<PathBuf, FolderError> {
        let connection_string = format!("{}\n", enrolled.connection_string.expose());
        // It has no key in it, but others of the kind have.
        self.folder
            .write(CONNECTION_STRING, &connection_string, Access::Private)?;
        if let Some(authorities) = &enrolled.authorities {
            self.folder
                .write(AUTHORITIES, authorities, Access::Public)?;
        }
        let text = self.text(enrolled, targets) + &proxy.to_lines();
        self.folder.write_configuration(&text)
    }

    /// Writes certificate and key, for the owner of the folder. Blocks.
    ///
    /// # Errors
    /// [`FolderError::Write`].
    pub(super) fn write_key(&self, key: &str, certificate: &str) -> Result<(), FolderError> {
        // The key last: with both there, they belong together.
        self.folder
            .write(CERTIFICATE, certificate, Access::Public)?;
        self.folder.write(config::KEY_FILE, key, Access::Private)
    }

    fn text(&self, enrolled: &Enrolled, targets: &[String]) -> String {
        let path = |name: &str| self.folder.quoted(name);
        let mut text = format!(
            "# Written by `device-proxy enrol`. `device-proxy --help` explains the settings.\n\
             connection-string-file = {}\ncert = {}\nkey = {}\n",
            path(CONNECTION_STRING),
            path(CERTIFICATE),
            path(config::KEY_FILE),
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
    // Everybody can make folders in %ProgramData%: being able to is no sign.
    #[cfg(windows)]
    return crate::service::can_install();
}

#[cfg(test)]
mod tests {
    use common::secret::Secret;

    use super::*;

    #[test]
    fn the_configuration_names_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a \"quoted\" one");
        let place = Place::open(Some(folder), false).unwrap();
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
    }
}
