//! The start of a log: what the last hub has left, and the first lines of this one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use super::sink::{FileSink, StdoutSink};
use super::{Message, Writer};
use crate::events::audit::chain::Link;
use crate::events::audit::end::KnownEnd;
use crate::events::audit::file::{Found, LogFile};
use crate::events::audit::keys::SigningKey;
use crate::events::audit::record::Record;
use crate::events::audit::verify::BROKEN;
use crate::events::audit::{AuditConfig, AuditError, Shared, now};
use crate::events::{AuditFault, Fault};

/// As much of a line without an end as the log keeps.
const TORN: usize = 4 << 10;

/// Where a log goes on.
struct Begin {
    file: Option<LogFile>,
    found: Found,
    /// Behind this line.
    last: Link,
    /// It is in this file since this line.
    since: u64,
    removed_through: u64,
}

impl Writer {
    /// Opens what is to be written, and queues the first lines.
    pub fn open(
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
        let begin = match &config.file {
            Some(path) => begin_in(path, &key, known.as_ref())?,
            None => Begin::elsewhere(None, known.as_ref()),
        };
        let mut writer = Self {
            shared,
            queue,
            key,
            folder,
            file: begin.file.map(FileSink::new),
            stdout: config.stdout.then(StdoutSink::new),
            last: begin.last,
            since: begin.since,
            removed_through: begin.removed_through,
            unsigned: 0,
            unsigned_since: Instant::now(),
            unsynced: None,
            rotate_at: Instant::now(),
            is_end_failing: false,
            waiting: Vec::new(),
            is_finishing: false,
        };
        writer.first_lines(&begin.found, known.is_none());
        Ok(writer)
    }

    /// The first lines of this hub: a head, and what it has found.
    fn first_lines(&mut self, found: &Found, is_end_missing: bool) {
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
            let path = file.file().path().display().to_string();
            self.shared.report(Fault::Audit(AuditFault::Broken {
                file: &path,
                line: *line,
                finding,
            }));
            let record = Record::new("Audit", BROKEN)
                .failure(&finding.to_string())
                .with("file", path)
                .with("line", line);
            self.seal(&now(), &record);
        }
    }
}

impl Begin {
    /// The log's last lines are in another file, or nowhere: what is in this one is not looked at.
    fn elsewhere(file: Option<LogFile>, known: Option<&KnownEnd>) -> Self {
        let last = known.map_or(Link::START, |known| known.link);
        let since = match known {
            // It stays where it is, on standard output.
            Some(known) if known.file.is_none() && file.is_none() => known.since,
            _ => last.seq + 1,
        };
        Self {
            file,
            found: Found::default(),
            last,
            since,
            removed_through: known.map_or(0, |known| known.removed_through),
        }
    }
}

/// Opens a file, and looks whether it is as the last hub has left it.
fn begin_in(path: &Path, key: &SigningKey, known: Option<&KnownEnd>) -> Result<Begin, AuditError> {
    let failed = |source| AuditError::File {
        file: path.to_owned(),
        source,
    };
    let path = std::path::absolute(path).map_err(failed)?;
    let mut file = LogFile::open(&path).map_err(failed)?;
    let is_elsewhere = known.is_some_and(|known| known.file.as_ref() != Some(&path));
    let known_link = known.map(|known| known.link);
    let mut since = known.map_or(1, |known| known.since);
    if is_elsewhere {
        let is_here_now = match known_link {
            Some(known) => file.begins_behind(key.public(), known).map_err(failed)?,
            None => false,
        };
        if !is_here_now {
            // Lines from before, or somebody's: they are no beginning of what comes, and are kept.
            if !file.is_empty() {
                file = file.make_way().map_err(failed)?;
            }
            return Ok(Begin::elsewhere(Some(file), known));
        }
        // The log came here, and the hub was killed before the data folder knew of it.
        since = known_link.map_or(1, |known| known.seq + 1);
    }
    let found = file.check(key.public(), known_link).map_err(failed)?;
    let last = match (known_link, found.last) {
        // Nothing is built on lines that are wrong: they stay a gap that every verification finds.
        (Some(known), _) if found.wrong.is_some() => known,
        (Some(known), Some(last)) if known.seq >= last.seq => known,
        (known, last) => last.or(known).unwrap_or(Link::START),
    };
    Ok(Begin {
        since,
        removed_through: known.map_or(found.removed_through, |known| known.removed_through),
        file: Some(file),
        found,
        last,
    })
}
