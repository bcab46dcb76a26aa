//! The settings of a program, in layers. The command line takes precedence over the environment,
//! that over the configuration file, and that over the default. All programs use the same lookup,
//! so that each layer is read in the same way, and an error names the place of the invalid value.

pub mod connection_string;
mod file;
mod kinds;
pub mod session;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::level_filters::LevelFilter;

use crate::secret::Secret;
use crate::text_input::{self, TextError};

pub use self::file::{File, Tables};
pub use self::kinds::{choice, log_level, number};

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the option of this name, without its dashes.
    Option(&'static str),
    /// In this environment variable.
    Variable(&'static str),
    /// In a configuration file.
    File {
        /// Which file.
        path: Arc<Path>,
        /// The line on which the value begins, from 1.
        line: usize,
        /// The setting's name there.
        key: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => write!(f, "--{name}"),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
            Self::File { path, line, key } => {
                write!(f, "{}, line {line}: {key}", path.display())
            }
        }
    }
}

/// A value, and where it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it was given.
    pub source: Source,
}

impl<T> Setting<T> {
    /// The value alone.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Converts the value.
    ///
    /// # Errors
    /// [`SettingError::Value`] with the place of the value and the reason of `read`.
    pub fn read<U, E: fmt::Display>(
        self,
        read: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<Setting<U>, SettingError> {
        match read(self.value) {
            Ok(value) => Ok(Setting {
                value,
                source: self.source,
            }),
            Err(reason) => Err(SettingError::Value {
                place: self.source,
                reason: reason.to_string(),
            }),
        }
    }
}

/// The names of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The name of its option, without the dashes, and its key in a configuration file.
    pub name: &'static str,
    /// Its environment variables; the first one that is set is used.
    pub variables: &'static [&'static str],
}

impl Key {
    /// A setting without an environment variable.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            variables: &[],
        }
    }

    /// The same with these environment variables.
    pub const fn or(self, variables: &'static [&'static str]) -> Self {
        Self {
            name: self.name,
            variables,
        }
    }
}

/// Why a setting cannot be used. No variant repeats text of a file.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TextError,
    },
    /// The configuration file is not TOML.
    #[error("{}, line {line}: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The line at fault, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The configuration file has an unknown key.
    #[error("{0} is no setting; a setting has the name of its option, see --help")]
    Unknown(Source),
    /// A value is invalid.
    #[error("{place}: {reason}")]
    Value {
        /// Where it was given.
        place: Source,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable is not text.
    #[error("the environment variable {0} is not UTF-8 text")]
    NotText(&'static str),
    /// A file with a secret cannot be read.
    #[error("cannot read {what} from {}", path.display())]
    SecretFile {
        /// The contents of the file.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TextError,
    },
}

/// Looks up environment variables, in the process or in a test's table.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
pub fn of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The layers below the command line.
#[derive(Clone)]
pub struct Sources<'a> {
    environment: Environment<'a>,
    file: Arc<File>,
    table: Option<Table>,
}

/// A table of the file that comes before the environment, since it says more of fewer things.
#[derive(Clone)]
struct Table {
    settings: Arc<File>,
    /// Settings of which only the table's own count.
    own: &'static [Key],
}

impl<'a> Sources<'a> {
    /// The environment, and no configuration file.
    pub fn new(environment: Environment<'a>) -> Self {
        Self {
            environment,
            file: Arc::default(),
            table: None,
        }
    }

    /// The environment, and the configuration file that `given` or else the environment variable of
    /// `key` names, if any. The file may contain the settings `known`.
    ///
    /// # Errors
    /// [`SettingError`] when the file cannot be read, is not TOML, or contains other settings.
    pub fn open(
        key: Key,
        given: Option<PathBuf>,
        environment: Environment<'a>,
        known: &[Key],
    ) -> Result<Self, SettingError> {
        Self::open_with_tables(key, given, environment, known, &[])
    }

    /// The same, with a file that may contain such tables.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_tables(
        key: Key,
        given: Option<PathBuf>,
        environment: Environment<'a>,
        known: &[Key],
        tables: &[Tables],
    ) -> Result<Self, SettingError> {
        let mut sources = Self::new(environment);
        if let Some(path) = sources.path(key, given)? {
            sources.file = Arc::new(File::read(&path.value, known, tables)?);
        }
        Ok(sources)
    }

    /// The names of the file's tables of this kind, in the order of the alphabet, and where each
    /// begins.
    pub fn tables(&self, kind: &str) -> Vec<Setting<String>> {
        self.file.tables(kind)
    }

    /// The same sources, and before environment and file this table of the file. Of the settings
    /// `own` only those in the table count.
    #[must_use]
    pub fn of_table(&self, kind: &str, table: &str, own: &'static [Key]) -> Self {
        Self {
            table: Some(Table {
                settings: Arc::new(self.file.table(kind, table)),
                own,
            }),
            ..self.clone()
        }
    }

    /// The table, if this setting is to be found there and nowhere else.
    fn table_for(&self, key: Key) -> Option<&File> {
        let table = self.table.as_ref()?;
        let is_there = table.settings.has(key.name) || table.own.contains(&key);
        is_there.then_some(&*table.settings)
    }

    fn file_for(&self, key: Key) -> &File {
        self.table_for(key).unwrap_or(&self.file)
    }

    /// The configuration file alone; empty without one.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// A setting: the value of the command line, else the text of the environment or of the file,
    /// parsed by `parse`.
    ///
    /// # Errors
    /// [`SettingError`] names the place of a value that cannot be read.
    pub fn setting<T, E: fmt::Display>(
        &self,
        key: Key,
        given: Option<T>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<Setting<T>>, SettingError> {
        if let Some(value) = given {
            return Ok(Some(Setting {
                value,
                source: Source::Option(key.name),
            }));
        }
        let text = self.text(key)?;
        text.map(|text| text.read(|text| parse(text.expose())))
            .transpose()
    }

    /// The value of a setting, as [`Self::setting`] finds it, or its default.
    ///
    /// # Errors
    /// [`SettingError`] names the place of a value that cannot be read.
    pub fn value<T, E: fmt::Display>(
        &self,
        key: Key,
        given: Option<T>,
        parse: impl FnOnce(&str) -> Result<T, E>,
        default: T,
    ) -> Result<T, SettingError> {
        let setting = self.setting(key, given, parse)?;
        Ok(setting.map_or(default, Setting::into_value))
    }

    /// A text from the environment, else from the file; it may be a secret.
    ///
    /// # Errors
    /// [`SettingError`] when a variable or the value in the file is not text.
    pub fn text(&self, key: Key) -> Result<Option<Setting<Secret>>, SettingError> {
        match self.variable(key)? {
            Some(found) => Ok(Some(found)),
            None => self.file_for(key).text(key.name),
        }
    }

    /// A text from the environment. An empty variable counts as unset.
    ///
    /// # Errors
    /// [`SettingError::NotText`].
    pub fn variable(&self, key: Key) -> Result<Option<Setting<Secret>>, SettingError> {
        if self.table_for(key).is_some() {
            return Ok(None);
        }
        for name in key.variables.iter().copied() {
            let Some(value) = (self.environment)(name) else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            let text = value.into_string();
            let text = text.map_err(|_| SettingError::NotText(name))?;
            if let Some(value) = text_input::variable(&text) {
                return Ok(Some(Setting {
                    value: Secret::new(value.as_str()),
                    source: Source::Variable(name),
                }));
            }
        }
        Ok(None)
    }

    /// A text from the file alone.
    ///
    /// # Errors
    /// [`SettingError::Value`] when it is not text.
    pub fn in_file(&self, key: Key) -> Result<Option<Setting<Secret>>, SettingError> {
        self.file_for(key).text(key.name)
    }

    /// A path, which need not be UTF-8 in the environment.
    ///
    /// # Errors
    /// [`SettingError::Value`] when the value in the file is not text.
    pub fn path(
        &self,
        key: Key,
        given: Option<PathBuf>,
    ) -> Result<Option<Setting<PathBuf>>, SettingError> {
        if let Some(value) = given {
            return Ok(Some(Setting {
                value,
                source: Source::Option(key.name),
            }));
        }
        let variables = match self.table_for(key) {
            Some(_) => &[],
            None => key.variables,
        };
        for name in variables.iter().copied() {
            let path = match (self.environment)(name).map(OsString::into_string) {
                None => None,
                Some(Ok(text)) => {
                    text_input::variable(&text).map(|text| PathBuf::from(text.as_str()))
                }
                Some(Err(path)) => Some(PathBuf::from(path)),
            };
            if let Some(value) = path {
                return Ok(Some(Setting {
                    value,
                    source: Source::Variable(name),
                }));
            }
        }
        let text = self.file_for(key).text(key.name)?;
        Ok(text.map(|text| Setting {
            value: PathBuf::from(text.value.expose()),
            source: text.source,
        }))
    }

    /// The texts of a repeatable option, or of a list or a single text in the file.
    ///
    /// # Errors
    /// [`SettingError::Value`] when the file has something else there.
    pub fn list(&self, key: Key, given: Vec<String>) -> Result<Vec<Setting<String>>, SettingError> {
        if given.is_empty() {
            return self.file_for(key).list(key.name);
        }
        let of_option = |value| Setting {
            value,
            source: Source::Option(key.name),
        };
        Ok(given.into_iter().map(of_option).collect())
    }

    /// The log level: INFO by default.
    ///
    /// # Errors
    /// [`SettingError`] when the value is not a level.
    pub fn log_level(
        &self,
        key: Key,
        given: Option<LevelFilter>,
    ) -> Result<LevelFilter, SettingError> {
        self.value(key, given, kinds::log_level, LevelFilter::INFO)
    }

    /// A flag: given as an option, or true in the file.
    ///
    /// # Errors
    /// [`SettingError::Value`] when the file has neither `true` nor `false` there.
    pub fn flag(&self, key: Key, given: bool) -> Result<bool, SettingError> {
        Ok(given || self.file_for(key).flag(key.name)?)
    }
}

/// Reads a file that contains one secret, and removes what tools add around it. Blocks.
///
/// # Errors
/// [`SettingError::SecretFile`]; `what` describes the secret.
pub fn secret_file(what: &'static str, path: &Path) -> Result<Secret, SettingError> {
    match text_input::read(path) {
        Ok(text) => Ok(Secret::new(text_input::value(&text).as_str())),
        Err(source) => Err(SettingError::SecretFile {
            what,
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests;
