//! The audit log: one JSON line for each event that somebody may have to answer for, in a chain of
//! hashes with signed heads (`docs/audit.md`). Events are queued, and a thread of the hub's writes
//! them.

pub mod chain;
pub mod check;
mod end;
mod file;
pub mod keys;
mod rate;
pub mod record;
mod records;
mod rotation;
pub mod verify;
mod watch;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::files;
use common::locks::lock;
use time::OffsetDateTime;
use time::macros::format_description;
use tokio::sync::oneshot;

use self::keys::KeyError;
use self::rate::Rate;
use self::record::Record;
use self::watch::Watch;
use self::writer::{Message, Writer};
use super::{AuditFault, Counts, Event, Fault};

/// Records that wait for the disk. When there are more, they are lost, and counted.
const QUEUE: usize = 16_384;
/// Records at once of those who have shown no valid credential,
const STRANGERS: u32 = 200;
/// and in a second from then on.
const STRANGERS_PER_SECOND: u32 = 10;
/// How long somebody waits for the disk.
const STORED: Duration = Duration::from_secs(10);
/// The folder in the data folder with the key and the known end.
const FOLDER: &str = "audit";

/// What becomes of streams while the log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum WhenFull {
    /// New ones are refused until it can be written again.
    #[default]
    Stop,
    /// They go on. What does not fit into the queue is lost, and counted.
    Continue,
}

/// Where the log goes, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditConfig {
    /// To this file.
    pub file: Option<PathBuf>,
    /// To standard output.
    pub stdout: bool,
    /// What may change while the hub runs.
    pub tuning: AuditTuning,
}

/// What of the log's settings may change while the hub runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditTuning {
    /// What becomes of streams while the log cannot be written.
    pub full: WhenFull,
    /// A file of this size is put aside.
    pub rotate_bytes: u64,
    /// A file of this age is put aside.
    pub rotate_age: Duration,
    /// So many of them are kept; 0: all.
    pub keep: usize,
    /// Those whose last line is younger are kept beside them.
    pub keep_age: Duration,
    /// How long a record may wait for the disk with others.
    pub sync: Duration,
    /// How long lines may have no signed head behind them.
    pub head: Duration,
}

impl Default for AuditTuning {
    fn default() -> Self {
        Self {
            full: WhenFull::default(),
            rotate_bytes: 64 << 20,
            rotate_age: Duration::from_secs(24 * 3600),
            keep: 90,
            keep_age: Duration::ZERO,
            sync: Duration::from_millis(100),
            head: Duration::from_secs(60),
        }
    }
}

/// Why a log cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Its file cannot be opened.
    #[error("cannot write the audit log {}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The data folder does not take what belongs to it.
    #[error("cannot use the folder {} of the audit log's key", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No thread can be started.
    #[error("cannot start the thread that writes the audit log")]
    Thread(#[source] io::Error),
}

/// The log cannot be written, so that there are no new streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hub's audit log cannot be written, and no stream is opened without it")]
pub struct AuditStopped;

/// How the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditHealth {
    /// It can be written.
    pub is_writable: bool,
    /// Records that were lost since the hub has started.
    pub lost: u64,
}

/// The audit log of one hub. Cheap to clone; the thread ends with the last one, or by
/// [`finish`](Self::finish).
#[derive(Clone)]
pub struct Audit(Arc<Queue>);

struct Queue {
    messages: SyncSender<Message>,
    shared: Arc<Shared>,
    /// Of records that need no valid credential.
    strangers: Mutex<Rate>,
}

/// What the thread and the others share.
pub(super) struct Shared {
    tuning: Mutex<AuditTuning>,
    /// It cannot be written now.
    is_failing: AtomicBool,
    /// Nobody waits any longer for what cannot be written.
    is_over: AtomicBool,
    /// Records that were lost and are not in the log as such.
    lost: AtomicU64,
    lost_in_all: AtomicU64,
    watch: Watch,
    counts: Counts,
}

impl Shared {
    fn tuning(&self) -> AuditTuning {
        lock(&self.tuning).clone()
    }

    /// Whether it cannot be written now; a disk that hangs is reported here, since the thread cannot.
    fn is_failing(&self) -> bool {
        let stalled = self.watch.stalled();
        if let Some(stalled) = stalled.filter(|stalled| stalled.is_new) {
            let (since, full) = (stalled.since, self.tuning().full);
            self.report(Fault::Audit(AuditFault::Stalled { since, full }));
        }
        stalled.is_some() || self.is_failing.load(Ordering::Relaxed)
    }

    fn report(&self, fault: Fault<'_>) {
        let event = Event::Fault(fault);
        self.counts.count(&event);
        event.log();
    }

    fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
        self.lost_in_all.fetch_add(count, Ordering::Relaxed);
    }
}

impl Audit {
    /// Opens the log, looks whether it is as the last hub has left it, and starts the thread that
    /// writes it. `None`: none is wanted. Its faults are counted here. Blocks.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn open(
        config: &AuditConfig,
        data_dir: &Path,
        counts: &Counts,
    ) -> Result<Option<Self>, AuditError> {
        if config.file.is_none() && !config.stdout {
            return Ok(None);
        }
        let folder = folder(data_dir);
        files::create_folder(&folder).map_err(|source| AuditError::Folder {
            folder: folder.clone(),
            source,
        })?;
        let shared = Arc::new(Shared {
            tuning: Mutex::new(config.tuning.clone()),
            is_failing: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            lost_in_all: AtomicU64::new(0),
            watch: Watch::default(),
            counts: counts.clone(),
        });
        let (messages, queue) = sync_channel(QUEUE);
        let writer = Writer::open(config, folder, Arc::clone(&shared), queue)?;
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(|| writer.run())
            .map_err(AuditError::Thread)?;
        Ok(Some(Self(Arc::new(Queue {
            messages,
            shared,
            strangers: Mutex::new(Rate::new(STRANGERS, STRANGERS_PER_SECOND)),
        }))))
    }

    /// Takes an event, if it is one for the log. Never waits.
    pub(super) fn take(&self, event: &Event<'_>) {
        let Some(record) = records::of(event) else {
            return;
        };
        if records::is_by_stranger(event) && !lock(&self.0.strangers).admit() {
            return;
        }
        let held_back = lock(&self.0.strangers).take_held_back();
        if held_back > 0 {
            self.write(records::held_back(held_back));
        }
        self.write(record);
    }

    fn write(&self, record: Record) {
        let message = Message::Record(now(), record);
        match self.0.messages.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.0.shared.lose(1),
        }
    }

    /// Whether streams may be opened.
    ///
    /// # Errors
    /// [`AuditStopped`].
    pub fn allows_streams(&self) -> Result<(), AuditStopped> {
        let shared = &self.0.shared;
        let is_well = !shared.is_failing() && shared.lost.load(Ordering::Relaxed) == 0;
        match is_well || shared.tuning().full == WhenFull::Continue {
            true => Ok(()),
            false => Err(AuditStopped),
        }
    }

    /// How the log is.
    pub fn health(&self) -> AuditHealth {
        AuditHealth {
            is_writable: !self.0.shared.is_failing(),
            lost: self.0.shared.lost_in_all.load(Ordering::Relaxed),
        }
    }

    /// From now on these settings hold.
    pub fn tune(&self, tuning: AuditTuning) {
        *lock(&self.0.shared.tuning) = tuning;
    }

    /// Waits some seconds until all that was taken so far is on the disk; `false`: it cannot be known.
    /// May be dropped.
    pub async fn is_stored(&self) -> bool {
        let (stored, waits) = oneshot::channel();
        let is_sent = self.0.messages.try_send(Message::Sync(stored)).is_ok();
        is_sent && matches!(tokio::time::timeout(STORED, waits).await, Ok(Ok(())))
    }

    /// Ends the log with a signed head. Returns when that is on the disk, or `false` when it was not
    /// within this time. May be dropped.
    pub async fn finish(&self, within: Duration) -> bool {
        let (stored, waits) = oneshot::channel();
        let is_sent = self.0.messages.try_send(Message::Finish(stored)).is_ok();
        let is_done = is_sent && matches!(tokio::time::timeout(within, waits).await, Ok(Ok(())));
        self.0.shared.is_over.store(true, Ordering::Relaxed);
        is_done
    }
}

/// Where the key and the known end are.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER)
}

/// Now, as RFC 3339 with microseconds.
fn now() -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}

#[cfg(test)]
mod tests;
