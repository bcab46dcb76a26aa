//! Notices that a host can be reached again. While a session waits for its path, the wait
//! between whole attempts may be long and an attempt that is under way may hang in TCP's
//! retransmissions; a bare connect, made often, is cheap, and tells at once.
//!
//! Behind a proxy, a bare connect only shows that the proxy is there. It is made as often while the
//! proxy does not accept it; one that does is asked for the host over the same connection, once at a
//! time and much less often, since it writes each request to its log.

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until};

use super::dialer::{Dialer, Resolved};
use super::proxy::ProxyError;

/// How long one connect may take: a path that needs longer is not back.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connects that may be under way at once.
const AT_ONCE: usize = 24;
/// How much longer the pauses are while the path works.
const WORKING: u32 = 5;
/// So many looks in a row that found nothing: one may be a lost packet, or an answer that
/// came a moment too late.
const MISSES: u32 = 3;
/// A path that comes and goes is no news more often than this: each costs the hub a whole
/// attempt, and the attempt that is under way its life.
const APART: Duration = Duration::from_millis(500);
/// The host may be elsewhere by now, or we in another network.
const RESOLVED_FOR: Duration = Duration::from_secs(10);

/// The time between two looks at a path that was lost so long ago: short while somebody
/// is likely to be waiting in front of it.
fn interval(lost_for: Duration) -> Duration {
    match lost_for.as_secs() {
        0..120 => Duration::from_millis(50),
        120..900 => Duration::from_millis(250),
        _ => Duration::from_secs(1),
    }
}

/// The time between two requests to a proxy that is there, in the same way.
fn proxy_interval(lost_for: Duration) -> Duration {
    Duration::from_secs(match lost_for.as_secs() {
        0..120 => 1,
        120..900 => 5,
        _ => 15,
    })
}

/// How long a proxy may take to connect to the host.
const PROXY_PATIENCE: Duration = Duration::from_secs(5);

/// Looks at `host:port` while [`PathWatch::is_back`] is awaited. One is for a whole outage:
/// what it has seen before an attempt is what tells, after it, that the path is back.
#[derive(Debug)]
pub struct PathWatch {
    dialer: Dialer,
    host: String,
    port: u16,
    /// The host's addresses, when they are known.
    found: Option<Resolved>,
    /// When the addresses were asked for.
    asked: Option<Instant>,
    is_asking: bool,
    looks: JoinSet<Probe>,
    verdict: Verdict,
    behind: Behind,
}

/// The proxy on the way, if there is one.
#[derive(Debug, Default)]
struct Behind {
    /// A request to it is under way.
    is_asking: bool,
    /// When the last request began, if it has accepted every connection since.
    asked: Option<Instant>,
}

impl PathWatch {
    /// For a path that was lost now.
    pub fn new(dialer: &Dialer, host: &str, port: u16) -> Self {
        Self {
            dialer: dialer.clone(),
            host: host.to_owned(),
            port,
            found: None,
            asked: None,
            is_asking: false,
            looks: JoinSet::new(),
            verdict: Verdict::new(Instant::now()),
            behind: Behind::default(),
        }
    }

    /// What a bare connect is made to: the host, or the proxy on the way to it.
    fn next_hop(&self) -> (String, u16) {
        match self.dialer.proxy_to(&self.host, self.port) {
            Some(proxy) => (proxy.address.host.clone(), proxy.address.port),
            None => (self.host.clone(), self.port),
        }
    }

    /// When the next look begins; `None` while the proxy's answer is waited for.
    fn due(&self) -> Option<Instant> {
        if self.behind.is_asking {
            return None;
        }
        let due = self.verdict.due();
        Some(match self.behind.asked {
            Some(asked) => due.max(asked + proxy_interval(asked - self.verdict.lost)),
            None => due,
        })
    }

    /// When there is something to do that no look brings.
    fn wake(&self) -> Instant {
        let due = self.due();
        // The answer, or its time limit, ends the wait before.
        let due = due.unwrap_or_else(|| Instant::now() + 2 * PROXY_PATIENCE);
        match self.verdict.held_back() {
            Some(told) => due.min(told),
            None => due,
        }
    }

    /// Ends when the host accepts a connection after it did not: never, while it always
    /// does, and once for each time. Cancel-safe: dropped, it goes on with the next call.
    pub async fn is_back(&mut self) {
        loop {
            let now = Instant::now();
            if self.verdict.take_news(now) {
                return;
            }
            if self.due().is_some_and(|due| due <= now) {
                self.look(now);
            }
            let wake = self.wake();
            tokio::select! {
                Some(look) = self.looks.join_next() => match look {
                    Ok(Probe::Resolved(found)) => {
                        self.is_asking = false;
                        let is_first = self.found.is_none();
                        let now = Instant::now();
                        // Where the path is lost, so may be the resolver.
                        if found.is_some() {
                            self.found = found;
                            if is_first {
                                self.look(now);
                            }
                        } else if is_first {
                            self.verdict.note(now, Seen::Nothing);
                        }
                    }
                    Ok(Probe::Seen(begun, seen)) => {
                        self.behind.asked = None;
                        self.verdict.note(begun, seen);
                    }
                    Ok(Probe::Accepted(begun, socket)) => self.accepted(begun, socket),
                    Ok(Probe::Answered(begun, seen)) => {
                        self.behind.is_asking = false;
                        self.verdict.note(begun, seen);
                    }
                    // It has panicked: the next one asks again.
                    Err(_) => self.behind.is_asking = false,
                },
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Takes a connection of the host, or asks the proxy that has accepted it for the host.
    fn accepted(&mut self, begun: Instant, socket: TcpStream) {
        let Some(proxy) = self.dialer.proxy_to(&self.host, self.port) else {
            return self.verdict.note(begun, Seen::Open);
        };
        // Several looks may end at the same time.
        if self.behind.is_asking {
            return;
        }
        let begun = Instant::now();
        self.behind.is_asking = true;
        self.behind.asked = Some(begun);
        let (dialer, host, port) = (self.dialer.clone(), self.host.clone(), self.port);
        self.looks.spawn(async move {
            let at = (host.as_str(), port);
            let asked = dialer.ask(&proxy, Some(socket), at, begun + PROXY_PATIENCE);
            let seen = match asked.await {
                Ok(_) => Seen::Open,
                Err(ProxyError::Silent { .. }) => Seen::Nothing,
                Err(_) => Seen::Closed,
            };
            Probe::Answered(begun, seen)
        });
    }

    /// Begins a look, and a lookup if it is time for one.
    fn look(&mut self, now: Instant) {
        self.verdict.looked = Some(now);
        let asked = self.asked.map(|asked| now - asked);
        // One lookup at a time.
        if !self.is_asking && (self.found.is_none() || asked.is_none_or(|ago| ago >= RESOLVED_FOR))
        {
            self.is_asking = true;
            self.asked = Some(now);
            let (dialer, (host, port)) = (self.dialer.clone(), self.next_hop());
            self.looks.spawn(async move {
                let found = dialer.resolve(&host, port).await;
                Probe::Resolved(found.ok().filter(|found| !found.addresses.is_empty()))
            });
        }
        let Some(found) = &self.found else {
            // One that hangs tells as much as one that fails.
            if self.is_asking && asked.is_some_and(|ago| ago >= PATIENCE) {
                self.verdict.note(now, Seen::Nothing);
            }
            return;
        };
        if self.looks.len() < AT_ONCE {
            let (dialer, (host, port)) = (self.dialer.clone(), self.next_hop());
            let found = found.clone();
            self.looks.spawn(async move {
                let connect = dialer.reach(&host, port, &found, now + PATIENCE);
                match connect.await {
                    Ok(socket) => Probe::Accepted(now, socket),
                    Err(unreached) if unreached.is_silent => Probe::Seen(now, Seen::Nothing),
                    Err(_) => Probe::Seen(now, Seen::Closed),
                }
            });
        }
    }
}

/// What a task of the watch brings.
#[derive(Debug)]
enum Probe {
    /// The host's addresses, if they are known.
    Resolved(Option<Resolved>),
    /// Why a look that began then was no connection.
    Seen(Instant, Seen),
    /// The connection of a look that began then.
    Accepted(Instant, TcpStream),
    /// What the proxy answered to a request that began then.
    Answered(Instant, Seen),
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    /// It accepts a connection.
    Open,
    /// It, or something before it, refuses.
    Closed,
    /// Nothing answers.
    Nothing,
}

/// What the probes have shown so far.
#[derive(Debug)]
struct Verdict {
    lost: Instant,
    /// When the last look began.
    looked: Option<Instant>,
    /// When the last one began whose result counts.
    known: Option<Instant>,
    is_open: bool,
    misses: u32,
    is_news: bool,
    /// When there was news.
    told: Option<Instant>,
}

impl Verdict {
    fn new(lost: Instant) -> Self {
        Self {
            lost,
            looked: None,
            known: None,
            is_open: false,
            misses: 0,
            is_news: false,
            told: None,
        }
    }

    fn is_down(&self) -> bool {
        self.misses >= MISSES
    }

    fn note(&mut self, begun: Instant, seen: Seen) {
        // One that hung is no news of a path that has answered since.
        if self.known.is_some_and(|known| begun < known) {
            return;
        }
        self.known = Some(begun);
        match seen {
            Seen::Open => {
                self.is_news |= self.is_down();
                self.misses = 0;
            }
            // An answer came: that is no lost packet.
            Seen::Closed => self.misses = self.misses.max(MISSES),
            Seen::Nothing => self.misses = self.misses.saturating_add(1),
        }
        self.is_open = matches!(seen, Seen::Open);
        self.is_news &= !self.is_down();
    }

    /// When the next look begins: one at a path that works can wait.
    fn due(&self) -> Instant {
        let pause =
            |looked: Instant| interval(looked - self.lost) * if self.is_open { WORKING } else { 1 };
        self.looked
            .map_or(self.lost, |looked| looked + pause(looked))
    }

    /// When news that is held back is told.
    fn held_back(&self) -> Option<Instant> {
        self.told.filter(|_| self.is_news).map(|told| told + APART)
    }

    /// Whether the path is back, and it is time to tell.
    fn take_news(&mut self, now: Instant) -> bool {
        let is_due = self.told.is_none_or(|told| now - told >= APART);
        let is_news = self.is_news && is_due;
        if is_news {
            self.is_news = false;
            self.told = Some(now);
        }
        is_news
    }
}

#[cfg(test)]
mod tests;
