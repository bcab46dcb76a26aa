//! Rotation: a file that is large or old enough is put aside, and the oldest ones are removed.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::sink::FileSink;
use super::{RETRY, Writer};
use crate::events::audit::AuditTuning;
use crate::events::audit::file::LogFile;
use crate::events::audit::rotation::{Place, Removal, Retention};
use crate::events::{AuditFault, Fault};

/// How long a file that cannot be put aside is written on.
const ROTATE_RETRY: Duration = Duration::from_secs(60);

impl Writer {
    /// Puts the file aside when it is large or old enough. `false`: there is no file any more, and it
    /// is over.
    pub(super) fn rotate(&mut self, tuning: &AuditTuning) -> bool {
        let Some(file) = self.file.as_ref().map(FileSink::file) else {
            return true;
        };
        let age = SystemTime::now().duration_since(file.started());
        let is_due = file.is_rotated()
            && (file.len() >= tuning.rotate_bytes || age.is_ok_and(|age| age >= tuning.rotate_age));
        if !is_due || self.is_finishing || Instant::now() < self.rotate_at {
            return true;
        }
        let head = self.head("rotated");
        self.sign(&head);
        // The known end is then the last line of the file that is put aside.
        if !self.write() || !self.sync() {
            self.rotate_at = Instant::now() + ROTATE_RETRY;
            return true;
        }
        let Some(sink) = self.file.take() else {
            return true;
        };
        // All of it is on the disk.
        let file = sink.into_file();
        let path = file.path().to_owned();
        let rotated = file.rotate();
        let is_new = rotated.is_ok();
        let file = match rotated {
            Ok(new) => Some(new),
            Err((reason, again)) => {
                self.shared
                    .report(Fault::Audit(AuditFault::NotRotated(&reason)));
                self.rotate_at = Instant::now() + ROTATE_RETRY;
                again
            }
        };
        // Without a file the hub could only go on without its log.
        let Some(file) = file else {
            return self.reopen(&path);
        };
        self.file = Some(FileSink::new(file));
        if is_new {
            let retention = Retention {
                keep: tuning.keep,
                keep_age: tuning.keep_age,
            };
            self.remove(&path, retention);
        }
        true
    }

    /// A file that was closed and cannot be opened: it is tried again, and until then it fails.
    /// `false`: it is over.
    fn reopen(&mut self, path: &Path) -> bool {
        let mut has_failed = false;
        while !self.shared.is_over.load(Ordering::Relaxed) {
            let opened = LogFile::open(path).and_then(|mut file| {
                file.find_first()?;
                Ok(file)
            });
            match opened {
                Ok(file) => {
                    self.file = Some(FileSink::new(file));
                    let head = self.head("continued");
                    self.sign(&head);
                    let is_written = self.write();
                    if is_written && has_failed {
                        self.shared.is_failing.store(false, Ordering::Relaxed);
                        self.report_written();
                    }
                    return is_written;
                }
                Err(error) if !has_failed => {
                    has_failed = true;
                    self.report(&error);
                }
                Err(_) => {}
            }
            std::thread::sleep(RETRY);
            self.shared.watch.begin();
        }
        self.is_finishing = true;
        false
    }

    /// Begins the new file with a head, and removes the oldest ones.
    fn remove(&mut self, path: &Path, retention: Retention) {
        let place = Place {
            since: self.since,
            removed_through: self.removed_through,
            last: self.last.seq,
        };
        self.shared.watch.begin();
        let removal = Removal::plan(path, place, retention, self.key.public());
        let removal = removal.unwrap_or_else(|reason| {
            self.shared
                .report(Fault::Audit(AuditFault::NotRotated(&reason)));
            Removal::default()
        });
        if let Some(finding) = &removal.gap {
            let file = &path.display().to_string();
            self.shared
                .report(Fault::Audit(AuditFault::Missing { file, finding }));
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
            self.shared.watch.begin();
            if let Err(reason) = std::fs::remove_file(file) {
                self.shared
                    .report(Fault::Audit(AuditFault::NotRotated(&reason)));
            }
        }
    }
}
