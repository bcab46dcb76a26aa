//! Proxies of a few lines each, which answer from a script.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::tests::dialer;
use super::*;
use crate::net::proxy::{Credentials, NoProxy, ProxyAddress, ProxySettings};

pub(crate) async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A dialer behind a proxy at this port.
pub(crate) fn behind(protocol: Protocol, port: u16, credentials: Option<&str>) -> Dialer {
    dialer().through(ProxySettings {
        address: Some(ProxyAddress {
            protocol,
            host: "127.0.0.1".to_owned(),
            port,
        }),
        credentials: credentials.map(|text| Credentials::parse(text).unwrap()),
        file: None,
        no_proxy: NoProxy::parse("direct.example"),
    })
}

async fn open(dialer: &Dialer, host: &str) -> Result<HostStream, DialError> {
    let proxy = dialer.proxy_to(host, 443).unwrap();
    let deadline = Instant::now() + limits::DIAL;
    dialer.open_through(&proxy, host, 443, deadline).await
}

async fn failure(dialer: &Dialer, host: &str) -> ProxyError {
    match open(dialer, host).await {
        Err(DialError::Proxy { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

/// Reads one request.
pub(crate) async fn request(socket: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(request).unwrap()
}

#[tokio::test]
async fn the_proxy_resolves_the_name_and_early_bytes_are_the_hosts() {
    let (proxy, port) = listener().await;
    let dialer = behind(Protocol::Http, port, None);
    assert_eq!(
        dialer.way_to("no.such.name", 443).as_deref(),
        Some(format!("127.0.0.1:{port}").as_str())
    );
    assert_eq!(dialer.way_to("direct.example", 443), None);
    let serving = async {
        let (mut socket, _) = proxy.accept().await.unwrap();
        let request = request(&mut socket).await;
        assert!(
            request.starts_with("CONNECT no.such.name:443 HTTP/1.1\r\n"),
            "{request}"
        );
        socket
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nearly")
            .await
            .unwrap();
        let mut byte = [0; 4];
        socket.read_exact(&mut byte).await.unwrap();
        socket.write_all(&byte).await.unwrap();
    };
    let using = async {
        let mut stream = open(&dialer, "no.such.name").await.unwrap();
        stream.write_all(b"echo").await.unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "earlyecho");
    };
    tokio::join!(serving, using);
}

#[tokio::test]
async fn a_scheme_is_asked_for_once_and_a_refused_password_is_not_repeated() {
    let (proxy, port) = listener().await;
    let dialer = behind(Protocol::Http, port, Some("ada:secret"));
    let serving = async {
        let mut requests = Vec::new();
        let who = "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nConnection: close\r\n\r\n";
        let fine = "HTTP/1.1 200 OK\r\n\r\n";
        for answer in [who, fine, fine, who] {
            let (mut socket, _) = proxy.accept().await.unwrap();
            requests.push(
                request(&mut socket)
                    .await
                    .contains("Basic YWRhOnNlY3JldA=="),
            );
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    };
    let using = async {
        open(&dialer, "hub.example").await.unwrap();
        open(&dialer, "hub.example").await.unwrap();
        let error = failure(&dialer, "hub.example").await;
        assert!(matches!(error, ProxyError::Refused { .. }), "{error}");
        let error = failure(&dialer, "hub.example").await;
        assert!(matches!(error, ProxyError::RefusedBefore { .. }), "{error}");
    };
    let (requests, ()) = tokio::join!(serving, using);
    assert_eq!(requests, [false, true, true, true]);
}

#[tokio::test]
async fn a_proxy_that_is_away_or_says_nothing_is_told_apart() {
    let (proxy, port) = listener().await;
    let dialer = behind(Protocol::Http, port, None);
    tokio::time::pause();
    let error = failure(&dialer, "hub.example").await;
    let is_answer = |error: &ProxyError| matches!(error, ProxyError::Silent { step: ProxyStep::Answer, limit } if *limit == limits::PROXY_ANSWER);
    assert!(is_answer(&error), "{error}");
    tokio::time::resume();
    drop(proxy);
    let error = open(&dialer, "hub.example").await.unwrap_err();
    let text = crate::report::chain(&error);
    assert!(
        text.starts_with(&format!(
            "cannot reach hub.example:443 through the proxy 127.0.0.1:{port}: the proxy cannot be reached (is --proxy or HTTPS_PROXY right?): "
        )),
        "{text}"
    );
    let tls = dialer.tls("hub.example", 443).await.unwrap_err();
    assert!(matches!(tls, DialError::Proxy { .. }), "{tls}");
}

#[tokio::test]
async fn an_https_proxy_that_speaks_no_tls_is_named() {
    let (proxy, port) = listener().await;
    let dialer = behind(Protocol::Https, port, None);
    let serving = async {
        let (mut socket, _) = proxy.accept().await.unwrap();
        socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    };
    let (error, ()) = tokio::join!(failure(&dialer, "hub.example"), serving);
    assert!(matches!(error, ProxyError::Tls(_)), "{error:?}");
}

/// A SOCKS5 proxy that accepts one connection, and what it was asked for: kind of address and
/// address.
async fn socks(proxy: &TcpListener, wants_password: bool, reply: u8) -> Option<Vec<u8>> {
    let (mut socket, _) = proxy.accept().await.unwrap();
    let mut greeting = [0; 2];
    socket.read_exact(&mut greeting).await.unwrap();
    let mut methods = vec![0; greeting[1].into()];
    socket.read_exact(&mut methods).await.unwrap();
    let method = if wants_password { 2 } else { 0 };
    if !methods.contains(&method) {
        socket.write_all(&[5, 0xff]).await.unwrap();
        return None;
    }
    socket.write_all(&[5, method]).await.unwrap();
    if wants_password {
        let mut both = vec![0; 2 + 3 + 1 + 6];
        socket.read_exact(&mut both).await.unwrap();
        let is_right = both == b"\x01\x03ada\x06secret";
        socket.write_all(&[1, (!is_right).into()]).await.unwrap();
        if !is_right {
            return None;
        }
    }
    let mut head = [0; 4];
    socket.read_exact(&mut head).await.unwrap();
    let length = match head[3] {
        1 => 4,
        4 => 16,
        _ => socket.read_u8().await.unwrap().into(),
    };
    let mut address = vec![0; length];
    socket.read_exact(&mut address).await.unwrap();
    assert_eq!(socket.read_u16().await.unwrap(), 443);
    // What the host says at once comes behind the answer.
    let answer = [&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0][..], b"early"].concat();
    socket.write_all(&answer).await.unwrap();
    address.insert(0, head[3]);
    Some(address)
}

#[tokio::test]
async fn socks5h_sends_the_name_and_socks5_an_address() {
    let (proxy, port) = listener().await;
    for (protocol, credentials, host, expected) in [
        (
            Protocol::Socks5Hostname,
            None,
            "no.such.name",
            b"\x03no.such.name".to_vec(),
        ),
        (
            Protocol::Socks5,
            Some("ada:secret"),
            "10-9-8-7.test",
            vec![1, 10, 9, 8, 7],
        ),
        (Protocol::Socks5, None, "10.1.2.3", vec![1, 10, 1, 2, 3]),
        (
            Protocol::Socks5Hostname,
            None,
            "::1",
            [&[4][..], &[0; 15], &[1]].concat(),
        ),
    ] {
        let dialer = behind(protocol, port, credentials);
        let (stream, asked) =
            tokio::join!(open(&dialer, host), socks(&proxy, credentials.is_some(), 0));
        assert_eq!(asked.unwrap(), expected);
        let mut early = [0; 5];
        stream.unwrap().read_exact(&mut early).await.unwrap();
        assert_eq!(&early, b"early");
    }
}

#[tokio::test]
async fn a_socks_proxys_refusals_are_told_apart() {
    let (proxy, port) = listener().await;
    let refused = async |credentials: Option<&str>, wants_password: bool, reply: u8| {
        let dialer = behind(Protocol::Socks5Hostname, port, credentials);
        tokio::join!(
            failure(&dialer, "hub.example"),
            socks(&proxy, wants_password, reply)
        )
        .0
    };
    let error = refused(None, true, 0).await;
    assert!(matches!(error, ProxyError::Login { .. }), "{error}");
    let error = refused(Some("ada:wrong!"), true, 0).await;
    assert!(matches!(error, ProxyError::Refused { .. }), "{error}");
    let error = refused(None, false, 2).await;
    assert!(error.to_string().contains("rules do not allow"), "{error}");
    let error = refused(None, false, 5).await;
    assert!(
        error.to_string().contains("cannot reach the host"),
        "{error}"
    );
    // The next address of a name is tried.
    let dialer = behind(Protocol::Socks5, port, None);
    let proxying = async {
        let first = socks(&proxy, false, 4).await;
        (first, socks(&proxy, false, 0).await)
    };
    let (stream, asked) = tokio::join!(open(&dialer, "10-0-0-1_10-0-0-2.test"), proxying);
    assert!(stream.is_ok());
    assert_eq!(
        asked,
        (Some(vec![1, 10, 0, 0, 1]), Some(vec![1, 10, 0, 0, 2]))
    );
    // What is no SOCKS proxy.
    let serving = async {
        let (mut socket, _) = proxy.accept().await.unwrap();
        socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
    };
    let dialer = behind(Protocol::Socks5Hostname, port, None);
    let (error, ()) = tokio::join!(failure(&dialer, "hub.example"), serving);
    assert!(matches!(error, ProxyError::Malformed(_)), "{error}");
}
