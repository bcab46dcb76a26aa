use std::net::IpAddr;
#[cfg(target_os = "linux")]
use std::net::Ipv4Addr;

use super::*;

/// Names that the tests know addresses of: `1-2-3-4_5-6-7-8.test` has those that stand in it.
pub(super) fn known(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
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
    _listener: socket2::Socket,
    _queued: Vec<TcpStream>,
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
            _listener: listener,
            _queued: queued,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

/// A listener at this port, or at any if it is 0.
#[cfg(target_os = "linux")]
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
