//! Connecting to a host of several addresses (RFC 8305): an address that swallows packets
//! costs a quarter of a second, not its share of the whole limit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::net::socket::tune;

/// How long an attempt is alone before the next begins beside it (RFC 8305, section 8).
pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Attempts at once: each holds a descriptor. Where a host has more addresses, the oldest
/// attempt is given up for the next one.
const AT_ONCE: u32 = 8;

/// No address accepted the connection.
#[derive(Debug, Default)]
pub(in crate::net) struct Unreached {
    /// What the system reported: a refusal, if there was one, since a machine sent it.
    pub failure: Option<io::Error>,
    /// At least one address had not answered when the time was over.
    pub is_silent: bool,
}

impl Unreached {
    /// Nothing has answered.
    pub(super) fn silent() -> Self {
        Self {
            failure: None,
            is_silent: true,
        }
    }

    /// What the attempts at more addresses have shown, too.
    pub(super) fn and(mut self, more: Self) -> Self {
        self.is_silent |= more.is_silent;
        if let Some(error) = more.failure {
            self.note(error);
        }
        self
    }

    fn note(&mut self, error: io::Error) {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if error.kind() == io::ErrorKind::TimedOut {
            self.is_silent = true;
        } else if !self.failure.as_ref().is_some_and(refused) || refused(&error) {
            self.failure = Some(error);
        }
    }

    /// The refusal or failure that explains most; none where it is silence. "No route to
    /// the host" of one family explains nothing while an address of the other is silent.
    pub(super) fn explanation(self) -> Option<io::Error> {
        let is_silent = self.is_silent;
        self.failure
            .filter(|error| !is_silent || error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// The order of attempts: the address that accepted last time, then the families in turn,
/// its own first; else as the resolver has sorted them, the families in turn.
pub(super) fn order(addresses: &[SocketAddr], last: Option<SocketAddr>) -> Vec<SocketAddr> {
    let last = last.filter(|last| addresses.contains(last));
    let Some(first) = last.or(addresses.first().copied()) else {
        return Vec::new();
    };
    let (mut same, mut other): (Vec<_>, Vec<_>) = addresses
        .iter()
        .filter(|address| **address != first)
        .partition(|address| address.is_ipv6() == first.is_ipv6());
    same.insert(0, first);
    let longest = same.len().max(other.len());
    let mut ordered = Vec::with_capacity(addresses.len());
    let (mut same, mut other) = (same.drain(..), other.drain(..));
    for _ in 0..longest {
        ordered.extend(same.next());
        ordered.extend(other.next());
    }
    ordered
}

/// The first connection that one of the addresses, tried in this order, accepts. May be
/// dropped at any time: the attempts end with it.
///
/// # Errors
/// [`Unreached`], by `deadline` at latest.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<TcpStream, Unreached> {
    let has_many = addresses.len() > AT_ONCE as usize;
    let attempt = |address: SocketAddr| async move {
        let patience = if has_many {
            deadline.min(Instant::now() + ATTEMPT_DELAY * AT_ONCE)
        } else {
            deadline
        };
        match timeout_at(patience, TcpStream::connect(address)).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    };
    let mut unreached = Unreached::default();
    let mut attempts = FuturesUnordered::new();
    let mut waiting = addresses.iter();
    let mut is_due = true;
    let mut due = Instant::now();
    loop {
        if is_due && let Some(address) = waiting.next() {
            attempts.push(attempt(*address));
            due = Instant::now() + ATTEMPT_DELAY;
        }
        is_due = tokio::select! {
            biased;
            ended = attempts.next() => match ended {
                Some(Ok(socket)) => {
                    tune(&socket);
                    return Ok(socket);
                }
                Some(Err(error)) => {
                    // One that was given up has made room for no more than was due anyway.
                    let is_failure = error.kind() != io::ErrorKind::TimedOut;
                    unreached.note(error);
                    is_failure
                }
                // All have failed.
                None => return Err(unreached),
            },
            () = sleep_until(due), if waiting.len() > 0 => true,
        };
    }
}

#[cfg(test)]
mod tests;
