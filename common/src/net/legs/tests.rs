use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Duration;
use tokio_rustls::TlsAcceptor;

use super::*;

/// How many connections a streaming endpoint has seen.
#[derive(Default)]
struct Seen {
    opened: AtomicUsize,
    upgraded: AtomicUsize,
    ended: AtomicUsize,
    /// What comes from now on is not upgraded, nor ended.
    is_silent: AtomicBool,
    /// What comes is ended at once.
    is_leaving: AtomicBool,
    /// Nothing is upgraded as long as this holds.
    is_slow: AtomicBool,
    /// Nobody shakes hands.
    is_closed: AtomicBool,
}

impl Seen {
    async fn while_it(&self, holds: impl Fn(&Self) -> &AtomicBool) {
        while holds(self).load(SeqCst) {
            tokio::task::yield_now().await;
        }
    }
}

/// A streaming endpoint that upgrades every connection.
struct Server {
    port: u16,
    dialer: Dialer,
    seen: Arc<Seen>,
}

impl Server {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = crate::tls::provider();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    seen.while_it(|seen| &seen.is_closed).await;
                    let stream = acceptor.accept(socket).await.unwrap();
                    let is_silent = seen.is_silent.load(SeqCst);
                    seen.opened.fetch_add(1, SeqCst);
                    if is_silent {
                        std::future::pending::<()>().await;
                    }
                    if seen.is_leaving.load(SeqCst) {
                        return;
                    }
                    seen.while_it(|seen| &seen.is_slow).await;
                    if let Ok(leg) = tokio_tungstenite::accept_async(stream).await {
                        seen.upgraded.fetch_add(1, SeqCst);
                        let mut stream = leg.into_inner();
                        while stream.read_u8().await.is_ok() {}
                    }
                    seen.ended.fetch_add(1, SeqCst);
                });
            }
        });
        Self {
            port,
            dialer: Dialer::new(&Arc::new(client)),
            seen,
        }
    }

    fn endpoint(&self) -> StreamingEndpoint {
        let url = format!("wss://localhost:{}/a/stream", self.port);
        StreamingEndpoint::parse(&url).unwrap()
    }

    /// Connections so far, and how many of them became legs.
    fn counts(&self) -> (usize, usize) {
        let Seen {
            opened, upgraded, ..
        } = &*self.seen;
        (opened.load(SeqCst), upgraded.load(SeqCst))
    }

    async fn spare(&self) -> DialledAhead {
        let place = ("localhost".to_owned(), self.port);
        let stream = self.dialer.tls(&place.0, place.1).await.unwrap();
        DialledAhead {
            place,
            changes: self.dialer.changes(),
            stream,
        }
    }
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    let result = timeout(Duration::from_secs(20), waiting).await;
    result.unwrap_or_else(|_| panic!("waited too long for: {what}"));
}

/// So much time passes at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_spare_is_used_once_and_only_for_its_host() {
    let here = Server::start().await;
    let opener = LegOpener::new(here.dialer.clone());
    let token = Secret::new("token");
    let _first = opener.open(&here.endpoint(), &token, None).await.unwrap();
    assert_eq!(here.counts(), (1, 1));
    let _stored = Ready::new(&opener.shared, here.spare().await);
    let _second = opener.open(&here.endpoint(), &token, None).await.unwrap();
    assert_eq!(here.counts(), (2, 2), "over the connection that was there");
    let _third = opener.open(&here.endpoint(), &token, None).await.unwrap();
    assert_eq!(here.counts(), (3, 3), "over one of its own");
    let ahead = opener.dial_ahead().await;
    assert!(ahead.is_some() && opener.is_known(&here.endpoint()));
    let _fourth = opener.open(&here.endpoint(), &token, ahead).await.unwrap();
    assert_eq!(here.counts(), (4, 4), "over the one that was dialled ahead");

    let _stored = Ready::new(&opener.shared, here.spare().await);
    let ahead = opener.dial_ahead().await;
    assert!(
        opener.shared.state().ready.is_empty(),
        "what is ready is taken"
    );
    let _stored = Ready::new(&opener.shared, here.spare().await);
    let elsewhere = StreamingEndpoint::parse("wss://127.0.0.1:1/a/stream").unwrap();
    let refused = opener.open(&elsewhere, &token, ahead).await;
    assert!(matches!(refused, Err(ConnectError::Dial(_))));
    let refused = opener.open(&elsewhere, &token, None).await;
    assert!(matches!(refused, Err(ConnectError::Dial(_))));
    assert!(opener.shared.state().ready.is_empty());
    eventually("the spares' end", || here.seen.ended.load(SeqCst) == 2).await;
    assert_eq!(here.counts(), (6, 4));
}

/// What is ready to run does.
async fn some_turns() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

/// Nothing is kept for the next stream any more.
fn is_over(opener: &LegOpener) -> bool {
    opener.shared.state().next.is_none() && opener.shared.slots.available_permits() == READY
}

#[tokio::test]
async fn after_a_stream_one_connection_is_ready_for_the_next() {
    let server = Server::start().await;
    let opener = LegOpener::new(server.dialer.clone());
    let token = Secret::new("token");
    let _first = opener.open(&server.endpoint(), &token, None).await.unwrap();
    for _ in 0..3 {
        opener.expect_another();
    }
    eventually("one that is ready", || server.counts() == (2, 1)).await;
    opener.expect_another();

    // A service takes it before the stream is accepted, a device when it is.
    let ahead = opener.dial_ahead().await;
    let _second = opener.open(&server.endpoint(), &token, ahead).await;
    assert_eq!(server.counts(), (2, 2), "over the one that was ready");
    opener.expect_another();
    eventually("another one", || server.counts() == (3, 2)).await;
    let _third = opener.open(&server.endpoint(), &token, None).await.unwrap();
    assert_eq!(server.counts(), (3, 3), "over the one that was ready");

    // The next stream comes before the connection is there.
    server.seen.is_closed.store(true, SeqCst);
    opener.expect_another();
    for _ in 0..2 {
        some_turns().await;
        pass(LATER).await;
    }
    some_turns().await;
    let endpoint = server.endpoint();
    let later = async {
        some_turns().await;
        server.seen.is_closed.store(false, SeqCst);
    };
    let (_fourth, ()) = tokio::join!(opener.open(&endpoint, &token, None), later);
    assert_eq!(
        server.counts(),
        (4, 4),
        "over the one that was being dialled"
    );

    // It comes at once.
    opener.expect_another();
    let _fifth = opener.open(&endpoint, &token, None).await.unwrap();
    assert_eq!(server.counts(), (5, 5), "over one of its own");

    // No stream follows.
    opener.expect_another();
    eventually("one for nobody", || server.counts() == (6, 5)).await;
    // Its handshake has ended at our end too.
    some_turns().await;
    pass(FOLLOWS).await;
    let ended = || server.seen.ended.load(SeqCst);
    eventually("its end", || is_over(&opener) && ended() == 1).await;
    assert_eq!(server.counts(), (6, 5));
}

#[tokio::test]
async fn what_is_kept_ends_with_its_opener_and_with_the_trust_it_was_dialled_with() {
    let server = Server::start().await;
    let opener = LegOpener::new(server.dialer.clone());
    let token = Secret::new("token");
    let _first = opener.open(&server.endpoint(), &token, None).await.unwrap();
    opener.expect_another();
    eventually("one that is ready", || server.counts() == (2, 1)).await;
    opener.dialer().follow(&server.dialer.clone());
    let _second = opener.open(&server.endpoint(), &token, None).await.unwrap();
    assert_eq!(server.counts(), (3, 2), "not over one of before the change");
    let ended = || server.seen.ended.load(SeqCst);
    eventually("the end of that one", || ended() == 1).await;

    opener.expect_another();
    eventually("one that is ready", || server.counts() == (4, 2)).await;
    drop(opener);
    eventually("its end", || ended() == 2).await;
}

/// A kept connection on which nobody answers any more.
#[tokio::test]
async fn a_dead_one_costs_a_moment_and_no_stream() {
    let server = Server::start().await;
    let opener = LegOpener::new(server.dialer.clone());
    let token = Secret::new("token");
    let _first = opener.open(&server.endpoint(), &token, None).await.unwrap();
    server.seen.is_silent.store(true, SeqCst);
    opener.expect_another();
    eventually("one that is ready", || server.counts() == (2, 1)).await;
    let endpoint = server.endpoint();
    let opening = opener.open(&endpoint, &token, None);
    let later = async {
        pass(ANSWER).await;
        server.seen.is_silent.store(false, SeqCst);
    };
    let (opened, ()) = tokio::join!(opening, later);
    assert!(opened.is_ok());
    assert_eq!(server.counts(), (3, 2), "over a fresh one");
}

/// The hub takes a stream's token once: where the path is slow, the answer is waited for.
#[tokio::test]
async fn a_slow_answer_is_not_taken_for_none() {
    let server = Server::start().await;
    let opener = LegOpener::new(server.dialer.clone());
    let token = Secret::new("token");
    let _first = opener.open(&server.endpoint(), &token, None).await.unwrap();
    server.seen.is_slow.store(true, SeqCst);
    opener.expect_another();
    eventually("one that is ready", || server.counts() == (2, 1)).await;
    // Another handshake takes longer still.
    server.seen.is_closed.store(true, SeqCst);
    let endpoint = server.endpoint();
    let opening = opener.open(&endpoint, &token, None);
    let later = async {
        pass(ANSWER).await;
        some_turns().await;
        server.seen.is_slow.store(false, SeqCst);
    };
    let (opened, ()) = tokio::join!(opening, later);
    assert!(opened.is_ok());
    assert_eq!(server.counts(), (2, 2), "over the one that was ready");
}

/// The hub has stopped, or something between has given up on a silent connection.
#[tokio::test]
async fn one_that_ends_meanwhile_is_not_used() {
    let server = Server::start().await;
    let opener = LegOpener::new(server.dialer.clone());
    let token = Secret::new("token");
    let _first = opener.open(&server.endpoint(), &token, None).await.unwrap();
    server.seen.is_leaving.store(true, SeqCst);
    opener.expect_another();
    eventually("its end", || server.counts() == (2, 1) && is_over(&opener)).await;
    server.seen.is_leaving.store(false, SeqCst);
    let _second = opener.open(&server.endpoint(), &token, None).await.unwrap();
    assert_eq!(server.counts(), (3, 2), "over a fresh one");
}

#[tokio::test]
async fn spares_are_few_and_fresh_and_end_with_the_hope() {
    const FEW: usize = READY;
    let server = Server::start().await;
    let opener = Arc::new(LegOpener::new(server.dialer.clone()));
    let token = Secret::new("token");
    let _leg = opener.open(&server.endpoint(), &token, None).await.unwrap();
    let detached = Instant::now();
    let mut providers = JoinSet::new();
    for _ in 0..2 * FEW {
        let opener = Arc::clone(&opener);
        providers.spawn(async move { opener.keep_ready(detached).await });
    }
    let is_full = || {
        let (opened, _) = server.counts();
        (opener.shared.state().ready.len() == FEW).then_some(opened)
    };
    eventually("the spares", || is_full() == Some(1 + FEW)).await;
    // The others look again, and find no room.
    pass(RETRY).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(is_full(), Some(1 + FEW));
    // Too old: replaced.
    pass(LIFE).await;
    eventually("fresh ones", || is_full() == Some(1 + 2 * FEW)).await;
    let ended = || server.seen.ended.load(SeqCst);
    eventually("the end of the old ones", || ended() == FEW).await;
    // Nobody comes back any more.
    pass(EXPECTED).await;
    eventually("the end of all", || ended() == 2 * FEW).await;
    assert!(opener.shared.state().ready.is_empty());
    assert_eq!(opener.shared.slots.available_permits(), FEW);
}
