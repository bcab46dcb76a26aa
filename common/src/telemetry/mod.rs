//! Logs on stderr. Only our own crates log: libraries log what travels through
//! them, and topics and headers carry tokens, so theirs is shut off at every level. No line waits
//! for its reader ([`crate::output`]), and what repeats is summed up ([`crate::repeats`]), but for
//! events with the name [`AUDIT`].

mod about;
mod json;
mod lines;
mod summed;

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, reload};

use crate::locks::lock;
use crate::output;
pub use about::{About, seconds};
use lines::Lines;
pub use lines::prefix;
use summed::{Summed, Summing};

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, and nothing else on stderr.
    Json,
}

/// The crates whose events are shown.
const OURS: [&str; 7] = [
    "common",
    "device_proxy",
    "device_stream_session",
    "device_stream_websocket",
    "hub",
    "quickstart",
    "service_proxy",
];

/// The name of events that count each for itself, however many there are: who has opened and
/// closed what, which device was here, whose session was evicted. Only what somebody with valid
/// credentials did, once for each, may have it: `tracing::info!(name: AUDIT, …)`. Every other
/// event of level INFO and above is summed up when it repeats, and so are new ones.
pub const AUDIT: &str = "audit";

/// What this process counts.
static SUMMING: OnceLock<Arc<Summing>> = OnceLock::new();

/// The level of this process's log.
static LEVEL: OnceLock<Level> = OnceLock::new();

#[derive(Debug)]
struct Level {
    levels: Mutex<Levels>,
    shown: reload::Handle<Targets, Registry>,
}

#[derive(Debug, Clone, Copy)]
struct Levels {
    configured: LevelFilter,
    /// Instead of the configured one.
    wanted: Option<LevelFilter>,
}

impl Levels {
    fn now(self) -> LevelFilter {
        self.wanted.unwrap_or(self.configured)
    }
}

/// Has the log show events from this level on; without one, from that of the configuration on. False
/// if this process has no log.
pub fn set_level(level: Option<LevelFilter>) -> bool {
    change_level(|levels| levels.wanted = level)
}

/// From now on this is the level of the configuration, which holds unless [`set_level`] has given
/// another one. False if this process has no log.
pub fn set_configured_level(level: LevelFilter) -> bool {
    change_level(|levels| levels.configured = level)
}

fn change_level(change: impl FnOnce(&mut Levels)) -> bool {
    let Some(log) = LEVEL.get() else {
        return false;
    };
    let mut levels = lock(&log.levels);
    let mut changed = *levels;
    change(&mut changed);
    if log.shown.reload(shown(changed.now())).is_err() {
        return false;
    }
    *levels = changed;
    true
}

/// The level of the log, if this process has one.
pub fn level() -> Option<LevelFilter> {
    LEVEL.get().map(|log| lock(&log.levels).now())
}

/// What was logged and printed is written, or given up, when this is dropped: at the end of `main`.
#[must_use]
pub struct Flush(());

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}

/// Reports what was counted, and waits until everything is written, for a second and output at
/// most. For the end of a program. Blocks.
pub fn flush() {
    if let Some(summing) = SUMMING.get() {
        summing.report_all();
    }
    output::finish();
}

/// Our own events, from this level on.
fn shown(level: LevelFilter) -> Targets {
    Targets::new().with_targets(OURS.map(|name| (name, level)))
}

/// Sets up logging for the whole process; a second call does nothing.
pub fn init(level: LevelFilter, form: LogFormat) -> Flush {
    let is_json = form == LogFormat::Json;
    let summing = Arc::new(Summing::default());
    let (filter, handle) = reload::Layer::new(shown(level));
    let filter = filter.and(Summed::new(Arc::clone(&summing)));
    let is_coloured =
        !is_json && std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || output::Log { is_coloured })
        .with_ansi(is_coloured)
        .event_format(Lines::new(form, level >= LevelFilter::DEBUG));
    let done = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
    if done.is_ok() && is_json {
        output::use_json();
    }
    if done.is_ok() && SUMMING.set(Arc::clone(&summing)).is_ok() {
        summing.start();
        let _ = LEVEL.set(Level {
            levels: Mutex::new(Levels {
                configured: level,
                wanted: None,
            }),
            shown: handle,
        });
    }
    Flush(())
}
