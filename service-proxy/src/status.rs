//! What `service-proxy status` shows of a running program: its ports, and what goes over them.

use std::sync::{Arc, Mutex};

use common::locks::lock;
use common::status;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::carried::Totals;
use crate::session::Room;

/// Sessions and streams of one document, at most.
const MOST: usize = 1000;

/// What there is to show; the parts of the program that change it publish it here.
#[derive(Debug)]
pub struct Board {
    started: Instant,
    shown: Mutex<Shown>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Shown {
    /// The hubs, and what the sessions with their devices share.
    pub hubs: Vec<ShownHub>,
    /// What leads to them, each a line.
    pub forwards: Vec<String>,
}

/// One hub.
#[derive(Debug)]
pub struct ShownHub {
    /// What the configuration calls it, if anything.
    pub name: Option<String>,
    /// Its host name.
    pub host: String,
    /// What is open there.
    pub room: Arc<Room>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            shown: Mutex::default(),
        }
    }
}

impl Board {
    /// From now on this is shown.
    pub fn publish(&self, shown: Shown) {
        *lock(&self.shown) = shown;
    }

    /// The document.
    pub fn document(&self) -> Value {
        let program = env!("CARGO_PKG_NAME");
        let mut document = status::about(program, env!("CARGO_PKG_VERSION"), self.started);
        let shown = lock(&self.shown);
        let mut totals = Totals::default();
        let (mut hubs, mut sessions, mut streams) = (Vec::new(), Vec::new(), Vec::new());
        for hub in &shown.hubs {
            let mut of_hub = status::members(json!({ "host": hub.host }));
            if let Some(name) = &hub.name {
                of_hub.insert("name".to_owned(), name.as_str().into());
            }
            hubs.push(of_hub);
            hub.room.carried().add_to(&mut totals);
            sessions.extend(hub.room.status());
            streams.extend(hub.room.carried().streams(MOST));
        }
        sessions.truncate(MOST);
        streams.truncate(MOST);
        document.insert("hubs".to_owned(), hubs.into());
        document.insert("forwards".to_owned(), json!(shown.forwards));
        document.insert("sessions".to_owned(), sessions.into());
        document.insert("streams".to_owned(), streams.into());
        document.insert("totals".to_owned(), totals.document());
        Value::Object(document)
    }
}
