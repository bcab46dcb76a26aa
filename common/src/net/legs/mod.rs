//! Opens legs, and TLS connections to the streaming endpoint before they are needed: a stream's
//! endpoint is likely to be where the last one's was.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

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
}

/// A connection that leads to where the last leg led.
#[derive(Debug)]
pub struct DialledAhead {
    place: Place,
    stream: TlsHostStream,
}

impl LegOpener {
    /// Nothing is known of streaming endpoints yet.
    pub fn new(dialer: Dialer) -> Self {
        Self {
            dialer,
            state: Mutex::default(),
            slots: Semaphore::new(READY),
        }
    }

    /// What the legs are dialled with.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether the last leg led to this host and port.
    pub fn is_known(&self, endpoint: &StreamingEndpoint) -> bool {
        self.state().last.as_ref() == Some(&place(endpoint))
    }

    /// A connection to where the last leg led, for [`open`](Self::open); `None` when there was no
    /// leg, or the host cannot be reached. May be dropped.
    pub async fn dial_ahead(&self) -> Option<DialledAhead> {
        let place = self.state().last.clone()?;
        let stream = self.dialer.tls(&place.0, place.1).await.ok()?;
        Some(DialledAhead { place, stream })
    }

    /// Keeps one connection ready for a session that was detached then, for as long as
    /// its service is likely to come back any moment. Never ends; to be dropped.
    pub async fn keep_ready(&self, detached: Instant) {
        let until = detached + EXPECTED;
        while Instant::now() < until {
            if let Ok(_slot) = self.slots.try_acquire()
                && let Some(dialled) = self.dial_ahead().await
            {
                let _ready = Ready::new(self, dialled);
                // The hub, or something between, gives up on a silent connection.
                sleep_until(until.min(Instant::now() + LIFE)).await;
            } else {
                sleep(RETRY).await;
            }
        }
        std::future::pending::<()>().await;
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
        if let Some(ahead) = ahead.filter(|ahead| ahead.place == place) {
            match leg_over(ahead.stream, endpoint, token).await {
                // It waited for too long, perhaps: a fresh one tells.
                Err(ConnectError::Handshake { .. }) => {}
                result => return result,
            }
        } else if let Some(stream) = self.take_ready(&place) {
            match timeout(ANSWER, leg_over(stream, endpoint, token)).await {
                // Dead meanwhile, perhaps: a fresh one tells.
                Err(_) | Ok(Err(ConnectError::Handshake { .. })) => {}
                Ok(result) => return result,
            }
        }
        let leg = leg(&self.dialer, endpoint, token).await?;
        self.state().last = Some(place);
        Ok(leg)
    }

    /// A connection that is kept ready; those that lead elsewhere are of no more use.
    fn take_ready(&self, place: &Place) -> Option<TlsHostStream> {
        let mut state = self.state();
        state.ready.retain(|(_, ready)| ready.place == *place);
        // The newest is the least likely to be dead.
        state.ready.pop().map(|(_, ready)| ready.stream)
    }
}

fn place(endpoint: &StreamingEndpoint) -> Place {
    (endpoint.host().to_owned(), endpoint.port())
}

/// A connection that is kept ready, taken back when this is dropped.
struct Ready<'a> {
    opener: &'a LegOpener,
    number: u64,
}

impl<'a> Ready<'a> {
    fn new(opener: &'a LegOpener, dialled: DialledAhead) -> Self {
        let mut state = opener.state();
        state.number += 1;
        let number = state.number;
        state.ready.push((number, dialled));
        Self { opener, number }
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        let mut state = self.opener.state();
        state.ready.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests;
