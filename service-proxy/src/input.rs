//! A JSON document that a command is given: as its argument, in a file, or on standard input.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::Value;

use crate::limits;

/// Where a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// In the argument itself.
    Argument(Value),
    /// In this file: `@FILE`.
    File(PathBuf),
    /// On standard input: `-`.
    Stdin,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The argument is not JSON. The parser of the command line shows this text and no cause, so the
    /// reason is part of it.
    #[error("it is not JSON: {0}; give JSON (text stands in double quotes), @FILE or - for stdin")]
    Argument(serde_json::Error),
    /// The file or standard input cannot be read.
    #[error("cannot read {place}")]
    Unreadable {
        /// Where the document should be.
        place: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is more than any hub takes.
    #[error("{place} has more than {} bytes", limits::INPUT_DOCUMENT)]
    TooLarge {
        /// Where the document should be.
        place: String,
    },
    /// What is there is not JSON.
    #[error("{place} is not JSON")]
    NotJson {
        /// Where the document should be.
        place: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// It is JSON, but no object.
    #[error("{what} is not a JSON object: give {{…}}")]
    NoObject {
        /// What it should be.
        what: &'static str,
    },
}

impl FromStr for Input {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        if text == "-" {
            return Ok(Self::Stdin);
        }
        match text.strip_prefix('@') {
            Some(path) => Ok(Self::File(path.into())),
            None => serde_json::from_str(text)
                .map(Self::Argument)
                .map_err(InputError::Argument),
        }
    }
}

impl Input {
    /// Reads the document. When the future is dropped, what was read of standard input is lost.
    ///
    /// # Errors
    /// [`InputError`] names the place.
    pub async fn read(self) -> Result<Value, InputError> {
        match self {
            Self::Argument(value) => Ok(value),
            Self::File(path) => {
                let place = path.display().to_string();
                read(place, move || {
                    io::BufReader::new(std::fs::File::open(path)?).read_some()
                })
                .await
            }
            Self::Stdin => {
                read("standard input".to_owned(), || {
                    io::stdin().lock().read_some()
                })
                .await
            }
        }
    }

    /// Reads a document that must be an object; `what` names it for a person.
    ///
    /// # Errors
    /// [`InputError`] names the place.
    pub async fn read_object(self, what: &'static str) -> Result<Value, InputError> {
        let value = self.read().await?;
        if value.is_object() {
            Ok(value)
        } else {
            Err(InputError::NoObject { what })
        }
    }
}

/// Reads no more than is wanted.
trait ReadSome {
    fn read_some(self) -> io::Result<Vec<u8>>;
}

impl<R: io::Read> ReadSome for R {
    fn read_some(self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(limits::INPUT_DOCUMENT + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

async fn read(
    place: String,
    read: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
) -> Result<Value, InputError> {
    let read = tokio::task::spawn_blocking(read).await;
    let bytes = match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(bytes) => bytes,
        Err(source) => return Err(InputError::Unreadable { place, source }),
    };
    if bytes.len() as u64 > limits::INPUT_DOCUMENT {
        return Err(InputError::TooLarge { place });
    }
    // Editors on Windows write a byte order mark.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    serde_json::from_slice(text).map_err(|source| InputError::NotJson { place, source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn documents_come_from_arguments_and_files() {
        let of = |text: &str| text.parse::<Input>();
        assert_eq!(of("-").unwrap(), Input::Stdin);
        assert_eq!(of("@x").unwrap(), Input::File("x".into()));
        assert_eq!(of("[1]").unwrap().read().await.unwrap(), json!([1]));
        assert!(
            of("reboot")
                .unwrap_err()
                .to_string()
                .contains("double quotes")
        );
        let error = of("[1]")
            .unwrap()
            .read_object("the patch")
            .await
            .unwrap_err();
        assert!(error.to_string().contains("the patch"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("document");
        let at = || Input::File(path.clone());
        assert!(matches!(
            at().read().await,
            Err(InputError::Unreadable { .. })
        ));
        std::fs::write(&path, "\u{feff}{\"a\": 1}\n").unwrap();
        assert_eq!(at().read_object("it").await.unwrap(), json!({ "a": 1 }));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(at().read().await, Err(InputError::NotJson { .. })));
        std::fs::write(&path, " ".repeat(2 << 20)).unwrap();
        assert!(matches!(
            at().read().await,
            Err(InputError::TooLarge { .. })
        ));
    }
}
