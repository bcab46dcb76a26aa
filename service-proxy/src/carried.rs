//! What is carried now, and how much was since the start: counted when a connection opens and ends,
//! and added up when somebody asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::locks::lock;
use common::status::seconds;
use common::tunnel::Traffic;
use serde_json::{Value, json};
use tokio::time::Instant;

/// All connections of one hub.
#[derive(Debug, Default)]
pub struct Carried(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In the order in which they were opened.
    open: BTreeMap<u64, Arc<Open>>,
    opened: u64,
    /// Bytes of those that have ended.
    sent: u64,
    received: u64,
}

#[derive(Debug)]
struct Open {
    /// What a stream of its own is for; those in sessions are counted with these.
    stream: Option<StreamOf>,
    since: Instant,
    traffic: Arc<Traffic>,
}

/// A stream of its own.
#[derive(Debug, Clone)]
pub struct StreamOf {
    /// Its id, if it is known.
    pub id: Option<String>,
    /// The device, or a module of it.
    pub device: String,
    /// The target's name.
    pub target: String,
}

/// Figures of several hubs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that are open.
    pub open: u64,
    /// Those that were opened.
    pub opened: u64,
    /// Bytes to devices.
    pub sent: u64,
    /// Bytes from devices.
    pub received: u64,
}

impl Totals {
    /// As a member of the status document.
    pub fn document(&self) -> Value {
        json!({
            "open": self.open,
            "opened": self.opened,
            "sent": self.sent,
            "received": self.received,
        })
    }
}

impl Carried {
    /// One more is open, until the result is dropped.
    pub fn begin(self: &Arc<Self>, stream: Option<StreamOf>) -> Carrying {
        let open = Arc::new(Open {
            stream,
            since: Instant::now(),
            traffic: Arc::default(),
        });
        let mut state = lock(&self.0);
        state.opened += 1;
        let number = state.opened;
        state.open.insert(number, Arc::clone(&open));
        Carrying {
            all: Arc::clone(self),
            number,
            open,
        }
    }

    /// Adds the figures of all.
    pub fn add_to(&self, totals: &mut Totals) {
        let state = lock(&self.0);
        totals.open += state.open.len() as u64;
        totals.opened += state.opened;
        totals.sent += state.sent;
        totals.received += state.received;
        for open in state.open.values() {
            totals.sent += open.traffic.sent();
            totals.received += open.traffic.received();
        }
    }

    /// Those in streams of their own, at most so many.
    pub fn streams(&self, most: usize) -> Vec<Value> {
        let state = lock(&self.0);
        let streams = state.open.values().filter_map(|open| {
            let stream = open.stream.as_ref()?;
            Some(json!({
                "id": stream.id,
                "device": stream.device,
                "target": stream.target,
                "upSeconds": seconds(open.since.elapsed()),
                "sent": open.traffic.sent(),
                "received": open.traffic.received(),
            }))
        });
        streams.take(most).collect()
    }
}

/// One that is open, as long as this is not dropped.
#[derive(Debug)]
pub struct Carrying {
    all: Arc<Carried>,
    number: u64,
    open: Arc<Open>,
}

impl Carrying {
    /// Counts its bytes.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.open.traffic
    }
}

impl Drop for Carrying {
    fn drop(&mut self) {
        let mut state = lock(&self.all.0);
        state.open.remove(&self.number);
        state.sent += self.open.traffic.sent();
        state.received += self.open.traffic.received();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_ended_is_still_counted() {
        let carried = Arc::new(Carried::default());
        let in_session = carried.begin(None);
        let stream = StreamOf {
            id: None,
            device: "d".to_owned(),
            target: "ssh".to_owned(),
        };
        let in_stream = carried.begin(Some(stream));
        in_session.traffic().add_sent(3);
        in_stream.traffic().add_received(4);
        let totals = || {
            let mut totals = Totals::default();
            carried.add_to(&mut totals);
            totals
        };
        assert_eq!(carried.streams(9).len(), 1);
        assert_eq!(carried.streams(9)[0]["received"], 4);
        let before = totals();
        drop(in_session);
        let expected = Totals { open: 1, ..before };
        assert_eq!(totals(), expected);
        assert_eq!((before.open, before.sent, before.received), (2, 3, 4));
    }
}
