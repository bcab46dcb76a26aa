//! From documents to pages.

use serde_json::{Value, json};

use crate::query::*;

fn documents() -> Vec<(String, Value)> {
    let devices = [
        ("a", json!({ "site": "berlin", "floor": 3, "x": 1 })),
        ("b", json!({ "site": "ulm", "floor": 1, "x": "text" })),
        ("c", json!({ "site": "berlin", "floor": 2, "x": null })),
        ("d", json!({ "floor": 2.0 })),
        ("e", json!({ "site": "ulm", "floor": -0.0, "x": [1] })),
    ];
    let documents = devices.map(|(id, tags)| {
        (
            id.to_owned(),
            json!({ "deviceId": id, "tags": tags, "status": "enabled" }),
        )
    });
    documents.into()
}

/// All rows of a query, read in pages of this size.
fn pages(text: &str, size: usize) -> Vec<Value> {
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let has_more;
        if query.has_groups() {
            let mut groups = Groups::new(&query);
            for (_, document) in documents() {
                groups.add(&document).unwrap();
            }
            let page = groups.finish(after.as_ref(), size);
            has_more = page.has_more;
            after = page.rows.last().map(|(position, _)| position.clone());
            rows.extend(page.rows.into_iter().map(|(_, row)| row));
        } else {
            let mut selection = Selection::new(&query, after.take(), size);
            for (id, document) in documents() {
                if selection
                    .add(&id, &document, || document.clone())
                    .is_break()
                {
                    break;
                }
            }
            let page = selection.finish();
            has_more = page.has_more;
            after = page.rows.last().map(|(position, _)| position.clone());
            rows.extend(
                page.rows
                    .into_iter()
                    .map(|(_, document)| query.row(document)),
            );
        }
        // As it travels.
        after = after.map(|after| Position::from_json(&after.to_json(), &query).unwrap());
        if !has_more {
            return rows;
        }
    }
}

fn rows(text: &str) -> Value {
    let whole = pages(text, 100);
    for size in 1..=6 {
        assert_eq!(pages(text, size), whole, "{text} by {size}");
    }
    whole.into()
}

#[test]
fn columns_have_names() {
    assert_eq!(
        rows(
            "SELECT DeviceId, tags.site, tags.x AS value, tags.floor * 2, LENGTH(deviceId) \
              FROM devices WHERE tags.floor > 1"
        ),
        json!([
            { "deviceId": "a", "site": "berlin", "value": 1, "$1": 6, "$2": 1 },
            { "deviceId": "c", "site": "berlin", "value": null, "$1": 4, "$2": 1 },
            { "deviceId": "d", "$1": 4, "$2": 1 },
        ])
    );
    assert_eq!(
        rows("SELECT tags.x AS [[a b]] FROM devices WHERE deviceId = 'e'"),
        json!([{ "a b": [1] }])
    );
    assert_eq!(
        rows("SELECT * FROM devices WHERE deviceId = 'd'"),
        json!([documents()[3].1])
    );
}

#[test]
fn rows_are_in_order() {
    let ids = |order: &str| {
        let rows = rows(&format!(
            "SELECT deviceId AS id FROM devices ORDER BY {order}"
        ));
        let ids = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap());
        ids.collect::<String>()
    };
    assert_eq!(ids("tags.floor"), "ebcda");
    assert_eq!(ids("tags.floor DESC"), "acdbe");
    assert_eq!(ids("tags.site, tags.floor DESC"), "dacbe");
    assert_eq!(ids("tags.site DESC, deviceId ASC"), "beacd");
    // By type: undefined, null, Booleans, numbers, strings, arrays, objects.
    assert_eq!(ids("tags.x"), "dcabe");
    assert_eq!(ids("id DESC"), "edcba");
    assert_eq!(ids("-tags.floor"), "acdbe");
}

#[test]
fn groups_are_computed() {
    assert_eq!(
        rows(
            "SELECT tags.site AS site, COUNT() AS n, SUM(tags.floor) AS sum, AVG(tags.floor), \
              MIN(tags.floor) AS low, MAX(tags.floor) AS high, COUNT(tags.x) AS x \
              FROM devices GROUP BY tags.site"
        ),
        json!([
            { "site": "berlin", "n": 2, "sum": 5, "$1": 2.5, "low": 2, "high": 3, "x": 2 },
            { "site": "ulm", "n": 2, "sum": 1, "$1": 0.5, "low": 0, "high": 1, "x": 2 },
            { "n": 1, "sum": 2, "$1": 2, "low": 2, "high": 2, "x": 0 },
        ])
    );
    assert_eq!(
        rows(
            "SELECT tags.floor, COUNT(*) FROM devices GROUP BY tags.floor ORDER BY COUNT() DESC, tags.floor"
        ),
        json!([
            { "floor": 2, "$1": 2 }, { "floor": 0, "$1": 1 }, { "floor": 1, "$1": 1 },
            { "floor": 3, "$1": 1 },
        ])
    );
    assert_eq!(
        rows(
            "SELECT COUNT() AS n, tags.site AS s FROM devices GROUP BY tags.site, status ORDER BY n, s DESC"
        ),
        json!([{ "n": 1 }, { "n": 2, "s": "ulm" }, { "n": 2, "s": "berlin" }])
    );
    // Without GROUP BY there is one group, also of nothing.
    assert_eq!(
        rows(
            "SELECT COUNT() AS n, SUM(tags.floor) AS sum, MAX(tags.floor) AS high FROM devices \
              WHERE tags.site = 'rome'"
        ),
        json!([{ "n": 0 }])
    );
    // What is no number makes a sum undefined, and is the largest or smallest by its type.
    assert_eq!(
        rows("SELECT SUM(tags.x) AS sum, MIN(tags.x) AS low, MAX(tags.x) AS high FROM devices"),
        json!([{ "low": null, "high": "text" }])
    );
    assert_eq!(
        rows("SELECT COUNT() + 1 AS n FROM devices WHERE IS_DEFINED(tags.site) GROUP BY tags.site"),
        json!([{ "n": 3 }, { "n": 3 }])
    );
}

#[test]
fn positions_are_checked() {
    let query = Query::parse("SELECT * FROM devices ORDER BY tags.a").unwrap();
    for value in [
        json!(null),
        json!([]),
        json!(["a"]),
        json!(["a", []]),
        json!([1, [1]]),
        json!(["a", [1, 2]]),
        json!(["a", [{}]]),
        json!(["a", [[1, 2]]]),
        json!(["a", [[-1]]]),
        json!(["a", [[256]]]),
        json!(["a", [[]]]),
    ] {
        assert_eq!(Position::from_json(&value, &query), None, "{value}");
    }
    assert!(Position::from_json(&json!(["a", [[0]]]), &query).is_some());
}

#[test]
fn groups_are_bounded() {
    let query = Query::parse("SELECT COUNT() FROM devices GROUP BY tags.x").unwrap();
    let document = |x: Value| json!({ "tags": { "x": x } });
    let mut groups = Groups::new(&query);
    for x in 0..crate::limits::QUERY_GROUPS {
        groups.add(&document(x.into())).unwrap();
    }
    groups.add(&document(0.into())).unwrap();
    assert_eq!(groups.add(&document("x".into())), Err(TooManyGroups));
    let mut groups = Groups::new(&query);
    let large = (0..).map(|n| format!("{n}{}", "x".repeat(1 << 20)));
    let fitting = large
        .take_while(|x| groups.add(&document(x.as_str().into())).is_ok())
        .count();
    assert_eq!(fitting, 7);
}
