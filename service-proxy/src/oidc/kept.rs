//! What is kept of a login, beside the connection string: what renews it.

use std::path::{Path, PathBuf};

use common::files::{self, Access, Room};
use common::secret::Secret;
use serde_json::{Value, json};

use super::error::LoginError;

/// By how much the next login or token may be longer than the one before.
const GROWTH: usize = 16 << 10;

/// What renews a login.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The identity provider's URL.
    pub issuer: String,
    /// As whom it knows us.
    pub client_id: String,
    /// By what it knows us, if our client there has a secret.
    pub client_secret: Option<Secret>,
    /// Its CA, if the system does not know it.
    pub ca_file: Option<PathBuf>,
    /// What gets another identity token.
    pub refresh_token: Secret,
}

/// The file of what renews the connection string in a file.
pub fn file_of(connection_file: &Path) -> PathBuf {
    connection_file.with_extension("login")
}

impl Kept {
    /// Reads the file. Blocks.
    ///
    /// # Errors
    /// [`LoginError::Unreadable`].
    pub fn read(path: &Path) -> Result<Self, LoginError> {
        let unreadable = || LoginError::Unreadable(path.to_owned());
        let text = common::text_input::read(path).map_err(|_| unreadable())?;
        let document: Value = serde_json::from_str(&text).map_err(|_| unreadable())?;
        let text = |name: &str| Some(document.get(name)?.as_str()?.to_owned());
        Ok(Self {
            issuer: text("issuer").ok_or_else(unreadable)?,
            client_id: text("clientId").ok_or_else(unreadable)?,
            client_secret: text("clientSecret").map(Secret::new),
            ca_file: text("caFile").map(PathBuf::from),
            refresh_token: Secret::new(text("refreshToken").ok_or_else(unreadable)?),
        })
    }

    /// What is in the file.
    pub fn to_text(&self) -> Secret {
        let document = json!({
            "issuer": self.issuer,
            "clientId": self.client_id,
            "clientSecret": self.client_secret.as_ref().map(Secret::expose),
            "caFile": self.ca_file.as_deref().map(Path::to_string_lossy),
            "refreshToken": self.refresh_token.expose(),
        });
        Secret::new(format!("{document:#}\n"))
    }

    /// Writes the file. Blocks.
    ///
    /// # Errors
    /// [`LoginError::Write`]; what was there is then still there.
    pub fn write(&self, path: &Path) -> Result<(), LoginError> {
        write(path, &self.to_text())
    }
}

/// Writes a secret file. Blocks.
pub(super) fn write(path: &Path, text: &Secret) -> Result<(), LoginError> {
    files::write(path, text.expose().as_bytes(), Access::Private)
        .and_then(|()| files::give_to_folder_owner(path))
        .map_err(|source| LoginError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Before another login or token is asked for: sees to it that it can be stored in this file, by writing
/// what is there, `text`, in the same way, and takes room for it. Blocks.
///
/// # Errors
/// [`LoginError::NotKept`].
pub(super) fn make_room(path: &Path, text: Option<&str>) -> Result<Room, LoginError> {
    let write = |text: &str| {
        files::write(path, text.as_bytes(), Access::Private)?;
        files::give_to_folder_owner(path)
    };
    text.map_or(Ok(()), write)
        .and_then(|()| {
            let bytes = text.map_or(0, str::len) + GROWTH;
            Room::take(path, bytes, Access::Private)
        })
        .map_err(|source| LoginError::NotKept {
            path: path.to_owned(),
            source,
        })
}
