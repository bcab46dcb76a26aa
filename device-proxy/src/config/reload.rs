//! The configuration, read again while the program runs: every setting is decided as at a start, so
//! that it takes effect as a whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use common::admin::AdminListen;
use common::settings::{self, Environment, File, Sources};
use common::telemetry::LogFormat;
use tracing::level_filters::LevelFilter;

use super::{Config, ConfigError, keys};
use crate::cli::Options;

/// The command line, and what it takes to decide everything again.
#[derive(Debug, Clone)]
pub struct Reader {
    options: Options,
    path: Option<PathBuf>,
}

/// A configuration, and what it was made of.
#[derive(Debug, Clone)]
pub struct Current {
    /// All that is decided.
    pub config: Arc<Config>,
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
    pub fn new(options: &Options, sources: &Sources<'_>) -> Result<Self, ConfigError> {
        let path = sources.path(keys::CONFIG, options.config.clone())?;
        Ok(Self {
            options: options.clone(),
            path: path.map(settings::Setting::into_value),
        })
    }

    /// What the configuration is called in the log: its file.
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "the files of the command line".to_owned(),
        }
    }

    /// Reads everything, and decides every setting: an invalid one anywhere in it is an error. With
    /// the files that were read. Blocks.
    ///
    /// # Errors
    /// [`ConfigError`], with the place of the mistake.
    pub fn read(
        &self,
        environment: Environment<'_>,
    ) -> Result<(Current, Vec<PathBuf>), ConfigError> {
        let sources = super::sources(&self.options, environment)?;
        let config = Config::resolve(self.options.clone(), &sources)?;
        let files = self.path.iter().chain(config.files()).cloned().collect();
        let current = Current {
            log_level: super::log_level(&self.options, &sources)?,
            log_format: super::log_format(&self.options, &sources)?,
            admin: super::admin(&self.options, &sources)?,
            file: sources.file(),
            config: Arc::new(config),
        };
        Ok((current, files))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use clap::Parser as _;

    use super::*;

    const DEVICE: &str = r#"connection-string = "HostName=h;DeviceId=d;SharedAccessKey=AAEC""#;

    #[test]
    fn everything_is_decided_again() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, include_str!("../../testdata/ca.pem")).unwrap();
        let path = folder.path().join("device-proxy.toml");
        let write = |device: &str, rest: &str| {
            let text = format!("{device}\nca-file = {ca:?}\n{rest}");
            std::fs::write(&path, text).unwrap();
        };
        write(DEVICE, "target = [\"ssh=localhost:22\"]\nmemory = 64");
        let line = ["device-proxy", "--max-streams", "7", "--config"];
        let path_text = path.to_str().unwrap();
        let options = crate::cli::Cli::try_parse_from(line.iter().chain([&path_text]))
            .unwrap()
            .options;
        let sources = super::super::sources(&options, &|_| None).unwrap();
        let reader = Reader::new(&options, &sources).unwrap();
        assert_eq!(reader.name(), path_text);
        let read = || reader.read(&|_| None);
        let (first, files) = read().unwrap();
        assert_eq!(files, [path.clone(), ca.clone()]);

        write(
            DEVICE,
            "\n\nmemory = 64\necho = true\nsession = \"never\"\nmax-streams = 9\nlog-level = \"debug\"",
        );
        let (second, _) = read().unwrap();
        let mut names: Vec<_> = first.file.differing(&second.file).collect();
        names.sort_unstable();
        let changed = ["echo", "log-level", "max-streams", "session", "target"];
        assert_eq!(names, changed, "the same value on another line is none");
        let policy = second.config.policy();
        assert_eq!(policy.max_streams, 7, "the option takes precedence");
        assert_eq!(
            policy.summary(),
            "streams reach echo -> built-in echo; session mode never; at most 7 streams at once"
        );
        assert_eq!(second.log_level, LevelFilter::DEBUG);
        assert!(first.config.connects_as(&second.config));
        assert!(first.config.fixed_differing(&second.config).is_empty());

        write(DEVICE, "echo = true\ntransport = \"mqtt\"");
        assert!(!first.config.connects_as(&read().unwrap().0.config));
        write(&DEVICE.replace("AAEC", "AAED"), "echo = true");
        let (rotated, _) = read().unwrap();
        assert!(!first.config.connects_as(&rotated.config));
        assert!(first.config.is_of_same_device(&rotated.config));
        let other = DEVICE.replace("DeviceId=d", "DeviceId=e");
        write(&other, "echo = true\nsample-output = true");
        let (other, _) = read().unwrap();
        assert!(!first.config.is_of_same_device(&other.config));
        let fixed = first.config.fixed_differing(&other.config);
        assert_eq!(fixed, ["the device", "sample-output"]);
        write(DEVICE, "echo = true\ntransport = \"tcp\"");
        let error = read().unwrap_err().to_string();
        assert!(error.contains("line 4: transport"), "{error}");
    }
}
