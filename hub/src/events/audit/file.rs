//! The file of the log, and the files that it was before: `audit.log` is written,
//! `audit.log.000000000001` was, and begins with line 1.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::files;

use super::chain::{self, Link};
use super::keys::PublicKey;
use super::rotation::older;
use super::verify::{Finding, Verifier};
use super::writer::Disk;

/// No line of ours is longer: names and reasons have their own bounds.
const LONGEST: u64 = 1 << 20;
/// So many files of others may stand where the log's are.
const OTHERS: u32 = 1_000;
/// A signed head and its newline are shorter.
const HEAD_SIZE: u64 = 4 << 10;

/// The file that is written.
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Only a regular file has an end, and is rotated.
    is_regular: bool,
    len: u64,
    /// The number of its first line.
    first: Option<u64>,
    started: SystemTime,
}

/// What a start has found in a file.
#[derive(Debug, Default)]
pub struct Found {
    /// Its last line.
    pub last: Option<Link>,
    /// What stands behind it without an end: the machine stopped while it was written.
    pub torn: Vec<u8>,
    /// What is wrong, and in which line of the file.
    pub wrong: Option<(u64, Finding)>,
    /// Lines that the data folder does not know of and no signature covers: the hub was killed
    /// behind them, or somebody else has written them.
    pub not_vouched: u64,
    /// How far rotation has removed the log, as its signed heads say; 0: it has removed nothing.
    pub removed_through: u64,
}

impl LogFile {
    /// Opens the file, or makes it, for its owner only. Another hub cannot have it. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        if std::fs::metadata(path).is_ok_and(|found| found.is_dir()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        #[cfg(unix)]
        if std::fs::metadata(path).is_ok_and(|found| {
            use std::os::unix::fs::FileTypeExt as _;
            found.file_type().is_fifo() || found.file_type().is_socket()
        }) {
            return Err(io::Error::other("it is a pipe or a socket"));
        }
        let is_new = !path.try_exists()?;
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        if is_new {
            // A file whose name is lost with the power is no better than one that was removed. Who may
            // not read the folder goes without.
            let _ = files::sync_parent(path);
        }
        // On Windows nobody could read a locked file.
        #[cfg(unix)]
        if metadata.is_file() {
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(io::Error::other("another hub writes it"));
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(Self {
            path: path.to_owned(),
            is_regular: metadata.is_file(),
            len: metadata.len(),
            first: None,
            started: metadata.created().unwrap_or_else(|_| SystemTime::now()),
            file,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When it was begun.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Whether it can be rotated: it has lines, and an end.
    pub fn is_rotated(&self) -> bool {
        self.is_regular && self.first.is_some()
    }

    /// Notes that this line is the next one to be written.
    pub fn note(&mut self, seq: u64) {
        self.first.get_or_insert(seq);
    }

    /// Looks for the number of its first line, by which it is put aside. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn find_first(&mut self) -> io::Result<()> {
        if self.is_regular
            && let Some(line) = Lines::open(&self.path)?.next()?
        {
            let read = chain::read(&line.bytes, None);
            self.first = read.ok().map(|line| line.link.seq);
        }
        Ok(())
    }

    /// Checks what is there, and takes a line without an end off. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn check(&mut self, key: &PublicKey, known: Option<Link>) -> io::Result<Found> {
        let mut found = Found::default();
        if !self.is_regular {
            return Ok(found);
        }
        let mut verifier = Verifier::new(Some(key), known);
        let before = known.filter(|known| *known != Link::START);
        // A kill while the file was put aside, or while the log came here: the known end is there.
        let before = before.filter(|known| {
            self.is_aside(key, *known).unwrap_or(false)
                || self.begins_behind(key, *known).unwrap_or(false)
        });
        if let Some(known) = before {
            verifier.continues(known);
        }
        let mut lines = Lines::open(&self.path)?;
        let mut whole = 0;
        while let Some(line) = lines.next()? {
            if !line.is_whole {
                found.torn = line.bytes;
                break;
            }
            whole += line.size;
            if found.wrong.is_none()
                && let Err(finding) = verifier.line(&line.bytes)
            {
                found.wrong = Some((line.number, finding));
            }
            if let Ok(read) = chain::read(&line.bytes, None) {
                self.first.get_or_insert(read.link.seq);
                found.last = Some(read.link);
            }
        }
        let removed_through = verifier.removed_through();
        let behind = known.zip(found.last);
        let behind = behind.map_or(0, |(known, last)| last.seq.saturating_sub(known.seq));
        found.not_vouched = behind.min(verifier.unsigned());
        if found.wrong.is_none()
            && let Err(finding) = verifier.finish_part()
            // A hub has said it before, and goes on behind that.
            && !matches!(finding, Finding::Broken { .. })
        {
            found.wrong = Some((lines.number, finding));
        }
        found.removed_through = removed_through;
        if !found.torn.is_empty() {
            self.set_len(whole)?;
        }
        Ok(found)
    }

    /// Whether the first line here is a signed head behind this one. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn begins_behind(&self, key: &PublicKey, last: Link) -> io::Result<bool> {
        if !self.is_regular {
            return Ok(false);
        }
        let first = Lines::open(&self.path)?.next()?;
        let first = first.and_then(|line| chain::read(&line.bytes, Some(key)).ok());
        Ok(first.is_some_and(|line| {
            line.is_signed && line.link.seq == last.seq + 1 && line.prev == last.hash
        }))
    }

    /// Whether the newest file that was put aside ends with this line.
    fn is_aside(&self, key: &PublicKey, last: Link) -> io::Result<bool> {
        let Some((_, newest)) = older(&self.path)?.pop() else {
            return Ok(false);
        };
        let line = last_line(&newest)?.and_then(|line| chain::read(&line, Some(key)).ok());
        Ok(line.is_some_and(|line| line.link == last))
    }

    /// Makes the file this long. Blocks.
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        // On Windows a file that is open for appending cannot be cut.
        #[cfg(windows)]
        OpenOptions::new()
            .write(true)
            .open(&self.path)?
            .set_len(len)?;
        #[cfg(not(windows))]
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    /// Puts a file aside that was not this log's till now, and begins a new one. What has no number, or
    /// one that is taken, gets another name. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn make_way(mut self) -> io::Result<Self> {
        self.find_first()?;
        let numbered = self.first.map(|first| rotated(&self.path, first));
        let others = (1..=OTHERS).map(|number| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".other.{number}"));
            PathBuf::from(name)
        });
        let mut free = None;
        for name in numbered.into_iter().chain(others) {
            if !name.try_exists()? {
                free = Some(name);
                break;
            }
        }
        let Some(aside) = free else {
            return Err(io::ErrorKind::AlreadyExists.into());
        };
        let path = self.path.clone();
        // Windows renames no open file.
        drop(self);
        std::fs::rename(&path, aside)?;
        Self::open(&path)
    }

    /// Puts the file aside, and begins a new one. Blocks.
    ///
    /// # Errors
    /// The system's; the old file is then still the one that is written, if it can be opened.
    pub fn rotate(self) -> Result<Self, (io::Error, Option<Self>)> {
        let Self {
            path, first, file, ..
        } = self;
        // Windows renames no open file.
        drop(file);
        let aside = rotated(&path, first.unwrap_or(0));
        // No file takes the place of another one.
        let renamed = match aside.try_exists() {
            Ok(false) => std::fs::rename(&path, &aside),
            Ok(true) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) => Err(error),
        };
        if let Err(error) = renamed {
            let again = Self::open(&path).ok().map(|again| Self { first, ..again });
            return Err((error, again));
        }
        match Self::open(&path) {
            Ok(new) => Ok(Self {
                started: SystemTime::now(),
                ..new
            }),
            Err(error) => {
                let _ = std::fs::rename(&aside, &path);
                let again = Self::open(&path).ok().map(|again| Self { first, ..again });
                Err((error, again))
            }
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for LogFile {
    fn sync(&self) -> io::Result<()> {
        match self.is_regular {
            true => self.file.sync_data(),
            false => Ok(()),
        }
    }

    fn cut(&mut self, bytes: usize) -> io::Result<()> {
        match self.is_regular {
            true => self.set_len(self.len.saturating_sub(bytes as u64)),
            false => Ok(()),
        }
    }
}

fn rotated(path: &Path, first: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{first:012}"));
    name.into()
}

/// The lines of a file, one after the other.
pub struct Lines {
    reader: BufReader<File>,
    /// How many were read.
    pub number: u64,
}

/// The last line of a file, without its newline; `None`: it has none that ends. Blocks.
///
/// # Errors
/// The system's.
pub fn last_line(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut size = HEAD_SIZE;
    loop {
        let from = len.saturating_sub(size);
        file.seek(SeekFrom::Start(from))?;
        let mut end = Vec::new();
        (&mut file).take(size).read_to_end(&mut end)?;
        let Some(lines) = end.strip_suffix(b"\n") else {
            return Ok(None);
        };
        match lines.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => return Ok(lines.get(at + 1..).map(<[u8]>::to_vec)),
            None if from == 0 => return Ok(Some(lines.to_vec())),
            None if size >= LONGEST => return Ok(None),
            None => size = LONGEST,
        }
    }
}

/// A line of a file.
pub struct FileLine {
    /// Counted from 1.
    pub number: u64,
    /// Without its newline.
    pub bytes: Vec<u8>,
    /// With it.
    pub size: u64,
    /// It has one, or is longer than any of ours.
    pub is_whole: bool,
}

impl Lines {
    /// Opens a file for reading. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, File::open(path)?),
            number: 0,
        })
    }

    /// The next line. Blocks.
    ///
    /// # Errors
    /// The system's.
    pub fn next(&mut self) -> io::Result<Option<FileLine>> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.reader).take(LONGEST);
        if limited.read_until(b'\n', &mut bytes)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let size = bytes.len() as u64;
        let is_whole = bytes.pop_if(|last| *last == b'\n').is_some() || size == LONGEST;
        Ok(Some(FileLine {
            number: self.number,
            size,
            bytes,
            is_whole,
        }))
    }
}
