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
    assert_eq!(verdict.held_back(), Some(told + APART));
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

/// A proxy that answers every request with what `status` says, and how many it got.
async fn proxy(
    listener: TcpListener,
    status: std::sync::Arc<std::sync::Mutex<&'static str>>,
    requests: std::sync::Arc<std::sync::atomic::AtomicUsize>,
) {
    use tokio::io::AsyncWriteExt as _;
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        crate::net::dialer::proxied_tests::request(&mut socket).await;
        let answer = format!("HTTP/1.1 {}\r\n\r\n", crate::locks::lock(&status));
        socket.write_all(answer.as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_proxy_is_asked_rarely_and_its_return_is_noticed_at_once() {
    use crate::net::dialer::proxied_tests::{behind, listener};
    use crate::net::proxy::Protocol;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    let limit = Duration::from_secs(20);
    let (socket, port) = listener().await;
    drop(socket);
    let dialer = behind(Protocol::Http, port, None);
    let mut watch = PathWatch::new(&dialer, "hub.example", 443);
    // It is away.
    assert!(timeout(300 * MS, watch.is_back()).await.is_err());
    assert!(watch.verdict.is_down());
    let (status, requests) = (Arc::new(Mutex::new("502 x")), Arc::new(AtomicUsize::new(0)));
    let socket = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let serving = tokio::spawn(proxy(socket, Arc::clone(&status), Arc::clone(&requests)));
    // It is back, and the hub is not.
    let begun = Instant::now();
    assert!(timeout(2500 * MS, watch.is_back()).await.is_err());
    let most = begun.elapsed().as_secs() as usize + 2;
    let count = requests.load(Ordering::Relaxed);
    assert!((1..=most).contains(&count), "{count} requests in 2.5 s");
    *crate::locks::lock(&status) = "200 x";
    timeout(limit, watch.is_back()).await.unwrap();
    assert!(timeout(100 * MS, watch.is_back()).await.is_err(), "once");
    serving.abort();
}
