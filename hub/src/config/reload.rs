//! The configuration of a hub, read again while it runs: every setting is decided as at a start.

use std::path::PathBuf;
use std::sync::Arc;

use common::settings::{Environment, File, Setting, Sources};
use common::telemetry::LogFormat;
use tracing::level_filters::LevelFilter;

use super::{ConfigError, ServeConfig, data_dir, keys, log_format, log_level, serve, sources};
use crate::cli::{Cli, ServeArgs};
use crate::tls::CertificateSource;

/// The command line, and what it takes to decide everything again.
#[derive(Debug, Clone)]
pub struct Reader {
    cli: Cli,
    args: ServeArgs,
    path: Option<PathBuf>,
}

/// A configuration, and what it was made of.
#[derive(Debug, Clone)]
pub struct Current {
    /// All that is decided.
    pub config: ServeConfig,
    /// How much to log.
    pub log_level: LevelFilter,
    /// How a line of it is written.
    pub log_format: LogFormat,
    /// The settings of the configuration file.
    pub file: Arc<File>,
}

impl Reader {
    /// For a hub that was started with this command line.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] when the name of the configuration file cannot be read.
    pub fn new(cli: Cli, args: ServeArgs, sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let path = sources.path(keys::CONFIG, cli.config.clone())?;
        Ok(Self {
            cli,
            args,
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

    /// Reads everything, and decides every setting. With the files that are read then or later.
    /// Blocks.
    ///
    /// # Errors
    /// [`ConfigError`], with the place of the mistake.
    pub fn read(
        &self,
        environment: Environment<'_>,
    ) -> Result<(Current, Vec<PathBuf>), ConfigError> {
        let sources = sources(&self.cli, environment)?;
        let config = serve(self.args.clone(), data_dir(&self.cli, &sources)?, &sources)?;
        let mut files: Vec<_> = self.path.iter().cloned().collect();
        if let CertificateSource::Files { certificate, key } = &config.certificate {
            files.extend([certificate.clone(), key.clone()]);
        }
        files.extend(config.access.rules.iter().map(|(path, _)| path.clone()));
        let current = Current {
            log_level: log_level(&self.cli, &sources)?,
            log_format: log_format(&self.cli, &sources)?,
            file: sources.file(),
            config,
        };
        Ok((current, files))
    }
}
