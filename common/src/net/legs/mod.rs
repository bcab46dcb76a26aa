//! TLS connections to the streaming endpoint that are made before they are needed: while a
//! session is detached, its next stream is about to be asked for, and a user waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::net::{self, ConnectError, Endpoint};
use common::wire::stream::StreamRequest;
use common::{dial, limits};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::client::TlsStream;

use super::DeviceLeg;

type Stream = TlsStream<TcpStream>;

/// Where the last stream's endpoint was, and connections that lead there.
#[derive(Debug)]
pub(super) struct Ahead {
    state: Mutex<State>,
    /// One for each connection that is made or kept.
    slots: Semaphore,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            slots: Semaphore::new(limits::SESSION_AHEAD),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    endpoint: Option<(String, u16)>,
    /// By number, to be taken back by who has made them.
    waiting: Vec<(u64, Stream)>,
    last: u64,
}

impl Ahead {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; if one did, the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one connection in store for a session that was detached then, for as long as
    /// its service is likely to come back any moment. Never ends; to be dropped.
    pub(super) async fn provide(&self, detached: Instant, tls: &Arc<ClientConfig>) {
        let until = detached + limits::SESSION_AHEAD_TIME;
        while Instant::now() < until {
            let endpoint = self.state().endpoint.clone();
            if let Some((host, port)) = endpoint
                && let Ok(_slot) = self.slots.try_acquire()
                && let Ok(stream) = dial::tls(&host, port, tls).await
            {
                let _stored = Stored::new(self, stream);
                // The hub, or something between, gives up on a silent connection.
                sleep_until(until.min(Instant::now() + limits::SESSION_AHEAD_LIFE)).await;
            } else {
                sleep(limits::SESSION_AHEAD_RETRY).await;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Opens the leg of a request, over a connection that waits for it if there is one.
    pub(super) async fn open(
        &self,
        request: &StreamRequest,
        tls: &Arc<ClientConfig>,
    ) -> Result<DeviceLeg, ConnectError> {
        let (url, token) = (&request.url, &request.token);
        let endpoint = Endpoint::of(url).ok().map(|it| (it.host, it.port));
        let stored = {
            let mut state = self.state();
            if state.endpoint != endpoint {
                state.waiting.clear();
                state.endpoint = endpoint;
            }
            // The newest is the least likely to be dead.
            state.waiting.pop()
        };
        if let Some((_, stream)) = stored {
            let opening = net::connect_over(stream, url, token);
            match timeout(limits::SESSION_AHEAD_ANSWER, opening).await {
                // Dead meanwhile, perhaps: a fresh one tells.
                Err(_) | Ok(Err(ConnectError::Handshake { .. })) => {}
                Ok(result) => return result,
            }
        }
        net::connect(url, token, tls).await
    }
}

/// A connection in store, taken back when this is dropped.
struct Stored<'a> {
    ahead: &'a Ahead,
    number: u64,
}

impl<'a> Stored<'a> {
    fn new(ahead: &'a Ahead, stream: Stream) -> Self {
        let mut state = ahead.state();
        state.last += 1;
        let number = state.last;
        state.waiting.push((number, stream));
        Self { ahead, number }
    }
}

impl Drop for Stored<'_> {
    fn drop(&mut self) {
        let mut state = self.ahead.state();
        state.waiting.retain(|(number, _)| *number != self.number);
    }
}

#[cfg(test)]
mod tests;
