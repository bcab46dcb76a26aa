//! What a verification finds: a pure machine that is given line after line, over all files.

use super::chain::{self, LineError, Link};
use super::keys::PublicKey;

/// More lines than this without a signed head were not written by a hub.
pub const MOST_UNSIGNED: u64 = 4_096;

/// The operation of the record of a hub that has found its log changed.
pub const BROKEN: &str = "ChainBroken";

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A line itself.
    #[error(transparent)]
    Line(#[from] LineError),
    /// A line's number leaves some out.
    #[error("lines were removed: number {from} to {to} are missing")]
    Removed {
        /// The first that is missing.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A line with a number that was there, or from before.
    #[error("a line was inserted or moved: number {found} follows number {after}")]
    Order {
        /// The line before.
        after: u64,
        /// This one.
        found: u64,
    },
    /// The right number, behind another line than this.
    #[error("the line before this one was exchanged: this line was written behind another one")]
    Exchanged,
    /// A file begins with something else.
    #[error("the file does not begin with a signed head: its first lines were removed")]
    Beginning,
    /// A hub that stops signs its last line, and the next one signs its first.
    #[error("lines were added behind the end: the hub had stopped when they were written")]
    AfterStop,
    /// Heads come at intervals.
    #[error("there is no signed head for {MOST_UNSIGNED} lines: they were not written by the hub")]
    Unsigned,
    /// A hub says so itself.
    #[error("the hub found the log changed when it started: see its record {BROKEN}, number {seq}")]
    Broken {
        /// The record that says it.
        seq: u64,
    },
    /// The last line has no end.
    #[error(
        "the last line is not complete: the end was cut off, or the machine stopped while it was written"
    )]
    Torn,
    /// The data folder knows of later lines.
    #[error(
        "the end was cut off: the log ends with number {last}, and the hub has written {expected}"
    )]
    CutOff {
        /// The last line that is there.
        last: u64,
        /// The last one that the data folder knows.
        expected: u64,
    },
    /// The line that the data folder knows is another one.
    #[error("the last lines were exchanged: the hub has written another number {seq}")]
    OtherEnd {
        /// The line.
        seq: u64,
    },
    /// The first lines are missing, and rotation has not removed them.
    #[error("the beginning is missing: rotation has not removed number 1 to {to}")]
    NoBeginning {
        /// The last that is missing.
        to: u64,
    },
}

/// The check of one log.
pub struct Verifier<'a> {
    key: Option<&'a PublicKey>,
    first: Option<u64>,
    last: Option<Link>,
    last_time: Option<String>,
    is_file_start: bool,
    unsigned: u64,
    /// The last line says that the hub has stopped.
    has_stopped: bool,
    heads: u64,
    lines: u64,
    not_vouched: u64,
    /// The first record of a hub that says that the log was changed.
    broken: Option<u64>,
    removed_through: u64,
    /// The number that a whole log may begin with.
    since: u64,
    /// The end that is known from elsewhere.
    known: Option<Link>,
    /// The line with the known number has the known hash.
    has_known: bool,
}

/// What was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many lines.
    pub lines: u64,
    /// How many of them are signed heads.
    pub heads: u64,
    /// The first line's number.
    pub first: u64,
    /// The last line.
    pub last: Link,
    /// When that was.
    pub last_time: String,
    /// How many lines come after the last head.
    pub unsigned: u64,
    /// Lines at the ends of killed hubs that nothing vouches for, as the heads behind them say.
    pub not_vouched: u64,
}

impl<'a> Verifier<'a> {
    /// Nothing was read yet. With a key, signatures are checked; with the end that is known from the
    /// data folder, that the log goes so far.
    pub fn new(key: Option<&'a PublicKey>, known: Option<Link>) -> Self {
        Self {
            key,
            first: None,
            last: None,
            last_time: None,
            is_file_start: true,
            unsigned: 0,
            has_stopped: false,
            heads: 0,
            lines: 0,
            not_vouched: 0,
            broken: None,
            removed_through: 0,
            since: 1,
            known: known.filter(|known| known.seq > 0),
            has_known: false,
        }
    }

    /// A whole log may begin with this line: what was before is elsewhere.
    pub fn begins_at(&mut self, since: u64) {
        self.since = since;
    }

    /// How far rotation has removed the log, as its signed heads say; 0: it has removed nothing.
    pub fn removed_through(&self) -> u64 {
        self.removed_through
    }

    /// The lines before these end with this one, and were checked.
    pub fn continues(&mut self, last: Link) {
        self.has_known = self.known == Some(last);
        self.last = Some(last);
    }

    /// How many lines come after the last head so far.
    pub fn unsigned(&self) -> u64 {
        self.unsigned
    }

    /// The next line is the first of a file.
    pub fn start_file(&mut self) {
        self.is_file_start = true;
    }

    /// Takes the next line, without its newline.
    ///
    /// # Errors
    /// [`Finding`]: what is wrong at this line. Nothing of it is taken over then.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Finding> {
        let line = chain::read(line, self.key)?;
        let found = line.link.seq;
        if let Some(last) = self.last {
            if found > last.seq + 1 {
                let (from, to) = (last.seq + 1, found - 1);
                return Err(Finding::Removed { from, to });
            }
            if found != last.seq + 1 {
                let after = last.seq;
                return Err(Finding::Order { after, found });
            }
            if line.prev != last.hash {
                return Err(Finding::Exchanged);
            }
        }
        if self.is_file_start && !line.is_signed {
            return Err(Finding::Beginning);
        }
        if self.has_stopped && !line.is_signed {
            return Err(Finding::AfterStop);
        }
        if line.is_signed {
            self.heads += 1;
            // Only the hub's word counts, and any other line can be made without the key.
            self.removed_through = self.removed_through.max(line.removed_through.unwrap_or(0));
            self.unsigned = 0;
            self.not_vouched += line.not_vouched.unwrap_or(0);
        } else {
            self.unsigned += 1;
        }
        if self.unsigned > MOST_UNSIGNED {
            return Err(Finding::Unsigned);
        }
        if line.operation == BROKEN {
            // What it was may be found by itself, and says more.
            self.broken.get_or_insert(found);
        }
        match self.known {
            Some(known) if known.seq == found && known.hash != line.link.hash => {
                return Err(Finding::OtherEnd { seq: found });
            }
            Some(known) if known.seq == found => self.has_known = true,
            _ => {}
        }
        self.has_stopped = line.is_signed && line.reason.as_deref() == Some("stopped");
        self.is_file_start = false;
        self.first.get_or_insert(found);
        self.last = Some(line.link);
        self.last_time = Some(line.time);
        self.lines += 1;
        Ok(())
    }

    /// Ends a check of a whole log: that it has its beginning, and its end.
    ///
    /// # Errors
    /// [`Finding`].
    pub fn finish(self) -> Result<Option<Verified>, Finding> {
        let first = self.first.unwrap_or(1);
        if first > self.removed_through.saturating_add(1).max(self.since) {
            return Err(Finding::NoBeginning { to: first - 1 });
        }
        self.finish_part()
    }

    /// Ends a check of some files of a log, which may have lost the first ones to another place.
    ///
    /// # Errors
    /// [`Finding`] when the end is not where it is known to be.
    pub fn finish_part(self) -> Result<Option<Verified>, Finding> {
        let last = self.last.unwrap_or(Link::START);
        if let Some(known) = self.known
            && !self.has_known
        {
            return Err(Finding::CutOff {
                last: last.seq,
                expected: known.seq,
            });
        }
        if let Some(seq) = self.broken {
            return Err(Finding::Broken { seq });
        }
        Ok(self.first.map(|first| Verified {
            lines: self.lines,
            heads: self.heads,
            first,
            last,
            last_time: self.last_time.unwrap_or_default(),
            unsigned: self.unsigned,
            not_vouched: self.not_vouched,
        }))
    }
}
