//! The connection string of a proxy: from an option (as a text or in a file), else from an
//! argument, else from an environment variable, else from the configuration file.

use std::path::{Path, PathBuf};

use super::{Key, Setting, SettingError, Source, Sources, secret_file};
use crate::secret::Secret;
use crate::text_input;

/// The contents of such a file, for errors.
const WHAT: &str = "the connection string";

/// A connection string that was given.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its text.
    pub text: Secret,
    /// The file that contains it, to read it again.
    pub file: Option<PathBuf>,
    /// Where it was given; none for an argument.
    pub source: Option<Source>,
}

impl Found {
    /// A connection string that was given as an argument.
    pub fn argument(text: &Secret) -> Self {
        Self {
            text: plain(text),
            file: None,
            source: None,
        }
    }

    fn of_text(setting: Setting<Secret>) -> Self {
        Self {
            text: plain(&setting.value),
            file: None,
            source: Some(setting.source),
        }
    }

    /// Reads the file. Blocks.
    fn of_file(setting: Setting<PathBuf>) -> Result<Self, SettingError> {
        Ok(Self {
            text: secret_file(WHAT, &setting.value)?,
            file: Some(setting.value),
            source: Some(setting.source),
        })
    }
}

/// The connection string of the options `text` and `file`; the command line allows only one of
/// them.
///
/// # Errors
/// [`SettingError::SecretFile`] when the file cannot be read.
pub fn of_options(
    (text_key, text): (Key, Option<&Secret>),
    (file_key, file): (Key, Option<PathBuf>),
) -> Result<Option<Found>, SettingError> {
    if let Some(text) = text {
        return Ok(Some(Found::of_text(Setting {
            value: text.clone(),
            source: Source::Option(text_key.name),
        })));
    }
    let file = file.map(|value| {
        Found::of_file(Setting {
            value,
            source: Source::Option(file_key.name),
        })
    });
    file.transpose()
}

/// The connection string of the layers below the command line.
///
/// # Errors
/// [`SettingError`] when a file cannot be read, or the configuration file has both settings.
pub fn of_sources(
    sources: &Sources<'_>,
    text_key: Key,
    file_key: Key,
) -> Result<Option<Found>, SettingError> {
    if let Some(text) = sources.variable(text_key)? {
        return Ok(Some(Found::of_text(text)));
    }
    match (sources.in_file(text_key)?, sources.path(file_key, None)?) {
        (Some(_), Some(file)) => Err(SettingError::Value {
            place: file.source,
            reason: format!("{} is given as well; give one of the two", text_key.name),
        }),
        (Some(text), None) => Ok(Some(Found::of_text(text))),
        (None, Some(file)) => Found::of_file(file).map(Some),
        (None, None) => Ok(None),
    }
}

/// Whether an argument looks like a connection string.
pub fn is_one(argument: &Secret) -> bool {
    argument.expose().to_ascii_lowercase().contains("hostname=")
}

/// Reads the file of a connection string again. Blocks.
///
/// # Errors
/// [`SettingError::SecretFile`] when it cannot be read.
pub fn again(file: &Path) -> Result<Secret, SettingError> {
    secret_file(WHAT, file)
}

/// Removes what tools add around it.
fn plain(text: &Secret) -> Secret {
    Secret::new(text_input::value(text.expose()).as_str())
}
