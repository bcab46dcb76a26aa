//! The configuration file, read again while the program runs, when SIGHUP asks for it. What it says
//! of the policy holds from then on; other settings need a new start.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use common::report;
use common::settings::{self, Environment, File, Key, Sources};
use common::shutdown::Hangups;
use common::telemetry::AUDIT;
use tokio::task::spawn_blocking;

use super::{Config, ConfigError, keys};
use crate::cli::Cli;
use crate::policy::{Control, Local};

/// The settings that make the policy.
const OF_POLICY: [Key; 5] = [
    keys::TARGET,
    keys::ECHO,
    keys::SESSION,
    keys::MAX_STREAMS,
    keys::ALLOW_CLOUD,
];

/// The configuration file, and the command line that takes precedence over it.
#[derive(Debug, Clone)]
pub struct FollowedFile {
    cli: Cli,
    path: PathBuf,
    at_start: Arc<File>,
}

/// What the file says now.
#[derive(Debug)]
struct Fresh {
    local: Local,
    /// The settings of the file that are not as they were at the start, and are not followed.
    ignored: Vec<String>,
}

impl FollowedFile {
    /// The file that the command line or the environment names, if one does.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] when the name cannot be read.
    pub(super) fn new(cli: &Cli, sources: &Sources<'_>) -> Result<Option<Self>, ConfigError> {
        let path = sources.path(keys::CONFIG, cli.config.clone())?;
        Ok(path.map(|path| Self {
            cli: cli.clone(),
            path: path.into_value(),
            at_start: sources.file(),
        }))
    }

    /// Reads the file, and decides every setting as at a start: an invalid one anywhere in it is an
    /// error. Blocks.
    fn read(&self, environment: Environment<'_>) -> Result<Fresh, ConfigError> {
        let sources = super::sources(&self.cli, environment)?;
        let config = Config::resolve(self.cli.clone(), &sources)?;
        let is_ignored = |name: &&str| !OF_POLICY.iter().any(|key| key.name == *name);
        let file = sources.file();
        let ignored = self.at_start.differing(&file).filter(is_ignored);
        Ok(Fresh {
            ignored: ignored.map(str::to_owned).collect(),
            local: config.local(),
        })
    }
}

/// Changes the policy when SIGHUP asks for it. A file that cannot be used is reported in the log,
/// and the policy stays. Never ends; may be dropped.
pub async fn follow(file: FollowedFile, policy: &Control) -> Infallible {
    let mut hangups = Hangups::new();
    loop {
        hangups.next().await;
        let reading = file.clone();
        // The disk may be slow, and the streams do not wait for it.
        let read = spawn_blocking(move || reading.read(&settings::of_process)).await;
        let path = file.path.display();
        match read {
            Ok(Ok(fresh)) => take(fresh, policy, &path.to_string()),
            Ok(Err(error)) => tracing::warn!(
                "the policy is unchanged, since {path} cannot be used: {}",
                report::chain(&error)
            ),
            // The runtime ends.
            Err(_) => {}
        }
    }
}

/// Puts what the file says in force.
fn take(fresh: Fresh, policy: &Control, path: &str) {
    if policy.set_local(fresh.local) {
        let summary = policy.watch().borrow().summary();
        tracing::info!(name: AUDIT, "policy changed by {path}: {summary}");
    } else {
        tracing::info!("read {path} again: the policy is unchanged");
    }
    if !fresh.ignored.is_empty() {
        tracing::warn!(
            "{path} also changes {}: device-proxy has to be started again for that",
            fresh.ignored.join(", ")
        );
    }
}

#[cfg(all(test, unix))]
mod tests {
    use clap::Parser as _;

    use super::*;

    const DEVICE: &str = r#"connection-string = "HostName=h;DeviceId=d;SharedAccessKey=AAEC""#;

    #[test]
    fn the_policy_is_followed_and_other_settings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, include_str!("../../testdata/ca.pem")).unwrap();
        let path = folder.path().join("device-proxy.toml");
        let write = |rest: &str| {
            let text = format!("{DEVICE}\nca-file = {ca:?}\n{rest}");
            std::fs::write(&path, text).unwrap();
        };
        write("target = [\"ssh=localhost:22\"]\nmemory = 64");
        let line = ["device-proxy", "--max-streams", "7", "--config"];
        let path_text = path.to_str().unwrap();
        let cli = Cli::try_parse_from(line.iter().chain([&path_text])).unwrap();
        let sources = super::super::sources(&cli, &|_| None).unwrap();
        let file = Config::resolve(cli, &sources).unwrap().file.unwrap();
        let read = || file.read(&|_| None);
        assert!(read().unwrap().ignored.is_empty());

        write("\n\nmemory = 64\necho = true\nsession = \"never\"\nmax-streams = 9");
        let fresh = read().unwrap();
        assert!(fresh.ignored.is_empty(), "the same value on another line");
        let policy = fresh.local.policy;
        assert_eq!(policy.max_streams, 7, "the option takes precedence");
        assert_eq!(
            policy.summary(),
            "streams reach echo -> built-in echo; session mode never; at most 7 streams at once"
        );

        write("echo = true\nmemory = 64\nallow-cloud = \"127.0.0.1:*\"");
        let fresh = read().unwrap();
        assert!(fresh.ignored.is_empty());
        assert_eq!(fresh.local.allowed.to_string(), "127.0.0.1:*");

        write("echo = true\ntransport = \"mqtt\"");
        assert_eq!(read().unwrap().ignored, ["memory", "transport"]);
        write("echo = true\ntransport = \"tcp\"");
        assert!(
            read()
                .unwrap_err()
                .to_string()
                .contains("line 4: transport")
        );
    }
}
