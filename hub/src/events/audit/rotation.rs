//! The files that the log was before, and which of them rotation removes. A file is removed only as
//! the next one behind those that were removed before it, so that the hub never signs away what
//! somebody else has taken.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::chain::{self, Line};
use super::file::{Lines, last_line};
use super::keys::PublicKey;
use super::verify::Finding;

/// The files that this one was, oldest first, with the number of the first line of each. Blocks.
///
/// # Errors
/// The system's.
pub fn older(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let prefix = path.file_name().and_then(|name| name.to_str());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = prefix
            .and_then(|prefix| name.to_str()?.strip_prefix(prefix)?.strip_prefix('.'))
            .filter(|digits| digits.len() >= 12)
            .and_then(|digits| digits.parse().ok());
        if let Some(first) = number {
            found.push((first, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// What a rotation removes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// These files.
    pub files: Vec<PathBuf>,
    /// With them the lines up to this one are removed; 0: none.
    pub through: u64,
    /// Files that are missing, so that none is removed behind them.
    pub gap: Option<Finding>,
}

/// What of the log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// So many files; 0: all.
    pub keep: usize,
    /// And those that were written within this time.
    pub keep_age: Duration,
}

/// Where the log stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// It is in this file and the older ones since this line.
    pub since: u64,
    /// Rotation has removed the lines up to this one.
    pub removed_through: u64,
    /// Its last line.
    pub last: u64,
}

impl Removal {
    /// Finds what there is to remove of the files that this one was. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn plan(
        path: &Path,
        place: Place,
        retention: Retention,
        key: &PublicKey,
    ) -> io::Result<Self> {
        let begin = place.since.max(place.removed_through + 1);
        let mut removal = Self {
            through: place.removed_through,
            ..Self::default()
        };
        let mut candidates = Vec::new();
        for (first, file) in older(path)? {
            // What stood here before the log came is somebody's to keep.
            if (place.since..=place.removed_through).contains(&first) {
                // It is removed already, but for a kill at that moment.
                removal.files.push(file);
            } else if (begin..=place.last).contains(&first) {
                candidates.push((first, file));
            }
        }
        if retention.keep == 0 || candidates.len() <= retention.keep {
            return Ok(removal);
        }
        let mut files = Vec::new();
        for (first, file) in candidates {
            // What is not a file of ours takes no other file's place.
            if let Some(span) = Span::read(first, file, key)? {
                files.push(span);
            }
        }
        let excess = files.len().saturating_sub(retention.keep);
        let mut next = begin;
        for span in files.into_iter().take(excess) {
            if span.first != next {
                removal.gap = Some(match next {
                    1 => Finding::NoBeginning { to: span.first - 1 },
                    from => Finding::Removed {
                        from,
                        to: span.first - 1,
                    },
                });
                break;
            }
            let is_young = || span.age.is_none_or(|age| age < retention.keep_age);
            if retention.keep_age > Duration::ZERO && is_young() {
                break;
            }
            next = span.last + 1;
            removal.through = span.last;
            removal.files.push(span.file);
        }
        Ok(removal)
    }
}

/// A file of the log that was put aside: from a signed head to a signed head.
struct Span {
    file: PathBuf,
    first: u64,
    last: u64,
    /// Since its last line; `None`: the clock says that it comes from the future.
    age: Option<Duration>,
}

impl Span {
    /// `None`: it is no such file.
    fn read(first: u64, file: PathBuf, key: &PublicKey) -> io::Result<Option<Self>> {
        let head = |line: &[u8]| -> Option<Line> {
            let line = chain::read(line, Some(key)).ok()?;
            line.is_signed.then_some(line)
        };
        let begin = Lines::open(&file)?.next()?;
        let begin = begin.and_then(|line| head(&line.bytes));
        if begin.is_none_or(|line| line.link.seq != first) {
            return Ok(None);
        }
        let end = last_line(&file)?.and_then(|line| head(&line));
        Ok(end.filter(|line| line.link.seq >= first).map(|line| Self {
            last: line.link.seq,
            age: age(&line.time),
            first,
            file,
        }))
    }
}

fn age(time: &str) -> Option<Duration> {
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    Duration::try_from(OffsetDateTime::now_utc() - time).ok()
}
