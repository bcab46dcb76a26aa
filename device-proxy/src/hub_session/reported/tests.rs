use proptest::prelude::*;

use super::*;

fn section(value: Value) -> Section {
    match value {
        Value::Object(section) => section,
        other => panic!("{other}"),
    }
}

fn current(active: u64, bytes: u64) -> Section {
    section(json!({
        "version": "1.0.0", "activeStreams": active, "bytesIn": bytes, "lastError": null,
        "policy": { "version": 3, "status": "applied", "reason": null },
    }))
}

/// The patch that was sent.
fn sent(act: Act) -> Value {
    let Act::Send(packet) = act else {
        panic!("{act:?}")
    };
    let text = String::from_utf8_lossy(&packet).into_owned();
    let body = &text[text.find("{\"").unwrap()..];
    serde_json::from_str::<Value>(body).unwrap()[SECTION].clone()
}

fn answer(reported: &mut Reported, number: u64, status: u16, now: Instant) {
    let response = TwinResponse {
        request_id: RequestId::parse(&format!("r{number}")).unwrap(),
        status,
        version: None,
    };
    reported.answered(&response, now);
}

#[test]
fn only_what_has_changed_and_once_a_minute() {
    let mut reported = Reported::new();
    let begun = Instant::now();
    reported.opened();
    reported.changed(begun);
    assert_eq!(reported.due(), None, "the twin is not read yet");
    let other = json!({ "session": { "version": 1 }, "version": "0.9.0", "lastError": {} });
    reported.read(Some(&other), begun);
    assert_eq!(reported.due(), Some(begun));
    let first = sent(reported.act(&current(0, 5), begun));
    assert_eq!(
        first,
        json!({
            "version": "1.0.0", "activeStreams": 0, "bytesIn": 5, "lastError": null,
            "policy": { "version": 3, "status": "applied", "reason": null },
        })
    );
    answer(&mut reported, 9, 204, begun);
    assert_eq!(
        reported.due(),
        Some(begun + limits::TWIN_ANSWER),
        "another's"
    );
    answer(&mut reported, 1, 204, begun);
    // An idle device has no timer.
    assert_eq!(reported.due(), None);
    assert!(reported.wants_changes());

    let mut now = begun + Duration::from_secs(10);
    reported.changed(now);
    reported.changed(now + Duration::from_secs(1));
    assert_eq!(reported.due(), Some(begun + PERIOD));
    assert_eq!(reported.act(&current(1, 7), now), Act::Nothing);
    now = begun + PERIOD;
    let second = sent(reported.act(&current(1, 7), now));
    assert_eq!(second, json!({ "activeStreams": 1, "bytesIn": 7 }));
    answer(&mut reported, 2, 204, now);
    // An open stream is looked at once a minute, and is reported only if it did something.
    for _ in 0..3 {
        now += PERIOD;
        assert_eq!(reported.due(), Some(now));
        assert_eq!(reported.act(&current(1, 7), now), Act::Nothing);
    }
    now += PERIOD;
    assert_eq!(
        sent(reported.act(&current(0, 8), now)),
        json!({ "activeStreams": 0, "bytesIn": 8 })
    );
    answer(&mut reported, 3, 204, now);
    assert_eq!(reported.due(), None);
    // After a pause, at once.
    now += 10 * PERIOD;
    reported.changed(now);
    assert_eq!(reported.due(), Some(now));
    // The next hub session finds all as it was.
    reported.opened();
    reported.read(Some(&Value::Object(current(0, 8))), now);
    assert_eq!(reported.act(&current(0, 8), now), Act::Nothing);
    assert_eq!(reported.due(), None);
}

#[test]
fn a_policy_is_confirmed_at_once_with_its_targets_alone() {
    let mut reported = Reported::new();
    let now = Instant::now();
    reported.opened();
    reported.read(Some(&Value::Object(current(0, 0))), now);
    assert_eq!(reported.act(&current(0, 0), now), Act::Nothing);
    let mut newer = current(0, 9);
    newer.insert(TARGETS.into(), json!(["ssh"]));
    // Alone they wait their turn.
    reported.policy_changed(now);
    assert_eq!(reported.act(&newer, now), Act::Nothing);
    newer[POLICY] = json!({ "version": 4, "status": "refused", "reason": "x" });
    reported.policy_changed(now);
    assert_eq!(
        sent(reported.act(&newer, now)),
        json!({
            POLICY: { "version": 4, "status": "refused", "reason": "x" }, TARGETS: ["ssh"],
        })
    );
    // One request at a time: what comes in between is coalesced.
    newer[POLICY]["version"] = json!(5);
    reported.policy_changed(now);
    assert_eq!(reported.act(&newer, now), Act::Nothing);
    newer[POLICY] = json!({ "version": 6, "status": "applied", "reason": null });
    reported.policy_changed(now);
    answer(&mut reported, 1, 204, now);
    assert_eq!(
        sent(reported.act(&newer, now)),
        json!({ POLICY: { "version": 6, "status": "applied", "reason": null } })
    );
    answer(&mut reported, 2, 204, now);
    assert_eq!(reported.act(&newer, now), Act::Nothing);
    let later = now + PERIOD;
    assert_eq!(sent(reported.act(&newer, later)), json!({ "bytesIn": 9 }));
}

#[test]
fn after_a_failure_the_twin_is_read_again() {
    let mut reported = Reported::new();
    let mut now = Instant::now();
    reported.opened();
    reported.read(Some(&json!({})), now);
    for (number, status) in [(1, Some(500)), (2, None), (3, Some(429))] {
        assert!(matches!(reported.act(&current(0, 0), now), Act::Send(_)));
        match status {
            Some(status) => answer(&mut reported, number, status, now),
            None => {
                now = reported.due().unwrap();
                assert_eq!(reported.act(&current(0, 0), now), Act::Nothing);
            }
        }
        let again = reported.due().unwrap();
        assert!(again > now);
        assert_eq!(reported.act(&current(0, 0), now), Act::Nothing);
        now = again;
        assert_eq!(reported.act(&current(0, 0), now), Act::Read);
        assert_eq!(reported.due(), None);
        reported.read(None, now);
    }
    // Nothing is known: what is not to be there is removed.
    let all = sent(reported.act(&current(0, 0), now));
    assert!(all.as_object().unwrap().contains_key("lastError"));
    answer(&mut reported, 4, 204, now);
    assert_eq!(reported.due(), None);
    assert_eq!(reported.closing(&current(0, 0), now), Act::Nothing);
    assert_eq!(
        sent(reported.closing(&current(0, 1), now)),
        json!({ "bytesIn": 1 })
    );
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), (0u8..3).prop_map(|n| json!(n))];
    leaf.prop_recursive(2, 12, 3, |inner| {
        prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| json!(map))
    })
}

fn members() -> impl Strategy<Value = Section> {
    prop::collection::btree_map("[a-c]", value(), 0..4).prop_map(|map| map.into_iter().collect())
}

/// As the hub stores it: without null.
fn stored(section: &Section) -> Section {
    let mut stored = Section::new();
    merge(&mut stored, section.clone());
    stored
}

proptest! {
    #[test]
    fn the_patch_makes_the_twin_as_it_is_to_be(before in members(), now in members()) {
        let known = stored(&before);
        let mut hub = known.clone();
        merge(&mut hub, difference(&now, Some(&known)));
        for (name, value) in &now {
            let has = hub.get(name).unwrap_or(&Value::Null);
            // Members of members that are not mentioned are left alone.
            prop_assert!(contains(has, value), "{has} {value}");
        }
        // What others have stays, and there is no second patch.
        for (name, value) in known.iter().filter(|(name, _)| !now.contains_key(*name)) {
            prop_assert_eq!(hub.get(name), Some(value));
        }
    }
}

fn contains(has: &Value, wanted: &Value) -> bool {
    match (has, wanted) {
        (Value::Object(has), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| contains(has.get(name).unwrap_or(&Value::Null), value)),
        _ => has == wanted,
    }
}
