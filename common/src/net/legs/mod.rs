//! Opens legs, and TLS connections to the streaming endpoint before they are needed: a stream's
//! endpoint is likely to be where the last one's was.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::locks::lock;
use crate::net::dialer::{DialError, Dialer};
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
/// It is dialled so long after that stream: what has just been opened has the processor first.
const LATER: Duration = Duration::from_millis(20);
/// A hub waits 30 s for the first words on a connection; it is made anew before that.
const LIFE: Duration = Duration::from_secs(20);
/// After this time without an answer on one that was kept, another is dialled: it may be dead.
const ANSWER: Duration = Duration::from_secs(3);
/// After this time another is dialled beside the one that was being dialled before.
const HURRY: Duration = Duration::from_millis(500);
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

/// A connection that is dialled, or was, for the stream that may follow. Its task has it, and gives
/// it to who asks.
#[derive(Debug)]
struct Next {
    number: u64,
    place: Place,
    wanted: oneshot::Sender<oneshot::Sender<DialledAhead>>,
}

/// A connection that leads to where the last leg led.
#[derive(Debug)]
pub struct DialledAhead {
    place: Place,
    /// [`Dialer::changes`] when it was dialled.
    changes: u64,
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
        if let Some(ready) = self.shared.take_ready(&place) {
            return Some(ready);
        }
        self.shared.next_or_new(place).await.ok()
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
        if let Some((number, place, wanted)) = self.shared.announce() {
            let shared = Arc::clone(&self.shared);
            let mut tasks = lock(&self.tasks);
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move { shared.keep_next(number, place, wanted).await });
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
            _ => self.shared.take_ready(&place),
        };
        let leg = match ahead {
            Some(ahead) => self.upgrade(ahead, endpoint, token).await?,
            None if self.shared.is_next(&place) => {
                let dialled = self.shared.next_or_new(place.clone()).await?;
                self.upgrade(dialled, endpoint, token).await?
            }
            None => leg(self.dialer(), endpoint, token).await?,
        };
        self.shared.state().last = Some(place);
        Ok(leg)
    }

    /// Makes a leg of a connection that was there, or of a new one if it has died meanwhile.
    async fn upgrade(
        &self,
        ahead: DialledAhead,
        endpoint: &StreamingEndpoint,
        token: &Secret,
    ) -> Result<Leg, ConnectError> {
        let mut answer = pin!(leg_over(ahead.stream, endpoint, token));
        let answered = match timeout(ANSWER, &mut answer).await {
            Ok(answered) => answered,
            // The token counts once, and the hub may have it already. So only a whole handshake, which
            // takes longer than an answer, shows that there will be none.
            Err(_) => tokio::select! {
                biased;
                answered = &mut answer => answered,
                fresh = self.dialer().tls(endpoint.host(), endpoint.port()) => match fresh {
                    Ok(fresh) => return leg_over(fresh, endpoint, token).await,
                    Err(_) => answer.await,
                },
            },
        };
        match answered {
            Err(ConnectError::Handshake { .. }) => leg(self.dialer(), endpoint, token).await,
            answered => answered,
        }
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
        self.dial(place).await.ok()
    }

    async fn dial(&self, place: Place) -> Result<DialledAhead, DialError> {
        let changes = self.dialer.changes();
        let stream = self.dialer.tls(&place.0, place.1).await?;
        Ok(DialledAhead {
            place,
            changes,
            stream,
        })
    }

    /// Announces a connection for the next stream, unless there is one: its number, where it leads,
    /// and who wants it.
    fn announce(&self) -> Option<(u64, Place, oneshot::Receiver<oneshot::Sender<DialledAhead>>)> {
        let mut state = self.state();
        if state.next.is_some() || !state.ready.is_empty() {
            return None;
        }
        let place = state.last.clone()?;
        let (wanted, wants) = oneshot::channel();
        state.number += 1;
        let number = state.number;
        state.next = Some(Next {
            number,
            place: place.clone(),
            wanted,
        });
        Some((number, place, wants))
    }

    /// Dials for the next stream, and keeps the connection ready. It is read meanwhile: the hub's TLS
    /// ticket comes on it, and its end.
    async fn keep_next(
        &self,
        number: u64,
        place: Place,
        mut wanted: oneshot::Receiver<oneshot::Sender<DialledAhead>>,
    ) {
        // Who comes before that dials at once.
        let is_early = timeout(LATER, &mut wanted).await.is_ok();
        if !is_early
            && let Ok(_slot) = self.slots.try_acquire()
            && let Ok(mut dialled) = self.dial(place).await
        {
            let ended = dialled.stream.read_u8();
            let wanted = tokio::select! {
                biased;
                wanted = wanted => wanted.ok(),
                _ = ended => None,
                () = sleep(FOLLOWS) => None,
            };
            if let Some(wanted) = wanted {
                let _ = wanted.send(dialled);
            }
        }
        self.state().next.take_if(|next| next.number == number);
    }

    /// Whether a connection that leads there is kept or being dialled for the next stream.
    fn is_next(&self, place: &Place) -> bool {
        let state = self.state();
        state.next.as_ref().is_some_and(|next| next.place == *place)
    }

    /// The connection that is kept or being dialled for the next stream, or a new one.
    async fn next_or_new(&self, place: Place) -> Result<DialledAhead, DialError> {
        let next = self.state().next.take_if(|next| next.place == place);
        let coming = async {
            let (sender, connection) = oneshot::channel();
            next?.wanted.send(sender).ok()?;
            let dialled = connection.await.ok()?;
            Some(dialled).filter(|dialled| self.leads_to(dialled, &place))
        };
        let mut coming = pin!(coming);
        // It began earlier than a new one would, but its attempt may have been lost.
        match timeout(HURRY, &mut coming).await {
            Ok(Some(dialled)) => Ok(dialled),
            Ok(None) => self.dial(place.clone()).await,
            Err(_) => tokio::select! {
                biased;
                Some(dialled) = &mut coming => Ok(dialled),
                dialled = self.dial(place.clone()) => dialled,
            },
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
