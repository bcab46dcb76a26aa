//! Repeated events of the log: the first few are written, the others are counted, and their number
//! is reported once a minute, so that neither an outsider nor a loop can fill a log. No I/O and no
//! clock. `telemetry` applies this to the log.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::network::Network;

/// How many events of one kind, peer and message are written before they are counted.
pub const FIRST: u32 = 5;
/// How long events are counted until their number is reported. After this long without an event,
/// the next one is written again.
pub const PERIOD: Duration = Duration::from_secs(60);
/// Messages of one kind and peer that are counted separately. A peer may influence the text, so
/// that every message differs.
const MESSAGES: usize = 4;
/// Peers of one kind that are counted separately: a host with millions of addresses must not fill
/// the log or the memory, of which a kind takes at most some 300 KiB.
const PEERS: usize = 64;
/// Bytes that are kept of a message.
const MESSAGE: usize = 400;
/// Bytes that are kept of a field.
const FIELD: usize = 100;

/// The fields of a report: those in which all counted events agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// A device or module.
    pub device: Option<String>,
    /// A stream's name.
    pub name: Option<String>,
    /// A target's address.
    pub target: Option<String>,
    /// An address without a port.
    pub peer: Option<String>,
    /// A kind of connection.
    pub transport: Option<String>,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its level.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// Its fields.
    pub fields: Fields,
}

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write it: it is one of the first.
    Show,
    /// It was counted; a report is due in [`PERIOD`] at the latest.
    Count {
        /// It is the first in this report.
        is_first: bool,
    },
}

/// Events that were counted.
#[derive(Debug)]
pub struct Report {
    /// The level of the last of them.
    pub level: Level,
    /// The message of the last of them.
    pub message: String,
    /// The fields in which all of them agree.
    pub fields: Fields,
    /// They have different messages or peers.
    pub is_mixed: bool,
    /// Their number.
    pub count: u64,
    /// The time in which they were counted.
    pub time: Duration,
}

/// Counts events by kind, peer and message.
#[derive(Debug)]
pub struct Repeats<K> {
    kinds: HashMap<K, Kind>,
}

/// The subject of an event: the peer and the device of [`Fields`].
type Who = (Option<String>, Option<String>);

#[derive(Debug, Default)]
struct Kind {
    peers: HashMap<Who, Peer>,
    /// Events of peers beyond the limit.
    others: Option<Count>,
}

#[derive(Debug, Default)]
struct Peer {
    /// By the hash of their message without digits, since times and ports change.
    messages: HashMap<u64, Count>,
    /// Events with messages beyond the limit.
    others: Option<Count>,
}

#[derive(Debug)]
struct Count {
    begun: Instant,
    shown: u32,
    /// Events since `begun` that are not reported.
    counted: u64,
    /// The last counted event, with only the fields in which all agree.
    last: Option<Event>,
    message: u64,
    is_mixed: bool,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self {
            kinds: HashMap::new(),
        }
    }
}

impl<K: Eq + Hash> Repeats<K> {
    /// Decides whether an event of this kind is written or counted.
    pub fn note(&mut self, kind: K, mut event: Event, now: Instant) -> Verdict {
        shorten(&mut event.message, MESSAGE);
        let fields = &mut event.fields;
        if let Some(peer) = &mut fields.peer {
            *peer = network(peer);
        }
        for field in fields.all().into_iter().flatten() {
            shorten(field, FIELD);
        }
        let message = hash_without_digits(&event.message);
        let kind = self.kinds.entry(kind).or_default();
        let who = (fields.peer.clone(), fields.device.clone());
        if !kind.peers.contains_key(&who) && kind.peers.len() >= PEERS {
            kind.peers.retain(|_, peer| peer.retain(now));
        }
        let is_known = kind.peers.contains_key(&who);
        if !is_known && kind.peers.len() >= PEERS {
            let others = kind.others.get_or_insert_with(|| Count::new(now, message));
            return others.note(event, message, 0, now);
        }
        let peer = kind.peers.entry(who).or_default();
        if !peer.messages.contains_key(&message) && peer.messages.len() >= MESSAGES {
            peer.messages.retain(|_, count| !count.is_over(now));
        }
        if !peer.messages.contains_key(&message) && peer.messages.len() >= MESSAGES {
            let others = peer.others.get_or_insert_with(|| Count::new(now, message));
            return others.note(event, message, 0, now);
        }
        let count = peer.messages.entry(message);
        let count = count.or_insert_with(|| Count::new(now, message));
        count.note(event, message, FIRST, now)
    }

    /// When the next report is due.
    pub fn due(&self) -> Option<Instant> {
        let kinds = self.kinds.values();
        let counts = kinds.flat_map(|kind| {
            let peers = kind.peers.values();
            let messages = peers.flat_map(|peer| peer.messages.values().chain(&peer.others));
            messages.chain(&kind.others)
        });
        counts
            .filter(|count| count.counted > 0)
            .map(|count| count.begun + PERIOD)
            .min()
    }

    /// The reports that are due, the largest first. Removes counts that have ended.
    pub fn take_due(&mut self, now: Instant) -> Vec<Report> {
        let reports = self.take(now, |count| now >= count.begun + PERIOD);
        self.kinds.retain(|_, kind| {
            kind.peers.retain(|_, peer| peer.retain(now));
            kind.others.take_if(|count| count.is_over(now));
            !kind.peers.is_empty() || kind.others.is_some()
        });
        reports
    }

    /// Reports of all that was counted, the largest first: for the end of a program.
    pub fn take_all(&mut self, now: Instant) -> Vec<Report> {
        self.take(now, |_| true)
    }

    fn take(&mut self, now: Instant, is_wanted: impl Fn(&Count) -> bool) -> Vec<Report> {
        let mut reports = Vec::new();
        for kind in self.kinds.values_mut() {
            let peers = kind.peers.values_mut();
            let messages =
                peers.flat_map(|peer| peer.messages.values_mut().chain(&mut peer.others));
            for count in messages.chain(&mut kind.others) {
                if count.counted > 0 && is_wanted(count) {
                    reports.extend(count.report(now));
                }
            }
        }
        reports.sort_by_key(|report| std::cmp::Reverse(report.count));
        reports
    }
}

impl Peer {
    /// Removes counts that have ended; returns whether any are left.
    fn retain(&mut self, now: Instant) -> bool {
        self.messages.retain(|_, count| !count.is_over(now));
        self.others.take_if(|count| count.is_over(now));
        !self.messages.is_empty() || self.others.is_some()
    }
}

impl Count {
    fn new(begun: Instant, message: u64) -> Self {
        Self {
            begun,
            shown: 0,
            counted: 0,
            last: None,
            message,
            is_mixed: false,
        }
    }

    fn note(&mut self, mut event: Event, message: u64, first: u32, now: Instant) -> Verdict {
        if self.is_over(now) {
            *self = Self::new(now, message);
        }
        if self.shown < first {
            self.shown += 1;
            return Verdict::Show;
        }
        self.counted += 1;
        if let Some(last) = &self.last {
            self.is_mixed |= message != self.message
                || last.fields.peer != event.fields.peer
                || last.fields.device != event.fields.device;
            event.fields.keep_common(&last.fields);
        }
        self.message = message;
        self.last = Some(event);
        Verdict::Count {
            is_first: self.counted == 1,
        }
    }

    /// Whether the time has passed with nothing to report.
    fn is_over(&self, now: Instant) -> bool {
        self.counted == 0 && now >= self.begun + PERIOD
    }

    fn report(&mut self, now: Instant) -> Option<Report> {
        let Event {
            level,
            message,
            fields,
        } = self.last.take()?;
        let report = Report {
            level,
            message,
            fields,
            is_mixed: std::mem::take(&mut self.is_mixed),
            count: std::mem::take(&mut self.counted),
            time: now.saturating_duration_since(self.begun),
        };
        self.begun = now;
        Some(report)
    }
}

impl Fields {
    fn all(&mut self) -> [Option<&mut String>; 5] {
        [
            self.device.as_mut(),
            self.name.as_mut(),
            self.target.as_mut(),
            self.peer.as_mut(),
            self.transport.as_mut(),
        ]
    }

    fn keep_common(&mut self, other: &Self) {
        self.device.take_if(|it| other.device.as_ref() != Some(it));
        self.name.take_if(|it| other.name.as_ref() != Some(it));
        self.target.take_if(|it| other.target.as_ref() != Some(it));
        self.peer.take_if(|it| other.peer.as_ref() != Some(it));
        self.transport
            .take_if(|it| other.transport.as_ref() != Some(it));
    }
}

/// The [`Network`] of an address with or without a port. Other text stays.
fn network(peer: &str) -> String {
    let ip = match peer.parse::<SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => match peer.parse() {
            Ok(ip) => ip,
            Err(_) => return peer.to_owned(),
        },
    };
    Network::of(ip).to_string()
}

fn hash_without_digits(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    let parts = text.split(|c: char| c.is_ascii_digit());
    for part in parts.filter(|part| !part.is_empty()) {
        part.hash(&mut hasher);
    }
    hasher.finish()
}

fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        let fits = |at: &usize| text.is_char_boundary(*at);
        text.truncate((0..=most).rev().find(fits).unwrap_or(0));
        text.push('\u{2026}');
    }
}

#[cfg(test)]
mod tests;
