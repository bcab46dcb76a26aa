//! Verifying the files of a log: `stream-hub audit verify`.

use std::io;
use std::path::{Path, PathBuf};

use super::chain;
use super::end::KnownEnd;
use super::file::Lines;
use super::folder;
use super::keys::{KeyError, PublicKey, SigningKey};
use super::rotation::older;
use super::verify::{Finding, Verified, Verifier};

/// Why a log cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The hub has never written one.
    #[error(
        "no hub with this data folder has written an audit log; name its files, and its key with --key"
    )]
    NoLog,
    /// It was written to standard output.
    #[error("the audit log of this hub goes to standard output alone; name the files that have it")]
    NoFile,
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// How often a log that is being written is looked at before something is said to be wrong.
const PASSES: u32 = 5;

/// What a check has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// Nothing wrong; `None`: there are no lines.
    Whole(Option<Verified>),
    /// The first thing that is.
    Broken {
        /// In this file.
        file: PathBuf,
        /// In this line, from 1; the last one if the end is missing.
        line: u64,
        /// What.
        finding: Finding,
    },
}

/// The public key of this data folder. Blocks.
///
/// # Errors
/// [`CheckError::NoLog`] when it has none.
pub fn key(data_dir: &Path) -> Result<PublicKey, CheckError> {
    let key = SigningKey::load(&folder(data_dir))?;
    Ok(*key.ok_or(CheckError::NoLog)?.public())
}

/// Verifies the whole log of this data folder, with its beginning and its end. Blocks.
///
/// # Errors
/// [`CheckError`].
pub fn whole(data_dir: &Path) -> Result<Checked, CheckError> {
    let key = key(data_dir)?;
    let mut before = None;
    for _ in 1..PASSES {
        let (known, files) = known_files(data_dir, &key)?;
        let checked = check(&files, Some(&key), Some(&known))?;
        // A hub that writes meanwhile may put a file aside, or be in the midst of a line: then the next
        // pass finds something else, or nothing.
        let is_stable = before
            .as_ref()
            .is_some_and(|(end, found)| *end == known || *found == checked);
        if matches!(checked, Checked::Whole(_)) || is_stable {
            return Ok(checked);
        }
        before = Some((known, checked));
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let (known, files) = known_files(data_dir, &key)?;
    check(&files, Some(&key), Some(&known))
}

/// The known end, and the files of the log, oldest first. Blocks.
///
/// # Errors
/// [`CheckError`].
pub fn files(data_dir: &Path) -> Result<Vec<PathBuf>, CheckError> {
    Ok(known_files(data_dir, &key(data_dir)?)?.1)
}

/// Gives each line of a file, as text. Blocks.
///
/// # Errors
/// [`CheckError::Io`].
pub fn each_line(file: &Path, mut take: impl FnMut(&str)) -> Result<(), CheckError> {
    let mut lines = Lines::open(file).map_err(failed(file))?;
    while let Some(line) = lines.next().map_err(failed(file))? {
        take(&String::from_utf8_lossy(&line.bytes));
    }
    Ok(())
}

fn known_files(data_dir: &Path, key: &PublicKey) -> Result<(KnownEnd, Vec<PathBuf>), CheckError> {
    let folder = folder(data_dir);
    let known = KnownEnd::load(&folder, key).map_err(failed(&folder))?;
    let known = known.ok_or(CheckError::NoLog)?;
    let path = known.file.clone().ok_or(CheckError::NoFile)?;
    let files = older(&path).map_err(failed(&path))?;
    // What rotation has removed may still be there: the hub was killed before it was done. And what
    // stood in this file before the log came to it is no part of it.
    let begin = known.since.max(known.removed_through + 1);
    let kept = files.into_iter().filter(|(first, _)| *first >= begin);
    let mut files: Vec<_> = kept.map(|(_, file)| file).collect();
    files.push(path);
    Ok((known, files))
}

/// Verifies these files, which may be a part of a log, in the order of their lines. Blocks.
///
/// # Errors
/// [`CheckError`].
pub fn part(mut files: Vec<PathBuf>, key: &PublicKey) -> Result<Checked, CheckError> {
    files.sort_by_cached_key(|file| {
        let first = Lines::open(file).and_then(|mut lines| lines.next());
        let first = first.ok().flatten();
        first.and_then(|line| {
            chain::read(&line.bytes, None)
                .ok()
                .map(|line| line.link.seq)
        })
    });
    check(&files, Some(key), None)
}

fn check(
    files: &[PathBuf],
    key: Option<&PublicKey>,
    known: Option<&KnownEnd>,
) -> Result<Checked, CheckError> {
    let mut verifier = Verifier::new(key, known.map(|known| known.link));
    verifier.begins_at(known.map_or(1, |known| known.since.max(known.removed_through + 1)));
    let is_whole = known.is_some();
    let mut place = (files.first().cloned().unwrap_or_default(), 0);
    for file in files {
        verifier.start_file();
        let mut lines = match Lines::open(file) {
            Ok(lines) => lines,
            // What should be in it is missing, and that is found at the end.
            Err(error) if is_whole && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(file)(error)),
        };
        place = (file.clone(), 0);
        while let Some(line) = lines.next().map_err(failed(file))? {
            place.1 = line.number;
            let found = match line.is_whole {
                true => verifier.line(&line.bytes),
                false => Err(Finding::Torn),
            };
            if let Err(finding) = found {
                return Ok(broken(place, finding));
            }
        }
    }
    let finished = match is_whole {
        true => verifier.finish(),
        false => verifier.finish_part(),
    };
    Ok(match finished {
        Ok(verified) => Checked::Whole(verified),
        Err(finding @ Finding::NoBeginning { .. }) => {
            let first = files.first().cloned().unwrap_or_default();
            broken((first, 1), finding)
        }
        Err(finding) => broken(place, finding),
    })
}

fn broken((file, line): (PathBuf, u64), finding: Finding) -> Checked {
    Checked::Broken {
        file,
        line,
        finding,
    }
}

fn failed(file: &Path) -> impl FnOnce(io::Error) -> CheckError + '_ {
    move |source| CheckError::Io {
        file: file.to_owned(),
        source,
    }
}
