use std::net::Ipv6Addr;

use super::*;

fn event(message: &str, peer: &str) -> Event {
    Event {
        level: Level::WARN,
        message: message.into(),
        fields: Fields {
            peer: Some(peer.into()),
            ..Fields::default()
        },
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Notes an event several times; returns how often it was shown.
fn note(repeats: &mut Repeats<u8>, event: &Event, times: u32, now: Instant) -> u32 {
    (0..times)
        .filter(|_| repeats.note(1, event.clone(), now) == Verdict::Show)
        .count()
        .try_into()
        .unwrap()
}

#[test]
fn the_first_are_shown_and_the_others_counted_by_the_minute() {
    let mut repeats = Repeats::default();
    let start = Instant::now();
    let refused = event("refused", "127.0.0.1:5000");
    assert_eq!(note(&mut repeats, &refused, 20_000, start), FIRST);
    assert_eq!(repeats.due(), Some(start + PERIOD));
    assert!(repeats.take_due(start + PERIOD - SECOND).is_empty());
    // A report needs no further event.
    let reports = repeats.take_due(start + PERIOD);
    assert_eq!(reports.len(), 1);
    let report = &reports[0];
    assert_eq!(report.count, 20_000 - u64::from(FIRST));
    assert_eq!((report.time, report.level), (PERIOD, Level::WARN));
    assert_eq!(report.message, "refused");
    assert_eq!(report.fields.peer.as_deref(), Some("127.0.0.1"));
    assert!(!report.is_mixed);
    assert_eq!(repeats.due(), None);

    // The events continue: none is shown, one report a minute.
    assert_eq!(note(&mut repeats, &refused, 7, start + PERIOD + SECOND), 0);
    assert_eq!(repeats.due(), Some(start + 2 * PERIOD));
    assert_eq!(repeats.take_due(start + 2 * PERIOD)[0].count, 7);
    // After a minute without an event, the next ones are shown again.
    assert!(repeats.take_due(start + 3 * PERIOD).is_empty());
    assert!(repeats.kinds.is_empty(), "counts that ended are removed");
    assert_eq!(note(&mut repeats, &refused, 2, start + 3 * PERIOD), 2);
    // The same without a call of `take_due` in between.
    assert_eq!(note(&mut repeats, &refused, 9, start + 5 * PERIOD), FIRST);
}

#[test]
fn rare_events_are_always_shown() {
    let mut repeats = Repeats::default();
    let start = Instant::now();
    let event = event("refused", "127.0.0.1:5000");
    for number in 0..100 {
        let now = start + number * PERIOD / FIRST;
        assert_eq!(note(&mut repeats, &event, 1, now), 1, "{number}");
    }
    assert_eq!(repeats.due(), None);
}

#[test]
fn another_peer_or_message_or_kind_is_not_hidden() {
    let mut repeats = Repeats::default();
    let now = Instant::now();
    note(&mut repeats, &event("refused", "127.0.0.1:5000"), 100, now);
    // Another port is the same peer, and another number is the same message.
    let same = event("refused", "127.0.0.1:5001");
    assert_eq!(note(&mut repeats, &same, 1, now), 0);
    note(&mut repeats, &event("in 0.5 s", "127.0.0.1:1"), 100, now);
    let same = event("in 12.5 s", "127.0.0.1:1");
    assert_eq!(note(&mut repeats, &same, 1, now), 0);

    let other = event("refused", "127.0.0.2:5000");
    assert_eq!(note(&mut repeats, &other, 1, now), 1);
    let other = event("the key is wrong", "127.0.0.1:5000");
    assert_eq!(note(&mut repeats, &other, 1, now), 1);
    let mut other = event("refused", "127.0.0.1:5000");
    assert_eq!(repeats.note(2, other.clone(), now), Verdict::Show);
    other.fields.device = Some("MyDevice".into());
    assert_eq!(note(&mut repeats, &other, 1, now), 1);
}

#[test]
fn many_messages_or_addresses_fill_neither_memory_nor_log() {
    let mut repeats = Repeats::default();
    let now = Instant::now();
    let mut shown = 0;
    for number in 0..10_000u32 {
        // Letters, since digits are ignored.
        let word: String = number
            .to_string()
            .bytes()
            .map(|b| char::from(b + 49))
            .collect();
        shown += note(&mut repeats, &event(&word, "10.0.0.1:1"), 1, now);
    }
    assert_eq!(shown, u32::try_from(MESSAGES).unwrap());
    for number in 0..10_000u128 {
        // Each in another network.
        let ip = Ipv6Addr::from_bits(0x2001_0db8 << 96 | number << 64 | 1);
        shown += note(&mut repeats, &event("x", &format!("[{ip}]:1")), 1, now);
    }
    assert!(shown < 100, "{shown}");
    assert_eq!(repeats.kinds[&1].peers.len(), PEERS);
    let reports = repeats.take_all(now + SECOND);
    assert_eq!(reports.len(), 2);
    assert!(reports.iter().all(|report| report.is_mixed));
    let counted: u64 = reports.iter().map(|report| report.count).sum();
    assert_eq!(counted + u64::from(shown), 20_000);
    // One report has a single peer, the other several.
    let peers: Vec<_> = reports.iter().map(|it| it.fields.peer.clone()).collect();
    assert!(peers.contains(&Some("10.0.0.1".into())), "{peers:?}");
    assert!(peers.contains(&None), "{peers:?}");
    // A peer without an event for a minute makes room.
    let later = now + 2 * PERIOD;
    assert_eq!(note(&mut repeats, &event("x", "10.0.0.2:1"), 1, later), 1);
}

#[test]
fn common_fields_are_reported() {
    let mut repeats = Repeats::default();
    let now = Instant::now();
    for name in ["ssh", "ssh", "ssh", "ssh", "ssh", "ssh", "rdp", "ssh"] {
        let mut event = event("rejected", "10.0.0.1:1");
        event.fields.name = Some(name.into());
        event.fields.target = Some("localhost:22".into());
        repeats.note(1, event, now);
    }
    let reports = repeats.take_all(now);
    assert_eq!(reports[0].count, 3);
    assert_eq!(reports[0].fields.name, None);
    assert_eq!(reports[0].fields.target.as_deref(), Some("localhost:22"));
    assert!(!reports[0].is_mixed);
}

#[test]
fn every_event_is_shown_or_counted() {
    let mut repeats = Repeats::default();
    let (mut noted, mut shown, mut reported) = (0u64, 0u64, 0u64);
    let mut now = Instant::now();
    // A fixed pseudo-random sequence.
    let mut seed = 1u32;
    let mut next = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % below
    };
    for _ in 0..50_000 {
        let peer = format!("10.0.{}.{}:{}", next(2), next(80), next(60_000));
        let words = ["a", "b", "c", "d", "e", "f"];
        let word = words[usize::try_from(next(6)).unwrap()];
        let kind = u8::try_from(next(3)).unwrap();
        noted += 1;
        match repeats.note(kind, event(word, &peer), now) {
            Verdict::Show => shown += 1,
            Verdict::Count { .. } => assert!(repeats.due().is_some_and(|due| due <= now + PERIOD)),
        }
        now += Duration::from_millis(u64::from(next(50)));
        if next(1_000) == 0 {
            now += PERIOD * next(3);
        }
        if repeats.due().is_some_and(|due| due <= now) {
            let reports = repeats.take_due(now);
            assert!(!reports.is_empty());
            reported += reports.iter().map(|report| report.count).sum::<u64>();
        }
    }
    assert!(shown > 0 && reported > shown);
    reported += repeats.take_all(now).iter().map(|it| it.count).sum::<u64>();
    assert_eq!(shown + reported, noted);
    assert!(repeats.take_all(now).is_empty());
}

#[test]
fn long_texts_are_truncated() {
    let mut repeats = Repeats::default();
    let now = Instant::now();
    let long = event(&"\u{fc}".repeat(1_000), &"\u{fc}".repeat(1_000));
    note(&mut repeats, &long, FIRST + 1, now);
    let report = repeats.take_all(now).remove(0);
    assert!(report.message.len() <= MESSAGE + 3);
    assert!(report.fields.peer.unwrap().len() <= FIELD + 3);
}

#[test]
fn addresses_of_one_host_count_as_one() {
    for (peer, counts_as) in [
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1"),
        ("[::1]:80", "::1"),
        ("[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::7", "2001:db8:1:2::/64"),
        ("a pipe", "a pipe"),
    ] {
        assert_eq!(network(peer), counts_as);
    }
}
