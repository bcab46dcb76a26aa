//! What is carried to targets now, and what was since the start of the program. Bytes are counted
//! where they are copied in any case, and added up when somebody asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use common::clock::unix_now;
use common::locks::lock;
use common::outside::printable;
use common::tunnel::Traffic;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant};

use super::{Forwarding, Way};
use crate::target::Target;

/// Bytes that are kept of an error's text.
const ERROR: usize = 500;

/// What is carried to targets.
#[derive(Debug, Default)]
pub(crate) struct Forwardings {
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they were opened: the key is the number of the one.
    open: BTreeMap<u64, Arc<Open>>,
    /// Those that are let in, approved and connected just now.
    opening: usize,
    opened: u64,
    /// Bytes of those that have ended.
    ended: Bytes,
    last_error: Option<LastError>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bytes {
    r#in: u64,
    out: u64,
}

impl Bytes {
    fn add(&mut self, traffic: &Traffic) {
        // What comes from the stream goes into the target.
        self.r#in += traffic.received();
        self.out += traffic.sent();
    }
}

/// The last thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LastError {
    /// In seconds since 1970.
    pub(crate) time: u64,
    /// Printable.
    pub(crate) message: String,
}

/// The figures since the start of the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Open now.
    pub(crate) active: usize,
    /// Opened, the open ones included.
    pub(crate) opened: u64,
    /// Bytes to targets.
    pub(crate) bytes_in: u64,
    /// Bytes from targets.
    pub(crate) bytes_out: u64,
    /// The last thing that went wrong, if any.
    pub(crate) last_error: Option<LastError>,
}

/// One that is open.
#[derive(Debug)]
pub(crate) struct Open {
    /// Its place in the order of all.
    pub(crate) number: u64,
    /// In what the bytes travel.
    pub(crate) way: Way,
    /// The name by which the target was asked for; printable.
    pub(crate) name: String,
    /// Where it leads.
    pub(crate) target: Target,
    /// Since when.
    pub(crate) since: Instant,
    /// Its bytes so far.
    pub(crate) traffic: Traffic,
    close: Notify,
}

impl Open {
    /// Names it for operators: as the log does, and unlike all others but by chance.
    pub(crate) fn id(&self) -> String {
        match &self.way {
            Way::Stream(Some(stream)) => stream.to_string(),
            Way::Stream(None) => format!("stream-{}", self.number),
            Way::Session(session, connection) => format!("{session}/{connection}"),
        }
    }

    /// Has it end.
    pub(crate) fn close(&self) {
        self.close.notify_one();
    }

    fn forwarding(&self) -> Forwarding<'_> {
        Forwarding {
            way: self.way,
            name: &self.name,
            target: &self.target,
        }
    }
}

impl Forwardings {
    /// Counts one that is about to be opened, until the result is dropped: somebody waits for it,
    /// and perhaps somebody else is asked to approve it.
    pub(crate) fn opening(self: &Arc<Self>) -> Opening {
        self.state().opening += 1;
        self.changes.send_replace(());
        Opening(Arc::clone(self))
    }

    /// Adds one that opens now, and logs it. It is removed when the result is dropped.
    pub(crate) fn open(self: &Arc<Self>, forwarding: &Forwarding<'_>) -> Opened {
        let open = {
            let mut state = self.state();
            state.opened += 1;
            let number = state.opened;
            let open = Arc::new(Open {
                number,
                way: forwarding.way,
                name: forwarding.name.to_owned(),
                target: forwarding.target.clone(),
                since: Instant::now(),
                traffic: Traffic::default(),
                close: Notify::new(),
            });
            state.open.insert(number, Arc::clone(&open));
            open
        };
        self.changes.send_replace(());
        forwarding.log_opened();
        Opened {
            table: Arc::clone(self),
            open,
        }
    }

    /// Keeps an error for those who ask.
    pub(crate) fn failed(&self, message: &str) {
        let message = printable(message).chars().take(ERROR).collect();
        self.state().last_error = Some(LastError {
            time: unix_now(),
            message,
        });
        self.changes.send_replace(());
    }

    /// The figures now.
    pub(crate) fn totals(&self) -> Totals {
        let state = self.state();
        let mut bytes = state.ended;
        for open in state.open.values() {
            bytes.add(&open.traffic);
        }
        Totals {
            active: state.open.len(),
            opened: state.opened,
            bytes_in: bytes.r#in,
            bytes_out: bytes.out,
            last_error: state.last_error.clone(),
        }
    }

    /// How many are open, and those of them that follow the first so many, at most so many.
    pub(crate) fn list(&self, skip: usize, most: usize) -> (usize, Vec<Arc<Open>>) {
        let state = self.state();
        let some = state.open.values().skip(skip).take(most).cloned();
        (state.open.len(), some.collect())
    }

    /// How many are open, or about to be opened.
    pub(crate) fn in_use(&self) -> usize {
        let state = self.state();
        state.open.len() + state.opening
    }

    /// Those with this id: rarely more than one.
    pub(crate) fn find(&self, id: &str) -> Vec<Arc<Open>> {
        let open = self.state();
        let found = open.open.values().filter(|open| open.id() == id);
        found.cloned().collect()
    }

    /// Waits until this one has ended. May be dropped.
    pub(crate) async fn ended(&self, number: u64) {
        let mut changes = self.watch();
        // The sender is part of this table.
        let _ = changes
            .wait_for(|()| !self.state().open.contains_key(&number))
            .await;
    }

    /// Changes whenever one is about to open, opens, ends or fails.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// One that is about to be opened, as long as this is not dropped.
#[derive(Debug)]
pub(crate) struct Opening(Arc<Forwardings>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.state().opening -= 1;
        self.0.changes.send_replace(());
    }
}

/// One that is open, as long as this is not dropped.
#[derive(Debug)]
pub(crate) struct Opened {
    table: Arc<Forwardings>,
    open: Arc<Open>,
}

impl Opened {
    /// Counts its bytes.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.open.traffic
    }

    /// For how long it has been open.
    pub(crate) fn duration(&self) -> Duration {
        self.open.since.elapsed()
    }

    /// Waits until an operator has it end. May be dropped.
    pub(crate) async fn closed(&self) {
        self.open.close.notified().await;
    }

    /// Logs its end: normal if both sides had sent all they wanted. An end that was `caused` here,
    /// by an operator, is no error.
    pub(crate) fn log_ended<E: std::error::Error>(
        &self,
        outcome: &common::tunnel::Outcome<E>,
        is_normal: bool,
        is_caused: bool,
    ) {
        if !is_normal && !is_caused {
            let end = common::report::chain(&outcome.end);
            self.table.failed(&format!("{}: {end}", self.open.name));
        }
        self.open.forwarding().log_ended(outcome, is_normal);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        {
            let mut state = self.table.state();
            state.open.remove(&self.open.number);
            state.ended.add(&self.open.traffic);
        }
        self.table.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use common::identity::StreamId;
    use common::session::{ConnectionId, SessionId};

    use super::*;

    fn open(table: &Arc<Forwardings>, way: Way) -> Opened {
        table.open(&Forwarding {
            way,
            name: "ssh",
            target: &Target::Echo,
        })
    }

    #[tokio::test]
    async fn what_is_open_is_listed_and_what_has_ended_is_counted() {
        let table = Arc::new(Forwardings::default());
        let stream = StreamId::random();
        let session = SessionId([0xab; 16]);
        let first = open(&table, Way::Stream(Some(stream)));
        let second = open(&table, Way::Session(session, ConnectionId(3)));
        let third = open(&table, Way::Stream(None));
        let ids = |skip, most| -> Vec<_> {
            let (all, some) = table.list(skip, most);
            assert_eq!(all, 3);
            some.iter().map(|open| open.id()).collect()
        };
        assert_eq!(ids(0, 9), [&stream.to_string(), "abababab/3", "stream-3"]);
        assert_eq!(ids(1, 1), ["abababab/3"]);

        first.traffic().add_sent(10);
        second.traffic().add_received(3);
        let mut changes = table.watch();
        drop((first, third));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        table.failed("ssh: it \u{1b}broke");
        assert!(changes.has_changed().unwrap());
        let totals = table.totals();
        assert_eq!((totals.active, totals.opened), (1, 3));
        assert_eq!((totals.bytes_in, totals.bytes_out), (3, 10));
        assert_eq!(totals.last_error.unwrap().message, "ssh: it broke");
    }

    #[tokio::test]
    async fn what_is_about_to_open_is_in_use() {
        let table = Arc::new(Forwardings::default());
        let mut changes = table.watch();
        let first = table.opening();
        let second = table.opening();
        assert!(changes.has_changed().unwrap());
        assert_eq!((table.in_use(), table.totals().active), (2, 0));
        let opened = open(&table, Way::Stream(None));
        drop(first);
        assert_eq!((table.in_use(), table.totals().active), (2, 1));
        drop(opened);
        changes.mark_unchanged();
        drop(second);
        assert!(changes.has_changed().unwrap());
        assert_eq!(table.in_use(), 0);
    }

    #[tokio::test]
    async fn one_is_closed_by_its_id() {
        let table = Arc::new(Forwardings::default());
        let opened = open(&table, Way::Session(SessionId([1; 16]), ConnectionId(7)));
        assert!(table.find("01010101/8").is_empty());
        let found = table.find("01010101/7");
        assert_eq!(found.len(), 1);
        // Also if nothing waits for it yet.
        found[0].close();
        let number = found[0].number;
        let task = async move { opened.closed().await };
        tokio::join!(table.ended(number), task);
        assert!(table.find("01010101/7").is_empty());
        table.ended(number).await;
    }
}
