//! What the programs in this process log. All tests of a test binary share the log; each finds its
//! own lines by names that no other test uses.

use std::io;
use std::sync::{Mutex, Once};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::wait;

static TEXT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Keeper;

impl io::Write for Keeper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        TEXT.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Records the log from now on; further calls have no effect.
pub fn keep() {
    keep_from(LevelFilter::INFO);
}

/// The same with the lines that are for looking closely.
pub fn keep_debug() {
    keep_from(LevelFilter::DEBUG);
}

fn keep_from(level: LevelFilter) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ours = ["common", "device_proxy", "hub", "service_proxy"];
        let filter = Targets::new().with_targets(ours.map(|name| (name, level)));
        let output = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(|| Keeper);
        tracing_subscriber::registry()
            .with(output.with_filter(filter))
            .init();
    });
}

/// The lines so far that contain all of these.
pub fn lines(parts: &[&str]) -> Vec<String> {
    let text = TEXT.lock().unwrap();
    let text = String::from_utf8_lossy(&text);
    let found = text
        .lines()
        .filter(|line| parts.iter().all(|part| line.contains(part)));
    found.map(str::to_owned).collect()
}

/// Waits for a line that contains all of these, and returns the first.
pub async fn line(parts: &[&str]) -> String {
    let what = format!("a log line with {parts:?}");
    wait(&what, || !lines(parts).is_empty()).await;
    lines(parts).remove(0)
}
