use std::time::Duration;

use common::identity::DeviceId;
use proptest::prelude::*;

use super::*;
use crate::auth::{Credential, DevicePrincipal};
use crate::presence::Presence;

fn identity(name: &str) -> DeviceIdentity {
    DeviceIdentity::of_device(DeviceId::parse(name).unwrap())
}

/// Two connections of one identity.
fn connections() -> [HubSessionId; 2] {
    let presence = Presence::default();
    [0, 1].map(|_| {
        let principal = DevicePrincipal {
            identity: identity("d"),
            expires: None,
            credential: Credential::Key([0; 32]),
            generation_id: String::new(),
        };
        presence.admit(&principal).connection
    })
}

fn open(table: &mut Table<u64>, name: &str) -> (StreamId, u64) {
    let stream = StreamId::random();
    table.open(stream, identity(name), |number| number).unwrap();
    (stream, *table.get(stream).unwrap())
}

#[test]
fn the_usual_life() {
    let now = Instant::now();
    let [first, _] = connections();
    let mut table = Table::new(7);
    let (stream, number) = open(&mut table, "d");
    assert_eq!(number, 8);
    assert_eq!(
        table.answer(&identity("d"), number, true, now),
        None,
        "not sent yet"
    );
    assert_eq!(table.undelivered(&identity("d"), first), [stream]);
    assert!(
        table.undelivered(&identity("d"), first).is_empty(),
        "sent once"
    );
    assert!(
        table.claim(stream, Leg::Device).is_ok(),
        "before its accept"
    );
    assert_eq!(
        table.claim(stream, Leg::Service),
        Err(LegRefused),
        "not before the accept"
    );
    assert_eq!(table.answer(&identity("other"), number, true, now), None);
    assert_eq!(
        table.answer(&identity("d"), number, true, now),
        Some(stream)
    );
    assert_eq!(
        table.answer(&identity("d"), number, true, now),
        None,
        "answered once"
    );
    assert!(table.claim(stream, Leg::Service).is_ok());
    assert_eq!(
        table.claim(stream, Leg::Service),
        Err(LegRefused),
        "a token works once"
    );
    assert_eq!(
        table.claim(stream, Leg::Device),
        Err(LegRefused),
        "a token works once"
    );
    assert_eq!(table.arrive(stream), Some(Arrival::First));
    assert_eq!(table.arrive(stream), Some(Arrival::Second));
    assert!(
        table
            .remove_expired(now + Duration::from_secs(1))
            .is_empty(),
        "joined"
    );
    assert_eq!(table.remove(stream), Some(number));
    assert_eq!((table.len(), table.identities.len()), (0, 0));
}

#[test]
fn pending_requests_go_to_the_next_connection_too() {
    let [first, second] = connections();
    let mut table = Table::new(0);
    let (stream, number) = open(&mut table, "d");
    assert_eq!(table.undelivered(&identity("d"), first), [stream]);
    assert_eq!(table.undelivered(&identity("d"), second), [stream]);
    assert_eq!(
        table.answer(&identity("d"), number, true, Instant::now()),
        Some(stream)
    );
    assert!(
        table.undelivered(&identity("d"), first).is_empty(),
        "answered"
    );
}

#[test]
fn what_does_not_come_in_time_goes() {
    let now = Instant::now();
    let [first, _] = connections();
    let mut table = Table::new(0);
    let (stream, number) = open(&mut table, "d");
    table.undelivered(&identity("d"), first);
    assert!(
        table
            .remove_expired(now + Duration::from_secs(100))
            .is_empty(),
        "the POST's own limit"
    );
    table.answer(&identity("d"), number, true, now + limits::LEG_ARRIVAL);
    assert_eq!(
        table.give_up(stream),
        None,
        "accepted streams outlive their POST"
    );
    table.claim(stream, Leg::Device).unwrap();
    table.arrive(stream);
    assert!(table.remove_expired(now).is_empty());
    assert_eq!(table.remove_expired(now + limits::LEG_ARRIVAL), [number]);
    assert_eq!(table.claim(stream, Leg::Service), Err(LegRefused));
}

#[test]
fn a_device_has_a_limited_number_of_pending_requests() {
    let mut table = Table::new(0);
    let mut last = None;
    for _ in 0..limits::PENDING_PER_DEVICE {
        last = Some(open(&mut table, "d").0);
    }
    let full = table.open(StreamId::random(), identity("d"), |n| n);
    assert_eq!(full, Err(Busy::Device));
    assert!(table.open(StreamId::random(), identity("e"), |n| n).is_ok());
    table.give_up(last.unwrap());
    assert!(table.open(StreamId::random(), identity("d"), |n| n).is_ok());
}

#[test]
fn the_hub_has_a_limited_number_of_streams() {
    let mut table = Table::new(0);
    for number in 0..limits::STREAMS_PER_HUB {
        open(&mut table, &format!("d{}", number % 1000));
    }
    let full = table.open(StreamId::random(), identity("d"), |n| n);
    assert_eq!(full, Err(Busy::Hub));
}

#[test]
fn a_closed_table_takes_no_more_and_keeps_what_has_met() {
    let [first, _] = connections();
    let mut table = Table::new(0);
    let (met, number) = open(&mut table, "d");
    open(&mut table, "d");
    table.undelivered(&identity("d"), first);
    table.answer(&identity("d"), number, true, Instant::now());
    table.arrive(met);
    table.arrive(met);
    assert_eq!(table.close().len(), 1);
    assert!(table.get(met).is_some());
    let late = table.open(StreamId::random(), identity("d"), |n| n);
    assert_eq!(late, Err(Busy::Stopping));
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Open(u8),
    Deliver(u8, bool),
    Answer(u8, u8, bool),
    Claim(u8, bool),
    Arrive(u8),
    GiveUp(u8),
    Remove(u8),
    RemoveAll(u8),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8).prop_map(Step::Open),
        (0..3u8, any::<bool>()).prop_map(|(d, c)| Step::Deliver(d, c)),
        (0..3u8, 0..20u8, any::<bool>()).prop_map(|(d, n, a)| Step::Answer(d, n, a)),
        (0..20u8, any::<bool>()).prop_map(|(s, l)| Step::Claim(s, l)),
        (0..20u8).prop_map(Step::Arrive),
        (0..20u8).prop_map(Step::GiveUp),
        (0..20u8).prop_map(Step::Remove),
        (0..3u8).prop_map(Step::RemoveAll),
        Just(Step::Expire),
    ]
}

proptest! {
    /// Whatever the order of events, the two indexes agree, no leg comes twice, and a
    /// removed stream leaves nothing behind.
    #[test]
    fn random_histories_keep_the_table_whole(steps in proptest::collection::vec(step(), 0..80)) {
        let start = Instant::now();
        let connections = connections();
        let mut table = Table::new(0);
        let mut known: Vec<StreamId> = Vec::new();
        let mut claims = std::collections::HashMap::<(StreamId, bool), u32>::new();
        let name = |n: u8| identity(&format!("d{n}"));
        let pick = |known: &[StreamId], n: u8| known.get(usize::from(n)).copied().unwrap_or_else(StreamId::random);
        for step in steps {
            match step {
                Step::Open(d) => {
                    let stream = StreamId::random();
                    table.open(stream, name(d), |n| n).unwrap();
                    known.push(stream);
                }
                Step::Deliver(d, second) => {
                    table.undelivered(&name(d), connections[usize::from(second)]);
                }
                Step::Answer(d, n, accepted) => {
                    let answered = table.answer(&name(d), n.into(), accepted, start);
                    if let (Some(stream), false) = (answered, accepted) {
                        table.remove(stream);
                    }
                }
                Step::Claim(s, device) => {
                    let stream = pick(&known, s);
                    let leg = if device { Leg::Device } else { Leg::Service };
                    if table.claim(stream, leg).is_ok() {
                        let count = claims.entry((stream, device)).or_default();
                        *count += 1;
                        prop_assert_eq!(*count, 1);
                    }
                }
                Step::Arrive(s) => { table.arrive(pick(&known, s)); }
                Step::GiveUp(s) => { table.give_up(pick(&known, s)); }
                Step::Remove(s) => { table.remove(pick(&known, s)); }
                Step::RemoveAll(d) => { table.remove_all(&name(d)); }
                Step::Expire => { table.remove_expired(start); }
            }
            let of = |own: &OfIdentity| own.waiting.len() + own.accepted.len();
            let indexed: usize = table.identities.values().map(of).sum();
            prop_assert_eq!(indexed, table.streams.len());
            for (identity, own) in &table.identities {
                for (number, stream) in &own.waiting {
                    let entry = &table.streams[stream];
                    prop_assert_eq!((&entry.identity, entry.number), (identity, *number));
                    prop_assert!(matches!(entry.phase, Phase::Requested { .. }), "waits");
                }
                for stream in &own.accepted {
                    let entry = &table.streams[stream];
                    prop_assert_eq!(&entry.identity, identity);
                    prop_assert!(matches!(entry.phase, Phase::Accepted { .. }), "accepted");
                }
            }
        }
    }
}
