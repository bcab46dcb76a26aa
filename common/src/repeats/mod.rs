//! Events of the log that repeat: the first few are shown, the others are counted, and the number
//! is reported once a minute, so that an outsider or a loop cannot fill a log. No clock, no I/O:
//! time is an argument. `telemetry` puts this in front of the log.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tracing::Level;

use crate::network::Network;

/// So many events of one kind, peer and message are shown before they are counted.
pub const FIRST: u32 = 5;
/// How long is counted until the number is reported; after as long without an event, the next
/// one is a first one again.
pub const PERIOD: Duration = Duration::from_secs(60);
/// Messages of one kind and peer that are counted each for itself. A peer may choose words of
/// them, and then every message is another.
const MESSAGES: usize = 4;
/// Peers of one kind that are counted each for itself: a host with addresses by the million fills
/// neither memory, of which a kind takes some 300 KiB at most, nor log.
const PEERS: usize = 64;
/// Bytes that are kept of a message, and of a field.
const MESSAGE: usize = 400;
const FIELD: usize = 100;

/// The fields that a report repeats, where all events that it counts have the same.
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
    /// How bad it is.
    pub level: Level,
    /// Its text.
    pub message: String,
    /// What is known beside it.
    pub fields: Fields,
}

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is one of the first.
    Show,
    /// It was counted; a report is due in [`PERIOD`] at the latest.
    Count {
        /// The first that this report will count.
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
    /// What all of them have in common.
    pub fields: Fields,
    /// They have different messages, or come from different peers.
    pub is_mixed: bool,
    /// How many.
    pub count: u64,
    /// In which time.
    pub time: Duration,
}

/// Counts events by kind, peer and message.
#[derive(Debug)]
pub struct Repeats<K> {
    kinds: HashMap<K, Kind>,
}

/// Whom an event is about: the peer and the device of [`Fields`].
type Who = (Option<String>, Option<String>);

#[derive(Debug, Default)]
struct Kind {
    peers: HashMap<Who, Peer>,
    /// Events of peers beyond the limit.
    others: Option<Count>,
}

#[derive(Debug, Default)]
struct Peer {
    /// By the hash of their message, in which no digit counts: times and ports change.
    messages: HashMap<u64, Count>,
    /// Events with messages beyond the limit.
    others: Option<Count>,
}

#[derive(Debug)]
struct Count {
    begun: Instant,
    shown: u32,
    /// Counted since `begun`, and not reported.
    counted: u64,
    /// The last one counted; its fields are those that all have in common.
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
    /// Judges an event of this kind.
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

    /// The reports that are due, the largest first. What has ended is forgotten.
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
    /// Forgets what is over; whether something is left.
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

/// What an address counts as: without its port, and for IPv6 the network, of which one host may
/// have every address. Other text stays.
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
