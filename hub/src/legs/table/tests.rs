//! The rules one by one, and random histories.

use std::time::Duration;

use proptest::prelude::*;

use common::identity::DeviceId;

use super::*;

const MOST: Most = Most {
    streams: 100,
    unjoined: 20,
    unjoined_per_identity: 5,
    unjoined_per_policy: 10,
};
const LEGS_IN: Duration = Duration::from_secs(60);

fn identity(name: &str) -> DeviceIdentity {
    DeviceIdentity::of_device(DeviceId::parse(name).unwrap())
}

fn expect(table: &mut Table<u64>, name: &str, value: u64) -> StreamId {
    let stream = StreamId::random();
    let evicted = table.expect(stream, &identity(name), "p", Own::default(), value);
    assert_eq!(evicted, Ok(None));
    stream
}

/// An accepted stream; returns it, and what it has crowded out.
fn accepted(table: &mut Table<u64>, name: &str, policy: &str, value: u64) -> (StreamId, Vec<u64>) {
    let stream = StreamId::random();
    let evicted = table.expect(stream, &identity(name), policy, Own::default(), value);
    let mut evicted: Vec<_> = evicted.unwrap().into_iter().collect();
    evicted.extend(table.accept(stream, Instant::now() + LEGS_IN).unwrap());
    assert!(evicted.iter().all(|it| it.is_accepted && it.arrived < 2));
    (stream, values(evicted))
}

fn join(table: &mut Table<u64>, stream: StreamId) {
    assert_eq!(table.arrive(stream), Some(Arrival::First));
    assert_eq!(table.arrive(stream), Some(Arrival::Second));
}

fn values(removed: impl IntoIterator<Item = Removed<u64>>) -> Vec<u64> {
    removed.into_iter().map(|removed| removed.value).collect()
}

#[test]
fn the_usual_life() {
    let now = Instant::now();
    let mut table = Table::new(MOST);
    let stream = expect(&mut table, "d", 5);
    assert!(
        table.claim(stream, Leg::Device).is_ok(),
        "before its accept"
    );
    let early = table.claim(stream, Leg::Service);
    assert_eq!(early, Err(LegRefused), "not before the accept");
    assert_eq!(table.accept(stream, now), Some(Vec::new()));
    assert!(table.claim(stream, Leg::Service).is_ok());
    for leg in [Leg::Device, Leg::Service] {
        let again = table.claim(stream, leg);
        assert_eq!(again, Err(LegRefused), "a token works once");
    }
    assert_eq!(table.arrive(stream), Some(Arrival::First));
    assert_eq!(table.arrive(stream), Some(Arrival::Second));
    let later = now + Duration::from_secs(1);
    assert!(table.remove_expired(later).is_empty(), "joined");
    let removed = Removed {
        stream,
        identity: identity("d"),
        is_accepted: true,
        arrived: 2,
        value: 5,
    };
    assert_eq!(table.remove(stream), Some(removed));
    assert_eq!((table.len(), table.identities.len()), (0, 0));
    assert_eq!(table.accept(stream, now), None, "gone");
}

#[test]
fn what_does_not_come_in_time_goes() {
    let now = Instant::now();
    let mut table = Table::new(MOST);
    let stream = expect(&mut table, "d", 5);
    let late = now + Duration::from_secs(100);
    assert!(table.remove_expired(late).is_empty(), "not accepted yet");
    table.accept(stream, now + LEGS_IN).unwrap();
    table.claim(stream, Leg::Device).unwrap();
    table.arrive(stream);
    assert!(table.remove_expired(now).is_empty());
    let expired = table.remove_expired(now + LEGS_IN);
    assert!(expired.iter().all(|it| it.is_accepted && it.arrived == 1));
    assert_eq!(values(expired), [5]);
    assert_eq!(table.claim(stream, Leg::Service), Err(LegRefused));
}

#[test]
fn the_hub_has_a_limited_number_of_streams() {
    let mut table = Table::new(MOST);
    for number in 0..MOST.streams {
        let stream = expect(&mut table, &format!("d{}", number % 3), 0);
        if number % 2 == 0 {
            table.accept(stream, Instant::now()).unwrap();
            join(&mut table, stream);
        }
    }
    let full = table.expect(StreamId::random(), &identity("d"), "p", Own::default(), 0);
    assert_eq!(full, Err(too_many(Whose::Hub)));
}

#[test]
fn in_a_full_table_an_unjoined_stream_makes_room() {
    let mut table = Table::new(MOST);
    accepted(&mut table, "d", "p", 1);
    let (joined, _) = accepted(&mut table, "d", "p", 2);
    join(&mut table, joined);
    for number in 2..MOST.streams {
        expect(&mut table, &format!("d{number}"), 0);
    }
    let evicted = table.expect(StreamId::random(), &identity("d"), "p", Own::default(), 0);
    assert_eq!(values(evicted.unwrap()), [1]);
    let full = table.expect(StreamId::random(), &identity("d"), "p", Own::default(), 0);
    assert_eq!(full, Err(too_many(Whose::Hub)), "joined ones stay");
}

fn too_many(whose: Whose) -> ExpectRefused {
    ExpectRefused::TooMany(Over {
        limit: Limit::Streams,
        whose,
        retry_after: RETRY,
    })
}

#[test]
fn an_identity_and_a_policy_have_so_many_and_others_more() {
    let mut table = Table::new(MOST);
    let own = Own {
        of_identity: Some(2),
        of_policy: Some(3),
    };
    let expect = |table: &mut Table<u64>, name: &str, policy: &str| {
        let stream = StreamId::random();
        let evicted = table.expect(stream, &identity(name), policy, own, 0)?;
        Ok((stream, evicted.map(|it| it.stream)))
    };
    let join = |table: &mut Table<u64>, stream| {
        table.accept(stream, Instant::now() + LEGS_IN).unwrap();
        join(table, stream);
    };
    let (first, _) = expect(&mut table, "d", "p").unwrap();
    join(&mut table, first);
    // Not joined yet: it makes room for another one of the same device,
    let (second, _) = expect(&mut table, "d", "p").unwrap();
    table.accept(second, Instant::now() + LEGS_IN).unwrap();
    let (third, evicted) = expect(&mut table, "d", "p").unwrap();
    assert_eq!(evicted, Some(second));
    join(&mut table, third);
    // and one that is joined does not.
    let full = expect(&mut table, "d", "q");
    assert_eq!(full, Err(too_many(Whose::Device)));
    let (fourth, _) = expect(&mut table, "e", "p").unwrap();
    join(&mut table, fourth);
    assert_eq!(expect(&mut table, "f", "p"), Err(too_many(Whose::Policy)));
    assert!(expect(&mut table, "f", "q").is_ok());
    table.remove(first).unwrap();
    assert!(expect(&mut table, "d", "p").is_ok());
    table.remove_everything();
    assert!(table.policies.is_empty() && table.identities.is_empty());
}

#[test]
fn an_identity_crowds_out_its_own_oldest() {
    let mut table = Table::new(MOST);
    let (other, _) = accepted(&mut table, "other", "p", 100);
    let (joined, _) = accepted(&mut table, "d", "p", 101);
    join(&mut table, joined);
    for value in 1..=5 {
        assert!(accepted(&mut table, "d", "p", value).1.is_empty());
    }
    for value in 6..50 {
        assert_eq!(accepted(&mut table, "d", "p", value).1, [value - 5]);
    }
    assert!(table.get(other).is_some() && table.get(joined).is_some());
    // Another policy's stream with the same identity takes the place of one of the flood, and
    // does not lose its own.
    let (rare, evicted) = accepted(&mut table, "d", "rare", 200);
    assert_eq!(evicted, [45]);
    for value in 50..60 {
        accepted(&mut table, "d", "p", value);
    }
    assert!(table.get(rare).is_some());
}

#[test]
fn a_policy_crowds_out_the_oldest_of_the_identity_with_most() {
    let mut table = Table::new(MOST);
    let (single, _) = accepted(&mut table, "single", "p", 1);
    for value in 10..15 {
        accepted(&mut table, "many", "p", value);
    }
    for value in 20..24 {
        accepted(&mut table, &format!("d{value}"), "p", value);
    }
    assert_eq!(table.unjoined.of_policy("p"), MOST.unjoined_per_policy);
    assert_eq!(accepted(&mut table, "new", "p", 30).1, [10]);
    assert_eq!(accepted(&mut table, "single", "p", 31).1, [11]);
    assert!(table.get(single).is_some());
    assert!(accepted(&mut table, "d", "other", 32).1.is_empty());
}

#[test]
fn all_of_them_together_crowd_out_one_of_the_policy_with_most() {
    let mut table = Table::new(MOST);
    for value in 0..10 {
        accepted(&mut table, &format!("d{}", value % 5), "p", value);
    }
    for value in 10..19 {
        accepted(&mut table, &format!("e{}", value % 3), "q", value);
    }
    accepted(&mut table, "r", "r", 19);
    assert_eq!(table.unjoined.len(), MOST.unjoined);
    assert_eq!(accepted(&mut table, "s", "s", 20).1, [0]);
    assert_eq!(accepted(&mut table, "s", "s", 21).1, [10], "of q now");
}

#[test]
fn a_closed_table_takes_no_more_and_keeps_what_has_met() {
    let mut table = Table::new(MOST);
    let met = expect(&mut table, "d", 1);
    expect(&mut table, "d", 2);
    table.accept(met, Instant::now()).unwrap();
    table.arrive(met);
    table.arrive(met);
    let closed = table.close();
    assert!(closed.iter().all(|it| !it.is_accepted && it.arrived == 0));
    assert_eq!(values(closed), [2]);
    assert!(table.get(met).is_some());
    let late = table.expect(StreamId::random(), &identity("d"), "p", Own::default(), 3);
    assert_eq!(late, Err(ExpectRefused::Stopping));
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Expect(u8, u8),
    Accept(u8),
    Claim(u8, bool),
    Arrive(u8),
    Remove(u8),
    RemoveAll(u8),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8, 0..2u8).prop_map(|(d, p)| Step::Expect(d, p)),
        (0..20u8).prop_map(Step::Accept),
        (0..20u8, any::<bool>()).prop_map(|(s, l)| Step::Claim(s, l)),
        (0..20u8).prop_map(Step::Arrive),
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
        let most = Most { streams: 12, unjoined: 6, unjoined_per_identity: 3, unjoined_per_policy: 4 };
        let mut table = Table::new(most);
        let mut known: Vec<StreamId> = Vec::new();
        let mut claims = HashMap::<(StreamId, bool), u32>::new();
        let name = |n: u8| identity(&format!("d{n}"));
        let pick = |known: &[StreamId], n: u8| known.get(usize::from(n)).copied().unwrap_or_else(StreamId::random);
        for step in steps {
            match step {
                Step::Expect(d, p) => {
                    let stream = StreamId::random();
                    let is_full = table.len() == most.streams;
                    let has_unjoined = table.unjoined.len() > 0;
                    match table.expect(stream, &name(d), &format!("p{p}"), Own::default(), 0) {
                        Ok(evicted) => {
                            prop_assert_eq!(evicted.is_some(), is_full);
                            prop_assert!(evicted.is_none_or(|it| it.is_accepted && it.arrived < 2));
                            known.push(stream);
                        }
                        Err(_) => prop_assert!(is_full && !has_unjoined),
                    }
                }
                Step::Accept(s) => {
                    let stream = pick(&known, s);
                    let is_there = table.get(stream).is_some();
                    let evicted = table.accept(stream, start);
                    prop_assert_eq!(evicted.is_some(), is_there);
                    for removed in evicted.unwrap_or_default() {
                        prop_assert!(removed.is_accepted && removed.arrived < 2);
                        prop_assert!(removed.stream != stream);
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
                Step::Remove(s) => { table.remove(pick(&known, s)); }
                Step::RemoveAll(d) => {
                    table.remove_all(&name(d));
                    prop_assert!(!table.identities.contains_key(&name(d)));
                }
                Step::Expire => { table.remove_expired(start); }
            }
            let indexed: usize = table.identities.values().map(HashSet::len).sum();
            prop_assert_eq!(indexed, table.streams.len());
            for (identity, own) in &table.identities {
                prop_assert!(!own.is_empty());
                for stream in own {
                    prop_assert_eq!(&table.streams[stream].holder.identity, identity);
                }
            }
            let is_unjoined = |entry: &&Entry<u64>| entry.legs_by.is_some() && entry.arrived < 2;
            let unjoined = || table.streams.values().filter(is_unjoined);
            prop_assert_eq!(table.unjoined.len(), unjoined().count());
            prop_assert!(table.unjoined.len() <= most.unjoined);
            for d in 0..3 {
                let own = unjoined().filter(|entry| entry.holder.identity == name(d)).count();
                prop_assert_eq!(table.unjoined.of_identity(&name(d)), own);
                prop_assert!(own <= most.unjoined_per_identity);
            }
            for policy in ["p0", "p1"] {
                let own = unjoined().filter(|entry| entry.holder.policy == policy).count();
                prop_assert_eq!(table.unjoined.of_policy(policy), own);
                prop_assert!(own <= most.unjoined_per_policy);
            }
        }
    }
}
