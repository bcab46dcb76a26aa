//! TLS session tickets. rustls' own store keeps 8 for each server, and each is good for one
//! connection: of thirty connections opened at once, most would need a full handshake.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

use crate::locks::lock;

/// Servers for which tickets are kept.
const SERVERS: usize = 16;
/// Tickets for each, of some hundred bytes: as many as connections that are opened at once.
const TICKETS: usize = 64;

type Waiting = HashMap<ServerName<'static>, VecDeque<Tls13ClientSessionValue>>;

/// A store with more tickets for each server; everything else is rustls' own.
pub(super) struct Tickets {
    rest: ClientSessionMemoryCache,
    waiting: Mutex<Waiting>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            rest: ClientSessionMemoryCache::new(SERVERS),
            waiting: Mutex::default(),
        }
    }
}

impl fmt::Debug for Tickets {
    /// Tickets are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.rest.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.rest.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.rest.set_tls12_session(server, value);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.rest.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.rest.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut waiting = self.waiting();
        if waiting.len() >= SERVERS && !waiting.contains_key(&server) {
            // Any of them: it hardly matters which.
            let forgotten = waiting.keys().next().cloned();
            forgotten.and_then(|server| waiting.remove(&server));
        }
        let tickets = waiting.entry(server).or_default();
        if tickets.len() >= TICKETS {
            tickets.pop_front();
        }
        tickets.push_back(value);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // The newest expires last.
        self.waiting().get_mut(server)?.pop_back()
    }
}
