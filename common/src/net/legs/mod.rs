//! Opens legs, and TLS connections to the streaming endpoint before they are needed: a stream's
//! endpoint is likely to be where the last one's was.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::limits;
use crate::locks::lock;
use crate::net::dialer::Dialer;
use crate::net::host_stream::TlsHostStream;
use crate::net::upgrade::{ConnectError, Leg, leg, leg_over};
use crate::secret::Secret;
use crate::wire::streaming_endpoint::StreamingEndpoint;

/// Connections that are kept ready for sessions that are about to be opened again.
const READY: usize = 4;
/// How long after its loss such a session is expected back any moment.
const EXPECTED: Duration = Duration::from_secs(120);
/// How long one is kept after a plain stream for the next: many come in a row, as from a browser.
const FOLLOWS: Duration = Duration::from_secs(10);
/// A hub waits 30 s for the first words on a connection; it is made anew before that.
const LIFE: Duration = Duration::from_secs(20);
/// The most that is waited for an answer on one: it may be dead.
const ANSWER: Duration = Duration::from_secs(3);
/// Between attempts to make one.
const RETRY: Duration = Duration::from_secs(1);

/// Host and port of a streaming endpoint.
type Place = (String, u16);

/// Opens the legs of a program.
#[derive(Debug)]
pub struct LegOpener {
    shared: Arc<Shared>,
    /// Keeps a connection ready for the next stream.
    next: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    dialer: Dialer,
    state: Mutex<State>,
    /// One for each connection that is made or kept.
    slots: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    /// Where the last leg led.
    last: Option<Place>,
    /// Connections that are kept ready; by number, to be taken back by who has made them.
    ready: Vec<(u64, DialledAhead)>,
    number: u64,
    /// One is dialled for the next stream.
    is_dialling_next: bool,
}

/// A connection that leads to where the last leg led.
#[derive(Debug)]
pub struct DialledAhead {
    place: Place,
    /// [`Dialer::changes`] when it was dialled.
    changes: u64,
    /// It was kept, and may be dead meanwhile.
    was_kept: bool,
    stream: TlsHostStream,
}

impl LegOpener {
    /// Nothing is known of streaming endpoints yet.
    pub fn new(dialer: Dialer) -> Self {
        let shared = Shared {
            dialer,
            state: Mutex::default(),
            slots: Semaphore::new(READY),
        };
        Self {
            shared: Arc::new(shared),
            next: Mutex::default(),
        }
    }

    /// What the legs are dialled with.
    pub fn dialer(&self) -> &Dialer {
        &self.shared.dialer
    }

    /// Whether the last leg led to this host and port.
    pub fn is_known(&self, endpoint: &StreamingEndpoint) -> bool {
        self.shared.state().last.as_ref() == Some(&place(endpoint))
    }

    /// A connection to where the last leg led, for [`open`](Self::open): one that is kept ready, or
    /// a new one. `None` when there was no leg, or the host cannot be reached. May be dropped.
    pub async fn dial_ahead(&self) -> Option<DialledAhead> {
        let place = self.shared.last()?;
        match self.shared.take_ready(&place) {
            Some(ready) => Some(ready),
            None => self.shared.dial(place).await,
        }
    }

    /// Keeps one connection ready for a session that was detached then, for as long as
    /// its service is likely to come back any moment. Never ends; to be dropped.
    pub async fn keep_ready(&self, detached: Instant) {
        let until = detached + EXPECTED;
        while Instant::now() < until {
            if let Ok(_slot) = self.shared.slots.try_acquire()
                && let Some(dialled) = self.shared.dial_last().await
            {
                let _ready = Ready::new(&self.shared, dialled);
                // The hub, or something between, gives up on a silent connection.
                sleep_until(until.min(Instant::now() + LIFE)).await;
            } else {
                sleep(RETRY).await;
            }
        }
        std::future::pending::<()>().await;
    }

    /// A plain stream was opened, and the next may follow soon: one connection is dialled for it in
    /// the background and kept for [`FOLLOWS`], so that it waits for no TCP and TLS handshake. It
    /// ends with this opener. Needs a runtime.
    pub fn expect_another(&self) {
        {
            let mut state = self.shared.state();
            if state.is_dialling_next || !state.ready.is_empty() {
                return;
            }
            state.is_dialling_next = true;
        }
        let keeping = tokio::spawn(Arc::clone(&self.shared).keep_next());
        *lock(&self.next) = Some(AbortOnDropHandle::new(keeping));
    }

    /// Opens a leg: over the connection that was dialled ahead if it leads there, or one that is
    /// kept ready, or a new one. May be dropped.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(
        &self,
        endpoint: &StreamingEndpoint,
        token: &Secret,
        ahead: Option<DialledAhead>,
    ) -> Result<Leg, ConnectError> {
        let place = place(endpoint);
        let ahead = ahead
            .filter(|ahead| self.shared.leads_to(ahead, &place))
            .or_else(|| self.shared.take_ready(&place));
        if let Some(ahead) = ahead {
            let limit = if ahead.was_kept { ANSWER } else { limits::DIAL };
            match timeout(limit, leg_over(ahead.stream, endpoint, token)).await {
                // Dead meanwhile, perhaps: a fresh one tells.
                Err(_) | Ok(Err(ConnectError::Handshake { .. })) => {}
                Ok(result) => return result,
            }
        }
        let leg = leg(self.dialer(), endpoint, token).await?;
        self.shared.state().last = Some(place);
        Ok(leg)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Where the last leg led.
    fn last(&self) -> Option<Place> {
        self.state().last.clone()
    }

    /// A new connection to where the last leg led.
    async fn dial_last(&self) -> Option<DialledAhead> {
        let place = self.last()?;
        self.dial(place).await
    }

    async fn dial(&self, place: Place) -> Option<DialledAhead> {
        let changes = self.dialer.changes();
        let stream = self.dialer.tls(&place.0, place.1).await.ok()?;
        Some(DialledAhead {
            place,
            changes,
            was_kept: false,
            stream,
        })
    }

    /// Dials for the next stream and keeps the connection ready.
    async fn keep_next(self: Arc<Self>) {
        let slot = self.slots.try_acquire();
        let dialled = match &slot {
            Ok(_) => self.dial_last().await,
            Err(_) => None,
        };
        let ready = dialled.map(|dialled| Ready::new(&self, dialled));
        self.state().is_dialling_next = false;
        if ready.is_some() {
            sleep(FOLLOWS).await;
        }
    }

    /// Whether it leads there, and was dialled as it would be now.
    fn leads_to(&self, dialled: &DialledAhead, place: &Place) -> bool {
        dialled.place == *place && dialled.changes == self.dialer.changes()
    }

    /// A connection that is kept ready; those that lead elsewhere are of no more use.
    fn take_ready(&self, place: &Place) -> Option<DialledAhead> {
        let mut state = self.state();
        state.ready.retain(|(_, ready)| self.leads_to(ready, place));
        // The newest is the least likely to be dead.
        state.ready.pop().map(|(_, ready)| ready)
    }
}

fn place(endpoint: &StreamingEndpoint) -> Place {
    (endpoint.host().to_owned(), endpoint.port())
}

/// A connection that is kept ready, taken back when this is dropped.
struct Ready<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Ready<'a> {
    fn new(shared: &'a Shared, dialled: DialledAhead) -> Self {
        let kept = DialledAhead {
            was_kept: true,
            ..dialled
        };
        let mut state = shared.state();
        state.number += 1;
        let number = state.number;
        state.ready.push((number, kept));
        Self { shared, number }
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ready.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests;
