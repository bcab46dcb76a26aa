//! Logs on stderr. Only our own crates speak: libraries log what travels through
//! them, and topics and headers carry tokens, so theirs is shut off at every level.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// The crates whose events are shown.
const OURS: [&str; 5] = [
    "common",
    "device_proxy",
    "hub",
    "quickstart",
    "service_proxy",
];

/// Sets up logging for the whole process; a second call does nothing.
pub fn init(level: LevelFilter) {
    let filter = Targets::new().with_targets(OURS.map(|name| (name, level)));
    let output = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(level >= LevelFilter::DEBUG);
    let _ = tracing_subscriber::registry()
        .with(output.with_filter(filter))
        .try_init();
}
