//! The end of the log as the data folder knows it, signed: with it a verification on this machine
//! finds that the last lines were cut off. It is written after the lines are on the disk, so it is
//! never ahead of them.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::files::{self, Access};
use serde_json::{Value, json};

use super::chain::{Link, unhex};
use super::keys::{PublicKey, SigningKey};

const FILE: &str = "end.json";
const SIGNED: &str = "device-streams audit end 2";

/// What the data folder knows of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEnd {
    /// The last line that was on the disk.
    pub link: Link,
    /// The file that it is in; `None`: the log goes to standard output alone.
    pub file: Option<PathBuf>,
    /// The log goes to this file since this line; what was before is elsewhere.
    pub since: u64,
    /// Rotation has removed the lines up to this one; 0: none.
    pub removed_through: u64,
}

impl KnownEnd {
    fn signed(&self) -> String {
        let file = self.file.as_deref().unwrap_or(Path::new("")).display();
        let Link { seq, .. } = self.link;
        let (hash, since, removed) = (self.link.hex(), self.since, self.removed_through);
        format!("{SIGNED}\n{seq}\n{hash}\n{since}\n{removed}\n{file}")
    }

    /// Stores it in this folder. Blocks.
    ///
    /// # Errors
    /// The system's; what was stored before is still there.
    pub fn store(&self, folder: &Path, key: &SigningKey) -> io::Result<()> {
        let signature = BASE64.encode(key.sign(self.signed().as_bytes()));
        let text = json!({
            "seq": self.link.seq,
            "hash": self.link.hex(),
            "file": self.file,
            "since": self.since,
            "removedThrough": self.removed_through,
            "signature": signature,
        });
        files::write(
            &folder.join(FILE),
            format!("{text}\n").as_bytes(),
            Access::Private,
        )
    }

    /// What is stored in this folder; `None`: nothing, or nothing that this key has signed. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn load(folder: &Path, key: &PublicKey) -> io::Result<Option<Self>> {
        let text = match std::fs::read(folder.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Self::read(&text, key))
    }

    fn read(text: &[u8], key: &PublicKey) -> Option<Self> {
        let json: Value = serde_json::from_slice(text).ok()?;
        let end = Self {
            link: Link {
                seq: json.get("seq")?.as_u64()?,
                hash: unhex(json.get("hash")?.as_str()?)?,
            },
            file: json.get("file")?.as_str().map(PathBuf::from),
            since: json.get("since")?.as_u64()?,
            removed_through: json.get("removedThrough")?.as_u64()?,
        };
        let signature = BASE64.decode(json.get("signature")?.as_str()?).ok()?;
        key.verify(end.signed().as_bytes(), &signature)
            .then_some(end)
    }
}
