use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::*;

/// Names whose addresses change, and how often each was asked for. Every test has names of its own.
static NAMES: Mutex<BTreeMap<String, Name>> = Mutex::new(BTreeMap::new());

struct Name {
    addresses: Vec<IpAddr>,
    asked: usize,
}

/// Has a name lead to these addresses.
fn publish(host: &str, addresses: &[IpAddr]) {
    let name = Name {
        addresses: addresses.to_vec(),
        asked: asked(host),
    };
    lock(&NAMES).insert(host.to_owned(), name);
}

/// How often the resolver was asked for a name.
fn asked(host: &str) -> usize {
    lock(&NAMES).get(host).map_or(0, |name| name.asked)
}

/// Names that the tests know addresses of: those that were published, and
/// `1-2-3-4_5-6-7-8.test` has those that stand in it.
pub(super) fn known(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    if let Some(name) = lock(&NAMES).get_mut(host) {
        name.asked += 1;
        let with_port = |address: &IpAddr| SocketAddr::new(*address, port);
        return Some(name.addresses.iter().map(with_port).collect());
    }
    let labels = host.strip_suffix(".test")?.split('_');
    let address = |label: &str| label.replace('-', ".").parse::<IpAddr>().ok();
    let addresses: Option<Vec<_>> = labels.map(address).collect();
    let with_port = |address| SocketAddr::new(address, port);
    Some(addresses?.into_iter().map(with_port).collect())
}

/// A dialer with an empty trust store.
pub(crate) fn dialer() -> Dialer {
    let config = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Dialer::new(&Arc::new(config))
}

/// An address that swallows packets: a listener whose queue is full. Linux drops what comes
/// then, as a broken path does.
#[cfg(target_os = "linux")]
pub(crate) struct Silent {
    pub(crate) address: SocketAddr,
    listener: socket2::Socket,
    queued: Vec<TcpStream>,
}

#[cfg(target_os = "linux")]
impl Silent {
    pub(crate) async fn at(address: Ipv4Addr) -> Self {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let free = SocketAddr::from((address, 0));
        listener.bind(&free.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        let patience = Duration::from_millis(300);
        while let Ok(connected) = tokio::time::timeout(patience, TcpStream::connect(address)).await
        {
            queued.push(connected.unwrap());
        }
        Self {
            address,
            listener,
            queued,
        }
    }

    /// Answers again: what was queued is accepted.
    fn make_room(&self) {
        for _ in &self.queued {
            self.listener.accept().unwrap();
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

/// A listener at this port, or at any if it is 0.
pub(crate) async fn alive(address: Ipv4Addr, port: u16) -> (tokio::net::TcpListener, SocketAddr) {
    let listener = tokio::net::TcpListener::bind((address, port))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_address_that_worked_is_first_next_time() {
    let silent = Silent::at(Ipv4Addr::new(127, 0, 1, 2)).await;
    let (_listener, alive) = alive(Ipv4Addr::new(127, 0, 1, 3), silent.port()).await;
    let limit = Duration::from_secs(10);
    let dialer = dialer();
    for first in [true, false] {
        let start = Instant::now();
        let socket = dialer
            .tcp("127-0-1-2_127-0-1-3.test", silent.port(), limit)
            .await
            .unwrap();
        assert_eq!(socket.peer_addr().unwrap(), alive);
        let waited = start.elapsed() >= race::ATTEMPT_DELAY;
        assert_eq!(waited, first, "{:?}", start.elapsed());
        assert!(start.elapsed() < limit / 2, "{:?}", start.elapsed());
    }
    // Nothing but silence is a timeout, not a refusal.
    let error = dialer
        .tcp("127-0-1-2.test", silent.port(), race::ATTEMPT_DELAY)
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn refusal_names_the_port() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = dialer()
        .tcp("127.0.0.1", port, Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::Connect { port: p, .. } if p == port),
        "{error}"
    );
}

#[tokio::test]
async fn a_host_that_says_nothing_times_out() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialer = dialer();
    tokio::time::pause();
    let error = dialer.tls("127.0.0.1", port).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");
}

const LIMIT: Duration = Duration::from_secs(10);

/// So much time passes at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Where a connection to this host and port leads.
async fn reached(dialer: &Dialer, host: &str, port: u16) -> SocketAddr {
    let socket = dialer.tcp(host, port, LIMIT).await.unwrap();
    socket.peer_addr().unwrap()
}

#[tokio::test]
async fn the_resolver_is_asked_once_in_a_while_for_each_host_and_port() {
    let here = Ipv4Addr::LOCALHOST;
    let (_listener, first) = alive(here, 0).await;
    let (_other_listener, second) = alive(here, 0).await;
    for host in ["one.while", "two.while"] {
        publish(host, &[here.into()]);
    }
    let dialer = dialer();
    for _ in 0..3 {
        assert_eq!(reached(&dialer, "one.while", first.port()).await, first);
    }
    assert_eq!(asked("one.while"), 1);
    assert_eq!(reached(&dialer, "two.while", first.port()).await, first);
    assert_eq!((asked("one.while"), asked("two.while")), (1, 1));
    for _ in 0..2 {
        assert_eq!(reached(&dialer, "one.while", second.port()).await, second);
    }
    assert_eq!(asked("one.while"), 2, "another port");
    assert_eq!(
        reached(&dialer.clone(), "one.while", first.port()).await,
        first
    );
    assert_eq!(asked("one.while"), 2, "both are remembered, for all clones");
    // Use does not extend the time.
    for expected in [2, 3] {
        pass(memory::RESOLVED_FOR * 2 / 3).await;
        assert_eq!(reached(&dialer, "one.while", first.port()).await, first);
        assert_eq!(asked("one.while"), expected);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_has_moved_is_looked_up_at_once_when_its_old_address_refuses() {
    let (old, new) = (Ipv4Addr::new(127, 0, 1, 4), Ipv4Addr::new(127, 0, 1, 5));
    let (listener, old_address) = alive(old, 0).await;
    let port = old_address.port();
    let (_listener, new_address) = alive(new, port).await;
    publish("moves.refused", &[old.into()]);
    let dialer = dialer();
    assert_eq!(reached(&dialer, "moves.refused", port).await, old_address);
    drop(listener);
    // It may be only restarting; its error is that of the address.
    let error = dialer.tcp("moves.refused", port, LIMIT).await.unwrap_err();
    assert!(matches!(error, DialError::Connect { .. }), "{error}");
    assert_eq!(asked("moves.refused"), 2);
    let (listener, _) = alive(old, port).await;
    assert_eq!(reached(&dialer, "moves.refused", port).await, old_address);
    assert_eq!(asked("moves.refused"), 3, "after a failure");
    drop(listener);
    publish("moves.refused", &[new.into()]);
    for _ in 0..2 {
        assert_eq!(reached(&dialer, "moves.refused", port).await, new_address);
        assert_eq!(asked("moves.refused"), 4);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_falls_silent_costs_one_delay_and_not_the_deadline() {
    let old = Ipv4Addr::new(127, 0, 1, 6);
    let new = Ipv4Addr::new(127, 0, 1, 7);
    let silent = Silent::at(old).await;
    let port = silent.port();
    let (_listener, new_address) = alive(new, port).await;
    let dialer = dialer();
    let remember = || {
        let now = Instant::now();
        dialer
            .memory()
            .note("moves.silent", silent.address, now, now);
    };
    publish("moves.silent", &[new.into()]);
    remember();
    let start = Instant::now();
    assert_eq!(reached(&dialer, "moves.silent", port).await, new_address);
    let took = start.elapsed();
    assert!((race::ATTEMPT_DELAY..LIMIT / 2).contains(&took), "{took:?}");
    assert_eq!(reached(&dialer, "moves.silent", port).await, new_address);
    assert_eq!(asked("moves.silent"), 1, "the new one is remembered");

    // Where it is still the only one, the attempt has all the time, and silence is a timeout.
    publish("moves.silent", &[old.into()]);
    remember();
    let limit = race::ATTEMPT_DELAY * 3;
    let start = Instant::now();
    let error = dialer.tcp("moves.silent", port, limit).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");
    assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
    assert_eq!(asked("moves.silent"), 2);
    let error = dialer.tcp("moves.silent", port, race::ATTEMPT_DELAY).await;
    assert!(error.is_err());
    assert_eq!(asked("moves.silent"), 3, "after a failure");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_slow_path_does_not_lose_its_attempt_to_a_resolver_that_fails() {
    let silent = Silent::at(Ipv4Addr::new(127, 0, 1, 8)).await;
    let port = silent.port();
    let dialer = dialer();
    let now = Instant::now();
    dialer.memory().note("slow.path", silent.address, now, now);
    publish("slow.path", &[]);
    let answering = async {
        tokio::time::sleep(race::ATTEMPT_DELAY * 2).await;
        assert_eq!(asked("slow.path"), 1, "beside the attempt");
        silent.make_room();
    };
    let (address, ()) = tokio::join!(reached(&dialer, "slow.path", port), answering);
    assert_eq!(address, silent.address);
    assert!(
        dialer
            .memory()
            .resolved("slow.path", port, Instant::now())
            .is_some()
    );
}

#[tokio::test]
async fn another_host_at_the_old_address_is_no_reason_to_give_up() {
    let here = Ipv4Addr::LOCALHOST;
    let (listener, address) = alive(here, 0).await;
    publish("moves.tls", &[here.into()]);
    let dialer = dialer();
    let stranger = async {
        for _ in 0..3 {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut socket, b"no TLS, but a greeting\n")
                .await
                .unwrap();
        }
        let more = timeout_at(Instant::now() + race::ATTEMPT_DELAY, listener.accept());
        assert!(more.await.is_err(), "tried without end");
    };
    let dialling = async {
        dialer
            .tcp("moves.tls", address.port(), LIMIT)
            .await
            .unwrap();
        let error = dialer.tls("moves.tls", address.port()).await.unwrap_err();
        assert!(matches!(error, DialError::Tls { .. }), "{error}");
        assert_eq!(asked("moves.tls"), 2);
        let known = dialer
            .memory()
            .resolved("moves.tls", address.port(), Instant::now());
        assert_eq!(known, None, "asked next time");
    };
    tokio::join!(stranger, dialling);
}

#[tokio::test]
async fn an_address_is_its_own_name() {
    let (_listener, address) = alive(Ipv4Addr::LOCALHOST, 0).await;
    let dialer = dialer();
    let host = address.ip().to_string();
    assert_eq!(reached(&dialer, &host, address.port()).await, address);
    let known = dialer
        .memory()
        .resolved(&host, address.port(), Instant::now());
    assert_eq!(known, None, "nothing to remember");
}

#[tokio::test]
async fn names_of_one_family_are_reached_in_it() {
    let (_four, address) = alive(Ipv4Addr::LOCALHOST, 0).await;
    let Ok(six) =
        tokio::net::TcpListener::bind((std::net::Ipv6Addr::LOCALHOST, address.port())).await
    else {
        // There is no IPv6 here, or another program has the port.
        return;
    };
    let dialer = dialer();
    let (v4, v6) = (
        IpAddr::from(Ipv4Addr::LOCALHOST),
        "::1".parse::<IpAddr>().unwrap(),
    );
    publish("four.only", &[v4]);
    publish("six.only", &[v6]);
    // A network with NAT64 has no way to IPv4, and its resolver makes an address for the host's
    // (RFC 6147); where it gives both, one of them fails at once.
    let no_route: IpAddr = "255.255.255.255".parse().unwrap();
    publish("six.of.both", &[no_route, v6]);
    for (host, expected) in [("four.only", v4), ("six.only", v6), ("six.of.both", v6)] {
        assert_eq!(
            reached(&dialer, host, address.port()).await.ip(),
            expected,
            "{host}"
        );
    }
    drop(six);
    // It has moved to the other family.
    publish("six.only", &[v4]);
    assert_eq!(reached(&dialer, "six.only", address.port()).await.ip(), v4);
}

#[tokio::test]
async fn exactly_the_permitted_address_is_dialled() {
    let (_listener, alive) = alive(Ipv4Addr::new(127, 0, 3, 1), 0).await;
    let limit = Duration::from_secs(5);
    let dialer = dialer();
    let only = |wanted: IpAddr| move |address: IpAddr| address == wanted;
    let permits = only(alive.ip());
    let host = "moved.permitted";
    // Whatever else the name leads to, in whatever form it is written, is not touched.
    for others in [
        vec![IpAddr::from([127, 0, 3, 2]), alive.ip()],
        vec!["::ffff:127.0.3.2".parse().unwrap(), alive.ip()],
        vec!["::ffff:127.0.3.1".parse().unwrap()],
    ] {
        publish(host, &others);
        let socket = dialer.tcp_if(host, alive.port(), limit, &permits).await;
        assert_eq!(socket.unwrap().peer_addr().unwrap(), alive);
        dialer.memory().forget(host, alive.port());
    }
    for elsewhere in ["127.0.3.2", "::ffff:127.0.3.2", "0.0.0.0", "::"] {
        publish(host, &[elsewhere.parse().unwrap()]);
        let error = dialer.tcp_if(host, alive.port(), limit, &permits).await;
        let error = error.unwrap_err();
        assert!(matches!(error, DialError::Forbidden { .. }), "{elsewhere}");
    }
    // Nor is an address that was remembered where it was permitted.
    publish(host, &[alive.ip()]);
    dialer.tcp(host, alive.port(), limit).await.unwrap();
    let before = asked(host);
    let other = only(IpAddr::from([127, 0, 3, 9]));
    let error = dialer.tcp_if(host, alive.port(), limit, &other).await;
    assert!(matches!(error.unwrap_err(), DialError::Forbidden { .. }));
    assert_eq!(asked(host), before + 1, "one answer is checked and used");
}

#[tokio::test]
async fn numbers_that_only_the_resolver_takes_for_an_address_are_checked() {
    let limit = Duration::from_secs(5);
    let ours = |address: IpAddr| address == IpAddr::from([10, 0, 0, 1]);
    for host in ["127.1", "0x7f000001", "2130706433", "017700000001", "0"] {
        // Systems differ in which of these they read; none leads to loopback here.
        let error = dialer().tcp_if(host, 9, limit, &ours).await.unwrap_err();
        assert!(
            matches!(
                error,
                DialError::Forbidden { .. } | DialError::Resolve { .. }
            ),
            "{host}: {error}"
        );
    }
}
