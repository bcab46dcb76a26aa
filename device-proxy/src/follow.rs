//! The configuration is followed while the program runs: what has changed in its files takes effect,
//! and no stream ends for it, except at targets that were withdrawn.

use std::path::Path;
use std::sync::Arc;

use common::reload::{Fresh, Reloads};
use common::settings;
use common::status::Place;
use common::telemetry::{self, AUDIT};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Current, Reader};
use crate::policy::Control;
use crate::streams::Streams;

/// A configuration, and when and how it is read again.
pub struct Followed {
    /// As it is in force.
    pub current: Current,
    /// Reads it again.
    pub reader: Reader,
    /// When.
    pub reloads: Reloads,
    /// Where the program is asked for its status, to its end.
    pub status: Place,
}

/// What follows the configuration.
pub(crate) struct Followers<'a> {
    pub(crate) policy: &'a Control,
    pub(crate) streams: &'a Streams,
    /// How the hub is reached, and who we are there.
    pub(crate) connection: &'a watch::Sender<Arc<Config>>,
}

/// Takes over each new configuration. One that cannot be used is reported in the log, and changes
/// nothing. When the program's terminal was closed, it cancels `stop`. Ends then; may be dropped.
pub(crate) async fn follow(followed: Followed, followers: Followers<'_>, stop: &CancellationToken) {
    let Followed {
        mut current,
        reader,
        mut reloads,
        status: _,
    } = followed;
    let what = reader.name();
    let start = Arc::clone(&current.config);
    let of_start = (current.log_format, current.admin);
    // All connections are dialled by the first one.
    let dialer = start.dialer.clone();
    let read = move || reader.read(&settings::of_process);
    while let Some(fresh) = reloads.read(&what, read.clone()).await {
        fresh.log(&what, current.file.differing(&fresh.config.file));
        take(&what, &current, &fresh, &followers);
        let Fresh { mut config, .. } = fresh;
        if start.is_of_same_device(&config.config) {
            let before = followers.connection.borrow().clone();
            let is_other = |file: &Path| before.tls_files.iter().any(|it| it == file);
            let is_same = before.connects_as(&config.config)
                && !fresh.files.iter().any(|file| is_other(file));
            if !is_same {
                dialer.follow(&config.config.dialer);
            }
            Arc::make_mut(&mut config.config).dialer = dialer.clone();
            followers.streams.follow(&config.config);
            // What has nothing to do with the connection is used for the next one.
            followers.connection.send_if_modified(|newest| {
                *newest = Arc::clone(&config.config);
                !is_same
            });
        }
        let mut fixed = start.fixed_differing(&config.config);
        fixed.extend((config.log_format != of_start.0).then_some("log-format"));
        fixed.extend((config.admin != of_start.1).then_some("admin"));
        if !fixed.is_empty() {
            tracing::warn!(
                "{what} also changes {}: device-proxy has to be started again for that",
                fixed.join(", ")
            );
        }
        current = config;
    }
    stop.cancel();
}

/// Takes over what has nothing to do with the hub.
fn take(what: &str, before: &Current, fresh: &Fresh<Current>, followers: &Followers<'_>) {
    let now = &fresh.config;
    if now.log_level != before.log_level {
        telemetry::set_configured_level(now.log_level);
    }
    let of = |config: &Config| (config.session.grace, config.session.memory, config.limits);
    if of(&now.config) != of(&before.config) {
        followers.streams.follow_limits(&now.config);
    }
    if followers.policy.set_local(now.config.local()) {
        followers.streams.follow_rules();
        let summary = followers.policy.watch().borrow().summary();
        tracing::info!(name: AUDIT, "policy changed by {what}: {summary}");
    }
}
