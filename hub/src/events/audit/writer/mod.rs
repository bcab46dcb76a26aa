//! The thread that writes the log: it gives each record its place in the chain, and has it on the
//! disk. What cannot be written stays with it, and the queue fills up behind it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use super::chain::Link;
use super::end::KnownEnd;
use super::file::{Found, LogFile};
use super::keys::SigningKey;
use super::record::Record;
use super::rotation::{Place, Removal, Retention};
use super::{AuditConfig, AuditError, AuditTuning, Shared, now};
use crate::events::{AuditFault, Event, Fault};

/// Lines between two signed heads at most; a verification demands four times as many.
const HEAD_LINES: u64 = 1_024;
/// Records that are written at once.
const BATCH: usize = 1_024;
/// How long a disk that does not take anything is left alone.
const RETRY: Duration = Duration::from_millis(250);
/// How long a file that cannot be put aside is written on.
const ROTATE_RETRY: Duration = Duration::from_secs(60);
/// As much of a line without an end as the log keeps.
const TORN: usize = 4 << 10;
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

/// A place that lines go to, and what it has not taken yet.
struct Sink<T> {
    to: T,
    waiting: Vec<u8>,
}

impl<T: Write> Sink<T> {
    fn write(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.to.write(&self.waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.to.flush()
    }
}

/// The thread's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Message>,
    key: SigningKey,
    folder: PathBuf,
    file: Option<Sink<LogFile>>,
    stdout: Option<Sink<io::Stdout>>,
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
    /// Opens what is to be written, and queues the first lines.
    pub(super) fn open(
        config: &AuditConfig,
        folder: PathBuf,
        shared: Arc<Shared>,
        queue: Receiver<Message>,
    ) -> Result<Self, AuditError> {
        let key = SigningKey::ensure(&folder)?;
        let known = KnownEnd::load(&folder, key.public());
        let known = known.map_err(|source| AuditError::Folder {
            folder: folder.clone(),
            source,
        })?;
        let (mut file, mut found) = (None, Found::default());
        if let Some(path) = &config.file {
            let failed = |source| AuditError::File {
                file: path.clone(),
                source,
            };
            let path = std::path::absolute(path).map_err(failed)?;
            let mut opened = LogFile::open(&path).map_err(failed)?;
            // A log that goes on in another file has its last lines elsewhere.
            let here = known
                .as_ref()
                .filter(|known| known.file.as_ref() == Some(&path));
            let known = here.map(|known| known.link);
            found = opened.check(key.public(), known).map_err(failed)?;
            file = Some(opened);
        }
        let ends = [found.last, known.as_ref().map(|known| known.link)];
        let last = ends.into_iter().flatten().max_by_key(|link| link.seq);
        // Nothing is built on lines that are wrong: they stay a gap that every verification finds.
        let trusted = known.as_ref().filter(|_| found.wrong.is_some());
        let last = trusted.map(|known| known.link).or(last);
        let last = last.unwrap_or(Link::START);
        let since = match &known {
            Some(known) if known.file.as_deref() == file.as_ref().map(LogFile::path) => known.since,
            Some(_) => last.seq + 1,
            None => 1,
        };
        let removed_through = known
            .as_ref()
            .map_or(found.removed_through, |known| known.removed_through);
        let mut writer = Self {
            shared,
            queue,
            key,
            folder,
            file: file.map(|to| Sink {
                to,
                waiting: Vec::new(),
            }),
            stdout: config.stdout.then(|| Sink {
                to: io::stdout(),
                waiting: Vec::new(),
            }),
            last,
            since,
            removed_through,
            unsigned: 0,
            unsigned_since: Instant::now(),
            unsynced: None,
            rotate_at: Instant::now(),
            is_end_failing: false,
            waiting: Vec::new(),
            is_finishing: false,
        };
        writer.begin(&found, known.is_none());
        Ok(writer)
    }

    /// The first lines of this hub: a head, and what it has found.
    fn begin(&mut self, found: &Found, is_end_missing: bool) {
        let reason = match self.last {
            Link::START => "begun",
            _ => "started",
        };
        let is_missing = is_end_missing && self.last != Link::START;
        let head = self
            .head(reason)
            .with("version", env!("CARGO_PKG_VERSION"))
            .maybe("knownEndIsMissing", is_missing.then_some(true))
            .maybe(
                "notVouched",
                Some(found.not_vouched).filter(|lines| *lines > 0),
            );
        self.sign(&head);
        if !found.torn.is_empty() {
            let torn = found.torn.get(..TORN).unwrap_or(&found.torn);
            let record = Record::new("Audit", "Recovered")
                .with("tornBytes", found.torn.len())
                .with("torn", String::from_utf8_lossy(torn));
            self.seal(&now(), &record);
        }
        if let (Some((line, finding)), Some(file)) = (&found.wrong, &self.file) {
            let path = file.to.path().display().to_string();
            Event::Fault(Fault::Audit(AuditFault::Broken {
                file: &path,
                line: *line,
                finding,
            }))
            .log();
            let record = Record::new("Audit", "ChainBroken")
                .failure(&finding.to_string())
                .with("file", path)
                .with("line", line);
            self.seal(&now(), &record);
        }
    }

    /// Writes until it is told to finish, or nobody is left who could.
    pub(super) fn run(mut self) {
        loop {
            self.advance();
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
        self.rotate(&tuning);
        let is_due = self
            .unsynced
            .is_some_and(|since| since.elapsed() >= tuning.sync);
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
            file.to.note(link.seq);
            file.waiting.extend_from_slice(line.as_bytes());
        }
        if let Some(stdout) = &mut self.stdout {
            stdout.waiting.extend_from_slice(line.as_bytes());
        }
        self.last = link;
        self.unsynced.get_or_insert_with(Instant::now);
    }

    /// Writes what waits, again and again; `false`: it is over, and was not written.
    fn write(&mut self) -> bool {
        let mut has_failed = false;
        loop {
            let file = self.file.as_mut().map_or(Ok(()), Sink::write);
            let stdout = self.stdout.as_mut().map_or(Ok(()), Sink::write);
            let error = match file.and(stdout) {
                Ok(()) if has_failed => {
                    self.shared.is_failing.store(false, Ordering::Relaxed);
                    let lost = self.shared.lost.load(Ordering::Relaxed);
                    Event::Fault(Fault::Audit(AuditFault::WrittenAgain { lost })).log();
                    return true;
                }
                Ok(()) => return true,
                Err(error) => error,
            };
            if !has_failed {
                has_failed = true;
                self.report(&error);
            }
            let is_over = self.is_finishing || self.shared.is_over.load(Ordering::Relaxed);
            if is_over {
                self.is_finishing = true;
                return false;
            }
            std::thread::sleep(RETRY);
        }
    }

    fn report(&self, reason: &io::Error) {
        self.shared.is_failing.store(true, Ordering::Relaxed);
        let full = self.shared.tuning().full;
        Event::Fault(Fault::Audit(AuditFault::NotWritten { reason, full })).log();
    }

    /// Has on the disk what was written, and stores how far the log goes; whether both are there.
    fn sync(&mut self) -> bool {
        let synced = self.file.as_ref().map_or(Ok(()), |file| file.to.sync());
        if let Err(error) = synced {
            self.report(&error);
            self.unsynced = Some(Instant::now());
            if !self.is_finishing {
                std::thread::sleep(RETRY);
            }
            return false;
        }
        self.shared.is_failing.store(false, Ordering::Relaxed);
        let end = KnownEnd {
            link: self.last,
            file: self.file.as_ref().map(|file| file.to.path().to_owned()),
            since: self.since,
            removed_through: self.removed_through,
        };
        match end.store(&self.folder, &self.key) {
            Ok(()) => self.is_end_failing = false,
            // The chain is whole without it; only a cut end could not be found.
            Err(reason) if !self.is_end_failing => {
                self.is_end_failing = true;
                Event::Fault(Fault::Audit(AuditFault::EndNotStored(&reason))).log();
            }
            Err(_) => {}
        }
        self.unsynced = None;
        for stored in self.waiting.drain(..) {
            let _ = stored.send(());
        }
        !self.is_end_failing
    }

    /// Puts the file aside when it is large or old enough.
    fn rotate(&mut self, tuning: &AuditTuning) {
        let Some(file) = &self.file else { return };
        let age = SystemTime::now().duration_since(file.to.started());
        let is_due = file.to.is_rotated()
            && (file.to.len() >= tuning.rotate_bytes
                || age.is_ok_and(|age| age >= tuning.rotate_age));
        if !is_due || self.is_finishing || Instant::now() < self.rotate_at {
            return;
        }
        let head = self.head("rotated");
        self.sign(&head);
        // The known end is then the last line of the file that is put aside.
        if !self.write() || !self.sync() {
            self.rotate_at = Instant::now() + ROTATE_RETRY;
            return;
        }
        let Some(Sink { to, waiting }) = self.file.take() else {
            return;
        };
        let path = to.path().to_owned();
        let rotated = to.rotate();
        let is_new = rotated.is_ok();
        let to = match rotated {
            Ok(new) => Some(new),
            Err((reason, again)) => {
                Event::Fault(Fault::Audit(AuditFault::NotRotated(&reason))).log();
                self.rotate_at = Instant::now() + ROTATE_RETRY;
                again
            }
        };
        // Without a file the hub could only go on without its log.
        let Some(to) = to else {
            self.reopen(path);
            return;
        };
        self.file = Some(Sink { to, waiting });
        if is_new {
            let retention = Retention { keep: tuning.keep };
            self.remove(&path, retention);
        }
    }

    /// A file that was closed and cannot be opened: it is tried again, and until then it fails.
    fn reopen(&mut self, path: PathBuf) {
        let mut has_failed = false;
        while !self.shared.is_over.load(Ordering::Relaxed) {
            match LogFile::open(&path) {
                Ok(to) => {
                    let waiting = Vec::new();
                    self.file = Some(Sink { to, waiting });
                    self.shared.is_failing.store(false, Ordering::Relaxed);
                    let head = self.head("continued");
                    self.sign(&head);
                    return;
                }
                Err(error) if !has_failed => {
                    has_failed = true;
                    self.report(&error);
                }
                Err(_) => {}
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Begins the new file with a head, and removes the oldest ones.
    fn remove(&mut self, path: &Path, retention: Retention) {
        let place = Place {
            since: self.since,
            removed_through: self.removed_through,
            last: self.last.seq,
        };
        let removal = Removal::plan(path, place, retention, self.key.public());
        let removal = removal.unwrap_or_else(|reason| {
            Event::Fault(Fault::Audit(AuditFault::NotRotated(&reason))).log();
            Removal::default()
        });
        if let Some(finding) = &removal.gap {
            let file = &path.display().to_string();
            Event::Fault(Fault::Audit(AuditFault::Missing { file, finding })).log();
        }
        self.removed_through = self.removed_through.max(removal.through);
        let through = Some(self.removed_through).filter(|through| *through > 0);
        let head = self.head("continued").maybe("removedThrough", through);
        self.sign(&head);
        // Not before the data folder knows of it: it would miss them.
        if !self.write() || !self.sync() {
            return;
        }
        for file in removal.files {
            if let Err(reason) = std::fs::remove_file(file) {
                Event::Fault(Fault::Audit(AuditFault::NotRotated(&reason))).log();
            }
        }
    }
}
