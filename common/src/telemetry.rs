//! Logs on stderr. Only our own crates speak: libraries log what travels through
//! them, and topics and headers carry tokens, so theirs is shut off at every level. No line waits
//! for its reader ([`crate::output`]).

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::output;

/// The crates whose events are shown.
const OURS: [&str; 5] = [
    "common",
    "device_proxy",
    "hub",
    "quickstart",
    "service_proxy",
];

/// What was logged and printed is written, or given up, when this is dropped: at the end of `main`.
#[must_use]
pub struct Flush(());

impl Drop for Flush {
    fn drop(&mut self) {
        output::finish();
    }
}

/// Sets up logging for the whole process; a second call does nothing.
pub fn init(level: LevelFilter) -> Flush {
    let filter = Targets::new().with_targets(OURS.map(|name| (name, level)));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| output::Log)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(level >= LevelFilter::DEBUG);
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init();
    Flush(())
}
