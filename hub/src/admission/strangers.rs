//! Who has connected and not shown yet who it is. Such connections have a share of the
//! descriptors and no more; when it is full, the one that came first goes, so that strangers
//! hold no place that a device or service could have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::descriptors;
use common::locks::lock;
use common::network::Network;
use tokio_util::sync::CancellationToken;

use super::guarded::{Allowance, Beyond};
use super::refusals::{self, FirstTime, Refusals, Verdict};
use crate::limits::Limits;

/// Fewer are no use.
const LEAST: usize = 16;
/// One address has at most one in so many of these places.
const SHARE_OF_ONE: usize = 2;
/// Bytes of a whole TLS handshake: keys of some 1.2 KiB, a ticket and a chain of certificates,
/// of which three of RSA 4096 are some 6 KiB.
const HANDSHAKE: usize = 12 << 10;

/// The places of strangers, on all listeners of a hub together.
#[derive(Debug, Clone)]
pub struct Strangers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: Mutex<Bounds>,
    amqp: FirstTime,
    table: Mutex<Table>,
}

/// What the limits say; they may change.
#[derive(Debug, Clone)]
struct Bounds {
    most: usize,
    most_of_one: usize,
    handshake: Duration,
    refusals: Arc<Refusals>,
    /// What these are by.
    limits: Limits,
}

impl Bounds {
    fn new(most: usize, limits: &Limits) -> Self {
        let most = most.max(LEAST);
        Self {
            most,
            most_of_one: limits.strangers_per_address.min(most / SHARE_OF_ONE),
            handshake: limits.handshake,
            refusals: Arc::new(Refusals::new(limits.refusals, limits.refusals_per_second)),
            limits: limits.clone(),
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    /// In the order of their arrival.
    places: BTreeMap<u64, (Network, CancellationToken)>,
    of_source: HashMap<Network, BTreeSet<u64>>,
    last: u64,
}

impl Strangers {
    /// With the share of this process's descriptors, and the time for each of their steps, that
    /// the limits give them.
    pub fn new(limits: &Limits) -> Self {
        Self::of(most(limits), limits)
    }

    /// From now on these limits hold. Who was refused of late is only forgotten where the limits of
    /// refusals are others.
    pub fn set_limits(&self, limits: &Limits) {
        let mut bounds = self.bounds_mut();
        let mut new = Bounds::new(most(limits), limits);
        let refusals = |of: &Limits| (of.refusals, of.refusals_per_second);
        if refusals(limits) == refusals(&bounds.limits) {
            new.refusals = Arc::clone(&bounds.refusals);
        }
        *bounds = new;
    }

    fn bounds_mut(&self) -> MutexGuard<'_, Bounds> {
        lock(&self.0.bounds)
    }

    fn of(most: usize, limits: &Limits) -> Self {
        Self(Arc::new(Shared {
            bounds: Mutex::new(Bounds::new(most, limits)),
            amqp: FirstTime::new(),
            table: Mutex::default(),
        }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.0.table)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table().places.len()
    }

    /// A place for a connection from this address. Where there is none left, for the address
    /// or for all, the oldest there is asked to go.
    pub fn admit(&self, address: IpAddr) -> Place {
        let source = Network::of(address);
        let gone = CancellationToken::new();
        let (most, most_of_one) = {
            let bounds = self.bounds_mut();
            (bounds.most, bounds.most_of_one)
        };
        let mut table = self.table();
        let of_source = table.of_source.get(&source);
        let oldest = match of_source {
            Some(numbers) if numbers.len() >= most_of_one => numbers.first().copied(),
            _ if table.places.len() >= most => table.places.keys().next().copied(),
            _ => None,
        };
        if let Some(number) = oldest
            && let Some(evicted) = table.remove(number)
        {
            evicted.cancel();
        }
        table.last += 1;
        let number = table.last;
        table.places.insert(number, (source, gone.clone()));
        table.of_source.entry(source).or_default().insert(number);
        drop(table);
        Place {
            strangers: self.clone(),
            number,
            source,
            gone,
            // A client's first request may come with the end of its handshake: it waits.
            allowance: Arc::new(Allowance::new(HANDSHAKE, Beyond::Wait)),
            refused: AtomicU32::new(0),
            throttled: AtomicU32::new(0),
        }
    }
}

fn most(limits: &Limits) -> usize {
    descriptors::room(limits.strangers, 1, limits.strangers_share)
}

impl Table {
    fn remove(&mut self, number: u64) -> Option<CancellationToken> {
        let (source, gone) = self.places.remove(&number)?;
        if let Some(numbers) = self.of_source.get_mut(&source) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of_source.remove(&source);
            }
        }
        Some(gone)
    }
}

/// A connection's place among strangers, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    strangers: Strangers,
    number: u64,
    source: Network,
    gone: CancellationToken,
    allowance: Arc<Allowance>,
    refused: AtomicU32,
    /// Answers in a row that said to come later.
    throttled: AtomicU32,
}

impl Place {
    /// Ends when the connection has to go; never, once it is no stranger any more. May be
    /// dropped.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// How long the peer may take for each step until it has shown who it is.
    pub fn handshake_time(&self) -> Duration {
        self.strangers.bounds_mut().handshake
    }

    /// The peer has shown who it is.
    pub fn leave(&self) {
        self.allowance.lift();
        self.strangers.table().remove(self.number);
    }

    /// Whether it has.
    pub fn is_known(&self) -> bool {
        self.allowance.is_lifted()
    }

    /// So many bytes may be read from a stranger from here on; a known peer has no limit.
    pub fn allow(&self, bytes: usize, beyond: Beyond) {
        self.allowance.set(bytes, beyond);
    }

    /// How many bytes may still be read: what a socket counts down.
    pub fn allowance(&self) -> Arc<Allowance> {
        Arc::clone(&self.allowance)
    }

    /// Whether a client at this address is the first of late that wants AMQP: it tries again.
    pub fn is_first_amqp(&self) -> bool {
        self.strangers.0.amqp.is_first(self.source)
    }

    /// What the peer wanted is over a limit, or not: then it begins anew. Ends when the answer may be
    /// sent: who comes again and again without waiting for its time is answered later and later, so
    /// that it takes no more work than others. May be dropped.
    pub async fn throttled(&self, is_over: bool) {
        if !is_over {
            self.throttled.store(0, Relaxed);
            return;
        }
        let before = self.throttled.fetch_add(1, Relaxed);
        let delay = refusals::delay(before);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// What the peer wanted is refused once more. Ends when the refusal may be sent; until
    /// then a connection or an address that is refused often waits. May be dropped.
    pub async fn refused(&self) -> Verdict {
        let before = self.refused.fetch_add(1, Relaxed);
        let refusals = Arc::clone(&self.strangers.bounds_mut().refusals);
        let (delay, verdict) = refusals.judge(self.source, before);
        if !delay.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.gone() => return Verdict::Close,
            }
        }
        verdict
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_gone(place: &Place) -> bool {
        place.gone.is_cancelled()
    }

    #[test]
    fn the_oldest_goes_and_who_is_known_stays() {
        let strangers = Strangers::of(LEAST, &Limits::default());
        let place = |last: usize| strangers.admit(address(&format!("10.0.0.{last}")));
        let mut places: Vec<Place> = (0..LEAST).map(place).collect();
        assert!(!places.iter().any(is_gone));
        // One has shown who it is: that is a free place.
        places[0].leave();
        places.push(place(100));
        assert!(!places.iter().any(is_gone));
        places.push(place(101));
        let gone: Vec<bool> = places.iter().map(is_gone).collect();
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        assert!(gone[1]);
        // One that ends gives its place back, and so does one that was asked to go.
        places.truncate(2);
        let more: Vec<Place> = (0..LEAST).map(place).collect();
        assert!(!more.iter().any(is_gone));
        drop((places, more));
        let table = strangers.table();
        assert!(table.places.is_empty() && table.of_source.is_empty());
    }

    #[test]
    fn one_address_has_a_share_and_harms_no_other() {
        let strangers = Strangers::of(LEAST, &Limits::default());
        let other = strangers.admit(address("10.0.0.1"));
        for (base, same) in [("127.0.0.1", true), ("2001:db8::", false)] {
            let from = |number: usize| match same {
                true => address(base),
                // One /64.
                false => address(&format!("{base}{number:x}")),
            };
            let places: Vec<Place> = (0..LEAST).map(|n| strangers.admit(from(n))).collect();
            let gone = places.iter().filter(|place| is_gone(place)).count();
            assert_eq!(gone, LEAST - LEAST / SHARE_OF_ONE, "{base}");
            assert!(
                places
                    .iter()
                    .rev()
                    .take(LEAST / SHARE_OF_ONE)
                    .all(|place| !is_gone(place))
            );
            assert!(!is_gone(&other));
        }
    }
}
