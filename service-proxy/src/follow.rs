//! The configuration is followed while the program listens: what has changed in its files takes
//! effect, and no connection ends for it, except those of a forward that is gone.

use std::convert::Infallible;
use std::future::pending;

use common::reload::Reloads;
use common::status::Place;
use common::{settings, telemetry};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError, Current, Reader};
use crate::local::running::Update;

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

/// Gives each new configuration to `updates`, as `of` makes it of that. One that cannot be used is
/// reported in the log, and changes nothing. When the program's terminal was closed, it cancels
/// `stop`. Never ends; may be dropped.
pub(crate) async fn follow<T>(
    followed: Followed,
    of: impl Fn(Config) -> Option<T>,
    updates: mpsc::Sender<Update<T>>,
    stop: &CancellationToken,
) -> Infallible {
    let Followed {
        mut current,
        reader,
        mut reloads,
        status: _,
    } = followed;
    let what = reader.name();
    let start = current.config.clone();
    let of_start = (current.log_format, current.admin);
    let read = move || {
        let read = reader.read(&settings::of_process)?;
        read.0.config.check()?;
        Ok::<_, ConfigError>(read)
    };
    while let Some(fresh) = reloads.read(&what, read.clone()).await {
        fresh.log(&what, current.file.differing(&fresh.config.file));
        let mut fixed = start.fixed_differing(&fresh.config.config);
        fixed.extend((fresh.config.log_format != of_start.0).then_some("log-format"));
        fixed.extend((fresh.config.admin != of_start.1).then_some("admin"));
        if !fixed.is_empty() {
            tracing::warn!(
                "{what} also changes {}: service-proxy has to be started again for that",
                fixed.join(", ")
            );
        }
        if fresh.config.log_level != current.log_level {
            telemetry::set_configured_level(fresh.config.log_level);
        }
        current = fresh.config;
        if let Some(config) = of(current.config.clone()) {
            let update = Update {
                config,
                files: fresh.files,
            };
            // Who takes them ends with the program.
            let _ = updates.send(update).await;
        }
    }
    stop.cancel();
    pending().await
}
