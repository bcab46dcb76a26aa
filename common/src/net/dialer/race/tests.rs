use std::net::SocketAddr;

use super::*;

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn families_take_turns_and_the_address_that_worked_is_first() {
    let all = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
    let expect = |last: Option<&str>, expected: &[&str]| {
        let last = last.map(|text| text.parse().unwrap());
        assert_eq!(order(&all, last), addresses(expected), "{last:?}");
    };
    let usual = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
    expect(None, &usual);
    // Of a host that has moved.
    expect(Some("9.9.9.9:1"), &usual);
    expect(
        Some("2.2.2.2:1"),
        &["2.2.2.2:1", "[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"],
    );
    assert!(order(&[], None).is_empty());
}

#[test]
fn a_refusal_explains_more_than_silence_and_silence_more_than_no_route() {
    use io::ErrorKind::{ConnectionRefused, NetworkUnreachable, TimedOut};
    for (kinds, expected) in [
        (vec![], None),
        (vec![TimedOut], None),
        (vec![NetworkUnreachable], Some(NetworkUnreachable)),
        (vec![NetworkUnreachable, TimedOut], None),
        (
            vec![ConnectionRefused, NetworkUnreachable, TimedOut],
            Some(ConnectionRefused),
        ),
    ] {
        let mut unreached = Unreached::default();
        for kind in &kinds {
            unreached.note((*kind).into());
        }
        let found = unreached.explanation().map(|error| error.kind());
        assert_eq!(found, expected, "{kinds:?}");
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::super::super::tests::{Silent, alive};
    use super::*;
    use std::net::Ipv4Addr;

    const LIMIT: Duration = Duration::from_secs(10);

    async fn raced(addresses: &[SocketAddr]) -> (Result<SocketAddr, Unreached>, Duration) {
        let start = Instant::now();
        let result = connect(addresses, start + LIMIT).await;
        let peer = result.map(|socket| socket.peer_addr().unwrap());
        (peer, start.elapsed())
    }

    #[tokio::test]
    async fn an_address_that_swallows_packets_costs_a_quarter_of_a_second() {
        let silent = Silent::at(Ipv4Addr::new(127, 0, 0, 2)).await;
        let (_listener, alive) = alive(Ipv4Addr::new(127, 0, 0, 3), silent.port()).await;
        let (peer, took) = raced(&[silent.address, alive]).await;
        assert_eq!(peer.unwrap(), alive);
        assert!(took >= ATTEMPT_DELAY && took < LIMIT / 2, "{took:?}");
        // Of many that are dead the last is reached in time, too.
        let mut many = vec![silent.address; 12];
        many.push(alive);
        let (peer, took) = raced(&many).await;
        assert_eq!(peer.unwrap(), alive);
        assert!(took >= ATTEMPT_DELAY * 12, "{took:?}");
    }

    #[tokio::test]
    async fn a_refusal_starts_the_next_attempt_at_once() {
        let (listener, refusing) = alive(Ipv4Addr::new(127, 0, 0, 2), 0).await;
        drop(listener);
        let (_listener, alive) = alive(Ipv4Addr::new(127, 0, 0, 3), refusing.port()).await;
        let mut all = vec![refusing; 20];
        all.push(alive);
        let (peer, took) = raced(&all).await;
        assert_eq!(peer.unwrap(), alive);
        assert!(took < ATTEMPT_DELAY * 10, "{took:?}");
    }

    #[tokio::test]
    async fn what_is_not_reached_is_told_apart() {
        let silent = Silent::at(Ipv4Addr::new(127, 0, 0, 2)).await;
        let (listener, refusing) = alive(Ipv4Addr::new(127, 0, 0, 3), 0).await;
        drop(listener);
        let short = Instant::now() + ATTEMPT_DELAY * 4;
        let unreached = connect(&[silent.address, refusing], short).await;
        let unreached = unreached.unwrap_err();
        assert!(
            unreached.is_silent && unreached.failure.is_some(),
            "{unreached:?}"
        );
        let unreached = raced(&[refusing]).await.0.unwrap_err();
        assert!(
            !unreached.is_silent && unreached.failure.is_some(),
            "{unreached:?}"
        );
        assert!(raced(&[]).await.0.unwrap_err().failure.is_none());
    }
}
