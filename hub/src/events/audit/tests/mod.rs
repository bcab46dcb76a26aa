mod aside;
mod disk;
mod life;
mod lines;

use std::time::Instant;

use tempfile::TempDir;

use super::chain::Link;
use super::check::{self, Checked};
use super::keys::{PublicKey, SigningKey};
use super::verify::Finding;
use super::*;

/// A log in a folder of its own.
struct Log {
    folder: TempDir,
    config: AuditConfig,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = AuditConfig {
            file: Some(folder.path().join("audit.log")),
            ..AuditConfig::default()
        };
        Self { folder, config }
    }

    fn open(&self) -> Audit {
        let opened = Audit::open(&self.config, self.folder.path(), &Counts::default()).unwrap();
        opened.unwrap()
    }

    fn path(&self) -> &Path {
        self.config.file.as_deref().unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    fn check(&self) -> Checked {
        check::whole(self.folder.path()).unwrap()
    }

    #[track_caller]
    fn finding(&self) -> Finding {
        match self.check() {
            Checked::Broken { finding, .. } => finding,
            Checked::Whole(verified) => panic!("nothing was found: {verified:?}"),
        }
    }

    /// A run of a hub with so many records.
    async fn run(&self, records: u64) {
        let audit = self.open();
        for number in 0..records {
            audit.write(Record::new("A", "B").with("number", number));
        }
        assert!(audit.finish(Duration::from_secs(10)).await);
        wait_unlocked(self.path());
    }
}

/// The thread lets go of the file after its last answer.
fn wait_unlocked(path: &Path) {
    let start = Instant::now();
    while file::LogFile::open(path).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}
