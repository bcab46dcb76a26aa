//! Opens legs, and TLS connections to the streaming endpoint before they are needed: a stream's
//! endpoint is likely to be where the last one's was.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

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
/// One that is not older has not died meanwhile.
const FRESH: Duration = Duration::from_secs(1);
/// The most that is waited for an answer on an older one: it may be dead.
const ANSWER: Duration = Duration::from_secs(3);
/// Between attempts to make one.
const RETRY: Duration = Duration::from_secs(1);

/// Host and port of a streaming endpoint.
type Place = (String, u16);

/// Opens the legs of a program.
#[derive(Debug)]
pub struct LegOpener {
    shared: Arc<Shared>,
    /// Dial for the next stream, and keep that connection ready.
    tasks: Mutex<JoinSet<()>>,
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
    /// The one that is dialled or kept for the next stream.
    next: Option<Next>,
}

/// A connection that is dialled, or was, for the stream that may follow.
#[derive(Debug)]
struct Next {
    number: u64,
    place: Place,
    connection: oneshot::Receiver<DialledAhead>,
    /// Tells its task that the connection was taken.
    taken: DropGuard,
}

/// A connection that leads to where the last leg led.
#[derive(Debug)]
pub struct DialledAhead {
    place: Place,
    /// [`Dialer::changes`] when it was dialled.
    changes: u64,
    at: Instant,
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
            tasks: Mutex::default(),
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
        match self.shared.prepared(&place).await {
            Some(prepared) => Some(prepared),
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
        if let Some((number, place, connection, taken)) = self.shared.next() {
            let shared = Arc::clone(&self.shared);
            let mut tasks = lock(&self.tasks);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move { shared.keep_next(number, place, connection, taken).await });
        }
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
        let ahead = match ahead {
            Some(ahead) if self.shared.leads_to(&ahead, &place) => Some(ahead),
            _ => self.shared.prepared(&place).await,
        };
        if let Some(ahead) = ahead {
            let limit = if ahead.at.elapsed() < FRESH {
                limits::DIAL
            } else {
                ANSWER
            };
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
            at: Instant::now(),
            stream,
        })
    }

    /// Announces a connection for the next stream, unless there is one: its number, where it leads,
    /// where it goes, and what says that it was taken.
    fn next(&self) -> Option<(u64, Place, oneshot::Sender<DialledAhead>, CancellationToken)> {
        let mut state = self.state();
        if state.next.is_some() || !state.ready.is_empty() {
            return None;
        }
        let place = state.last.clone()?;
        let (sender, connection) = oneshot::channel();
        let taken = CancellationToken::new();
        state.number += 1;
        let number = state.number;
        state.next = Some(Next {
            number,
            place: place.clone(),
            connection,
            taken: taken.clone().drop_guard(),
        });
        Some((number, place, sender, taken))
    }

    /// Dials for the next stream, and keeps the connection ready.
    async fn keep_next(
        &self,
        number: u64,
        place: Place,
        connection: oneshot::Sender<DialledAhead>,
        taken: CancellationToken,
    ) {
        if let Ok(_slot) = self.slots.try_acquire()
            && let Some(dialled) = self.dial(place).await
            && connection.send(dialled).is_ok()
        {
            let _ = timeout(FOLLOWS, taken.cancelled()).await;
        }
        self.state().next.take_if(|next| next.number == number);
    }

    /// A connection that is kept ready, or the one that is being dialled for the next stream.
    async fn prepared(&self, place: &Place) -> Option<DialledAhead> {
        if let Some(ready) = self.take_ready(place) {
            return Some(ready);
        }
        let next = self.state().next.take_if(|next| next.place == *place)?;
        // It began earlier than a new one would.
        let dialled = timeout(ANSWER, next.connection).await.ok()?.ok()?;
        drop(next.taken);
        Some(dialled).filter(|dialled| self.leads_to(dialled, place))
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
        let mut state = shared.state();
        state.number += 1;
        let number = state.number;
        state.ready.push((number, dialled));
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
