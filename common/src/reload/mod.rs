//! When a program is to read its configuration again: on SIGHUP, and when one of the files that it
//! has read changes.
//!
//! The system reports what happens in the files' folders (inotify, FSEvents and
//! ReadDirectoryChangesW, by `notify`). Folders and not files, since editors, certbot and Kubernetes
//! rename a new file, or a symbolic link, over the old one. Not all systems see everything: a change
//! on another machine of a network file system, or a link in the middle of a path. So the files are
//! also looked at once in a while, by their metadata; without any watch that is all there is.

mod contents;
mod watched;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::report;
use crate::shutdown::{Hangups, has_terminal};
use crate::telemetry::AUDIT;
pub use contents::Contents;
use watched::Watched;

/// Several events are one change when they come within this time: a file is emptied, then written.
const QUIET: Duration = Duration::from_millis(250);
/// A folder in which something always happens does not put a change off for longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often files are looked at without an event.
const LOOK: Duration = Duration::from_secs(60);

/// Why the configuration is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGHUP asks for it.
    Asked,
    /// A file has changed.
    Changed,
    /// Not at all: SIGHUP has come since the program's terminal was closed. The program should
    /// end, as others do.
    TerminalClosed,
}

/// A configuration that was read again.
#[derive(Debug)]
pub struct Fresh<T> {
    /// What it says now.
    pub config: T,
    /// The files that it was read from, and that say something else than before.
    pub files: Vec<PathBuf>,
    /// Whether SIGHUP has asked for it.
    pub is_asked: bool,
}

impl<T> Fresh<T> {
    /// The line on what has changed: these settings of the file `what`, and files beside it. Values
    /// may be secrets, and are not shown.
    pub fn log(&self, what: &str, settings: impl IntoIterator<Item = String>) {
        let mut names: Vec<String> = settings.into_iter().collect();
        let others = self.files.iter().filter(|file| *file != Path::new(what));
        names.extend(others.map(|file| file.display().to_string()));
        if !names.is_empty() {
            tracing::info!(name: AUDIT, "configuration changed by {what}: {}", names.join(", "));
        } else if self.is_asked {
            tracing::info!(name: AUDIT, "read {what} again: nothing has changed");
        } else {
            tracing::debug!("read {what} again: nothing has changed");
        }
    }
}

/// The signal, and the files of a program's configuration.
pub struct Reloads {
    files: Arc<[PathBuf]>,
    contents: Contents,
    hangups: Option<Hangups>,
    had_terminal: bool,
    /// Elsewhere for the time of a look.
    watched: Option<Watched>,
    events: Arc<Notify>,
}

impl Reloads {
    /// For a program that has just read these files. Reads them; blocks.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let files: Arc<[PathBuf]> = files.into();
        Self {
            watched: Some(Watched::new(&files)),
            contents: Contents::of(files.iter()),
            files,
            hangups: None,
            had_terminal: has_terminal(),
            events: Arc::default(),
        }
    }

    /// From now on SIGHUP does not end the process. To be called within a runtime, before the program
    /// says that it is ready; else the first wait does it.
    pub fn arm(&mut self) {
        self.hangups.get_or_insert_default();
    }

    /// Waits until there is a new configuration to take. `read` gives it, and the files that it was
    /// read from, which are followed from then on; it may block. One that cannot be used is reported
    /// in the log, by the name `what`, and the old one stays. `None` when the terminal was closed, see
    /// [`Cause::TerminalClosed`]. A future that is dropped may lose one change.
    pub async fn read<T, E>(
        &mut self,
        what: &str,
        read: impl Fn() -> Result<(T, Vec<PathBuf>), E> + Clone + Send + 'static,
    ) -> Option<Fresh<T>>
    where
        T: Send + 'static,
        E: Error + Send + 'static,
    {
        loop {
            let is_asked = match self.next().await {
                Cause::Asked => true,
                Cause::Changed => false,
                Cause::TerminalClosed => return None,
            };
            let read = read.clone();
            // The disk may be slow: no stream waits for it.
            let reading = spawn_blocking(move || {
                let (config, files) = read()?;
                let contents = Contents::of(&files);
                Ok::<_, E>((config, files, contents))
            });
            match reading.await {
                Ok(Ok((config, files, contents))) => {
                    let changed = self.contents.differing(&contents);
                    let changed = changed.map(Path::to_owned).collect();
                    self.contents = contents;
                    self.follow(files);
                    return Some(Fresh {
                        config,
                        files: changed,
                        is_asked,
                    });
                }
                Ok(Err(error)) => {
                    let why = report::chain(&error);
                    // It may begin with the same file.
                    let rest = why.strip_prefix(what);
                    let why = rest.and_then(|it| it.strip_prefix(", ")).unwrap_or(&why);
                    tracing::warn!(
                        name: AUDIT,
                        "the configuration is unchanged, since {what} cannot be used: {why}"
                    );
                }
                // The runtime ends.
                Err(_) => {}
            }
        }
    }

    /// From now on these are the files.
    pub fn follow(&mut self, files: Vec<PathBuf>) {
        if *self.files != *files {
            self.files = files.into();
        }
    }

    /// Waits for the next occasion to read the configuration. A future that is dropped may lose one
    /// change.
    pub async fn next(&mut self) -> Cause {
        self.arm();
        // What has changed while the last change was read.
        if self.look().await {
            return Cause::Changed;
        }
        loop {
            let hangups = self.hangups.get_or_insert_default();
            tokio::select! {
                () = hangups.next() => {
                    if self.had_terminal && !has_terminal() {
                        return Cause::TerminalClosed;
                    }
                    // What has changed up to now is read with it.
                    self.look().await;
                    return Cause::Asked;
                }
                () = self.events.notified() => self.settle().await,
                () = sleep_until(Instant::now() + LOOK) => {}
            }
            if self.look().await {
                return Cause::Changed;
            }
        }
    }

    /// Waits until nothing happens for a moment.
    async fn settle(&self) {
        let latest = Instant::now() + PATIENCE;
        loop {
            let until = latest.min(Instant::now() + QUIET);
            if timeout_at(until, self.events.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Whether a file has changed since the last look.
    async fn look(&mut self) -> bool {
        let files = Arc::clone(&self.files);
        let events = Arc::clone(&self.events);
        let watched = self.watched.take();
        let looking = spawn_blocking(move || {
            let mut watched = watched.unwrap_or_else(|| Watched::new(&files));
            let is_changed = watched.look(&files, &events);
            (watched, is_changed)
        });
        match looking.await {
            Ok((watched, is_changed)) => {
                self.watched = Some(watched);
                is_changed
            }
            // The runtime ends.
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
