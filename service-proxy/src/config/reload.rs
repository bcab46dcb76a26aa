//! The configuration, read again while the program runs: every setting is decided as at a start.

use std::path::PathBuf;
use std::sync::Arc;

use common::admin::AdminListen;
use common::settings::{Environment, File, Setting, Sources};
use common::telemetry::LogFormat;
use tracing::level_filters::LevelFilter;

use super::{Config, ConfigError, admin, keys, log_format, log_level, resolve, sources};
use crate::cli::Cli;

/// The command line, and what it takes to decide everything again.
#[derive(Debug, Clone)]
pub struct Reader {
    cli: Cli,
    path: Option<PathBuf>,
}

/// A configuration, and what it was made of.
#[derive(Debug, Clone)]
pub struct Current {
    /// All that is decided.
    pub config: Config,
    /// How much to log.
    pub log_level: LevelFilter,
    /// How a line of it is written.
    pub log_format: LogFormat,
    /// Where metrics and health checks are answered.
    pub admin: AdminListen,
    /// The settings of the configuration file.
    pub file: Arc<File>,
}

impl Reader {
    /// For a program that was started with this command line.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] when the name of the configuration file cannot be read.
    pub fn new(cli: Cli, sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let path = sources.path(keys::CONFIG, cli.options.config.clone())?;
        Ok(Self {
            cli,
            path: path.map(Setting::into_value),
        })
    }

    /// What the configuration is called in the log: its file.
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "the files of the command line".to_owned(),
        }
    }

    /// Reads everything, and decides every setting. With the files that were read. Blocks.
    ///
    /// # Errors
    /// [`ConfigError`], with the place of the mistake.
    pub fn read(
        &self,
        environment: Environment<'_>,
    ) -> Result<(Current, Vec<PathBuf>), ConfigError> {
        let sources = sources(&self.cli.options, environment)?;
        let config = resolve(self.cli.clone(), &sources)?;
        let files = self.path.iter().chain(config.files()).cloned().collect();
        let current = Current {
            log_level: log_level(&self.cli.options, &sources)?,
            log_format: log_format(&self.cli.options, &sources)?,
            admin: admin(&self.cli.options, &sources)?,
            file: sources.file(),
            config,
        };
        Ok((current, files))
    }
}
