//! Notices that a host can be reached again. While a session waits for its path, the wait
//! between whole attempts may be long and an attempt that is under way may hang in TCP's
//! retransmissions; a bare connect, made often, is cheap, and tells at once.

use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until};

use super::dialer::{Dialer, Resolved};

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
            if self.verdict.due() <= now {
                self.look(now);
            }
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
                    Ok(Probe::Seen(begun, seen)) => self.verdict.note(begun, seen),
                    Err(_) => {}
                },
                () = sleep_until(self.verdict.wake()) => {}
            }
        }
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
            let (dialer, host, port) = (self.dialer.clone(), self.host.clone(), self.port);
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
            let (dialer, host, port) = (self.dialer.clone(), self.host.clone(), self.port);
            let found = found.clone();
            self.looks.spawn(async move {
                let connect = dialer.reach(&host, port, &found, now + PATIENCE);
                let seen = match connect.await {
                    Ok(_) => Seen::Open,
                    Err(unreached) if unreached.is_silent => Seen::Nothing,
                    Err(_) => Seen::Closed,
                };
                Probe::Seen(now, seen)
            });
        }
    }
}

/// What a task of the watch brings.
#[derive(Debug)]
enum Probe {
    /// The host's addresses, if they are known.
    Resolved(Option<Resolved>),
    /// What a look found that began then.
    Seen(Instant, Seen),
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

    /// When there is something to do that no look brings.
    fn wake(&self) -> Instant {
        match self.told {
            Some(told) if self.is_news => self.due().min(told + APART),
            _ => self.due(),
        }
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
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;
    use crate::net::dialer::tests::dialer;

    const MS: Duration = Duration::from_millis(1);

    /// What `verdict` says when looks find this, 100 ms apart.
    fn news(verdict: &mut Verdict, found: &[Seen]) -> Vec<bool> {
        let start = verdict.known.map_or(verdict.lost, |known| known + 100 * MS);
        let mut at = start;
        let mut news = Vec::new();
        for seen in found {
            verdict.note(at, *seen);
            news.push(verdict.take_news(at));
            at += 100 * MS;
        }
        news
    }

    #[test]
    fn open_is_news_after_a_refusal_or_three_misses() {
        use Seen::{Closed, Nothing, Open};
        for (found, expected) in [
            (vec![Open, Open], vec![false, false]),
            (vec![Closed, Open, Open], vec![false, true, false]),
            (vec![Open, Nothing, Nothing, Open], vec![false; 4]),
            (
                vec![Nothing, Nothing, Nothing, Open],
                vec![false, false, false, true],
            ),
        ] {
            let mut verdict = Verdict::new(Instant::now());
            assert_eq!(news(&mut verdict, &found), expected, "{found:?}");
        }
    }

    #[test]
    fn a_look_that_hung_says_nothing_of_a_path_that_answered_since() {
        let start = Instant::now();
        let mut verdict = Verdict::new(start);
        for number in 0..10 {
            verdict.note(start + number * MS, Seen::Nothing);
        }
        verdict.note(start + 100 * MS, Seen::Open);
        assert!(verdict.take_news(start + 150 * MS));
        for number in 10..20 {
            verdict.note(start + number * MS, Seen::Nothing);
        }
        verdict.note(start + 1000 * MS, Seen::Open);
        assert!(!verdict.take_news(start + 1050 * MS));
    }

    #[test]
    fn a_path_that_comes_and_goes_is_news_at_intervals() {
        use Seen::{Closed, Open};
        let mut verdict = Verdict::new(Instant::now());
        let flaps = [Closed, Open].repeat(20);
        let told = news(&mut verdict, &flaps)
            .iter()
            .filter(|told| **told)
            .count();
        assert!((6..=8).contains(&told), "{told} times in 4 s");
        // What was held back is reported in time, if it still holds.
        let mut verdict = Verdict::new(Instant::now());
        assert_eq!(news(&mut verdict, &[Closed, Open]), [false, true]);
        assert_eq!(news(&mut verdict, &[Closed, Open]), [false, false]);
        let told = verdict.told.unwrap();
        assert_eq!(verdict.wake(), verdict.due().min(told + APART));
        assert!(verdict.take_news(told + APART));
        assert!(!verdict.take_news(told + 2 * APART));
    }

    #[test]
    fn what_a_look_finds_sets_the_pace_at_once() {
        let start = Instant::now();
        let mut verdict = Verdict::new(start);
        assert_eq!(verdict.due(), start);
        verdict.looked = Some(start);
        for (seen, pause) in [
            (None, 50),
            (Some(Seen::Open), 250),
            (Some(Seen::Closed), 50),
            (Some(Seen::Open), 250),
            (Some(Seen::Nothing), 50),
        ] {
            if let Some(seen) = seen {
                verdict.note(start, seen);
            }
            assert_eq!(verdict.due() - start, pause * MS, "{seen:?}");
        }
    }

    #[tokio::test]
    async fn what_was_seen_outlives_the_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut watch = PathWatch::new(&dialer(), "127.0.0.1", address.port());
        let limit = Duration::from_secs(10);
        let until = async |watch: &mut PathWatch, wanted: fn(&Verdict) -> bool| {
            while !wanted(&watch.verdict) {
                tokio::select! {
                    () = watch.is_back() => panic!("the path was never away, or is still"),
                    () = tokio::time::sleep(5 * MS) => {}
                }
            }
        };
        // A path that works is no news.
        timeout(limit, until(&mut watch, |verdict| verdict.is_open))
            .await
            .unwrap();
        drop(listener);
        timeout(limit, until(&mut watch, Verdict::is_down))
            .await
            .unwrap();
        // No task waits for the watch while the port opens, as while an attempt ends.
        let _listener = TcpListener::bind(address).await.unwrap();
        timeout(limit, watch.is_back()).await.unwrap();
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_swallows_packets_does_not_hide_the_next() {
        use crate::net::dialer::tests::{Silent, alive};

        let silent = Silent::at([127, 0, 2, 2].into()).await;
        let (_listener, _) = alive([127, 0, 2, 3].into(), silent.port()).await;
        let mut watch = PathWatch::new(&dialer(), "127-0-2-2_127-0-2-3.test", silent.port());
        let seen = async {
            while !watch.verdict.is_open {
                tokio::select! {
                    () = watch.is_back() => panic!("the path was never away"),
                    () = tokio::time::sleep(5 * MS) => {}
                }
            }
        };
        timeout(Duration::from_secs(10), seen).await.unwrap();
        assert!(!watch.verdict.is_down());
    }
}
