//! The thread that writes the log: it gives each record its place in the chain, and has it on the
//! disk. What cannot be written stays with it, and the queue fills up behind it.

mod rotate;
mod sink;
mod start;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use self::sink::Disk;
use self::sink::{FileSink, StdoutSink};
use super::chain::Link;
use super::end::KnownEnd;
use super::keys::SigningKey;
use super::record::Record;
use super::{AuditTuning, Shared, now};
use crate::events::{AuditFault, Fault};

/// Lines between two signed heads at most; a verification demands four times as many.
const HEAD_LINES: u64 = 1_024;
/// Records that are written at once.
const BATCH: usize = 1_024;
/// Bytes that may be written and not be on the disk: they are kept in memory until they are.
const MOST_UNSYNCED: usize = 4 << 20;
/// How long a disk that does not take anything is left alone.
const RETRY: Duration = Duration::from_millis(250);
/// How long the thread sleeps at most.
const IDLE: Duration = Duration::from_secs(3600);

/// What the thread is given.
pub(super) enum Message {
    /// Another record, and when it happened.
    Record(String, Record),
    /// Answer when all before it is on the disk.
    Sync(oneshot::Sender<()>),
    /// The same, and end.
    Finish(oneshot::Sender<()>),
}

/// The thread's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Message>,
    key: SigningKey,
    folder: PathBuf,
    file: Option<FileSink>,
    stdout: Option<StdoutSink>,
    /// The last line that was made.
    last: Link,
    /// The log goes to this file since this line.
    since: u64,
    /// Rotation has removed the lines up to this one.
    removed_through: u64,
    /// Lines since the last head, and since when.
    unsigned: u64,
    unsigned_since: Instant,
    /// When the first record came that may not be on the disk.
    unsynced: Option<Instant>,
    rotate_at: Instant,
    /// The known end could not be stored, and that was reported.
    is_end_failing: bool,
    waiting: Vec<oneshot::Sender<()>>,
    is_finishing: bool,
}

impl Writer {
    /// Writes until it is told to finish, or nobody is left who could.
    pub(super) fn run(mut self) {
        loop {
            self.shared.watch.begin();
            self.advance();
            if self.shared.watch.end() && !self.shared.is_failing.load(Ordering::Relaxed) {
                self.report_written();
            }
            if self.is_finishing {
                return;
            }
            match self.queue.recv_timeout(self.rest()) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => self.is_finishing = true,
            }
            for _ in 1..BATCH {
                match self.queue.try_recv() {
                    Ok(message) if !self.is_finishing => self.take(message),
                    _ => break,
                }
            }
        }
    }

    /// How long there is nothing to do but what is queued.
    fn rest(&self) -> Duration {
        let AuditTuning { sync, head, .. } = self.shared.tuning();
        let due = [
            self.unsynced.map(|since| since + sync),
            (self.unsigned > 0).then(|| self.unsigned_since + head),
        ];
        let due = due.into_iter().flatten().min();
        due.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Record(time, record) => self.seal(&time, &record),
            Message::Sync(stored) => {
                self.waiting.push(stored);
                self.unsynced.get_or_insert_with(Instant::now);
            }
            Message::Finish(stored) => {
                self.waiting.push(stored);
                self.is_finishing = true;
            }
        }
    }

    /// Does what is due. Does not return while the disk takes nothing, unless it is over.
    fn advance(&mut self) {
        let tuning = self.shared.tuning();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > 0 {
            self.seal(
                &now(),
                &Record::new("Audit", "RecordsLost").with("count", lost),
            );
        }
        let is_old = self.unsigned_since.elapsed() >= tuning.head;
        if self.is_finishing {
            // Behind this line only another hub's head can come.
            let head = self.head("stopped");
            self.sign(&head);
        } else if self.unsigned >= HEAD_LINES || (self.unsigned > 0 && is_old) {
            let head = self.head("interval");
            self.sign(&head);
        }
        if !self.write() {
            return;
        }
        // Only now, so that streams are refused until the log says it.
        self.shared.lost.fetch_sub(lost, Ordering::Relaxed);
        if !self.rotate(&tuning) {
            return;
        }
        let is_old = |since: Instant| since.elapsed() >= tuning.sync;
        let unsynced = self.file.as_ref().map_or(0, FileSink::unsynced);
        let is_due = self.unsynced.is_some_and(is_old) || unsynced >= MOST_UNSYNCED;
        if is_due || self.is_finishing || !self.waiting.is_empty() {
            self.sync();
        }
    }

    fn head(&self, reason: &str) -> Record {
        Record::new("Audit", "SignedHead")
            .with("reason", reason)
            .with("key", self.key.public().id())
    }

    fn sign(&mut self, head: &Record) {
        let sealed = self.last.seal_signed(&now(), head, &self.key);
        self.queue_line(sealed);
        self.unsigned = 0;
    }

    fn seal(&mut self, time: &str, record: &Record) {
        let sealed = self.last.seal(time, record);
        self.queue_line(sealed);
        if self.unsigned == 0 {
            self.unsigned_since = Instant::now();
        }
        self.unsigned += 1;
    }

    fn queue_line(&mut self, (line, link): (String, Link)) {
        if let Some(file) = &mut self.file {
            file.file_mut().note(link.seq);
            file.queue(line.as_bytes());
        }
        if let Some(stdout) = &mut self.stdout {
            stdout.queue(line.as_bytes());
        }
        self.last = link;
        self.unsynced.get_or_insert_with(Instant::now);
    }

    /// Writes what waits, again and again; `false`: it is over, and was not written.
    fn write(&mut self) -> bool {
        let mut has_failed = false;
        loop {
            self.shared.watch.begin();
            let file = self.file.as_mut().map_or(Ok(()), FileSink::write);
            let stdout = self.stdout.as_mut().map_or(Ok(()), StdoutSink::write);
            let error = match file.and(stdout) {
                Ok(()) if has_failed => {
                    self.shared.is_failing.store(false, Ordering::Relaxed);
                    self.report_written();
                    return true;
                }
                Ok(()) => return true,
                Err(error) => error,
            };
            if !has_failed {
                has_failed = true;
                self.report(&error);
            }
            if !self.try_again() {
                return false;
            }
        }
    }

    /// Leaves the disk alone for a moment; `false`: it is over.
    fn try_again(&mut self) -> bool {
        if self.is_finishing || self.shared.is_over.load(Ordering::Relaxed) {
            self.is_finishing = true;
            return false;
        }
        std::thread::sleep(RETRY);
        true
    }

    fn report(&self, reason: &io::Error) {
        self.shared.is_failing.store(true, Ordering::Relaxed);
        let full = self.shared.tuning().full;
        self.shared
            .report(Fault::Audit(AuditFault::NotWritten { reason, full }));
    }

    fn report_written(&self) {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        self.shared
            .report(Fault::Audit(AuditFault::WrittenAgain { lost }));
    }

    /// Has on the disk what was written, and stores how far the log goes; whether both are there.
    fn sync(&mut self) -> bool {
        // What waits is not vouched for.
        if !self.write() {
            return false;
        }
        let mut has_failed = false;
        self.shared.watch.begin();
        while let Err(error) = self.file.as_mut().map_or(Ok(()), FileSink::sync) {
            if !has_failed {
                has_failed = true;
                self.report(&error);
            }
            // It may be lost: it is written anew before anything else.
            if !self.try_again() || !self.write() {
                return false;
            }
            // As long as it is not synced, it is not written.
            self.shared.is_failing.store(true, Ordering::Relaxed);
        }
        if has_failed {
            self.shared.is_failing.store(false, Ordering::Relaxed);
            self.report_written();
        }
        self.shared.watch.begin();
        let end = KnownEnd {
            link: self.last,
            file: self.file.as_ref().map(|file| file.file().path().to_owned()),
            since: self.since,
            removed_through: self.removed_through,
        };
        match end.store(&self.folder, &self.key) {
            Ok(()) => self.is_end_failing = false,
            // The chain is whole without it; only a cut end could not be found.
            Err(reason) if !self.is_end_failing => {
                self.is_end_failing = true;
                self.shared
                    .report(Fault::Audit(AuditFault::EndNotStored(&reason)));
            }
            Err(_) => {}
        }
        self.unsynced = None;
        for stored in self.waiting.drain(..) {
            let _ = stored.send(());
        }
        !self.is_end_failing
    }
}
