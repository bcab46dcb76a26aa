//! Queries over a real registry, as a client sees them.

mod hub;
mod index;
mod jobs;
mod speed;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use self::hub::{Hub, Presence};
use super::*;
use crate::documents;
use crate::registry::{Identities as _, IfMatch};

#[tokio::test]
async fn results_have_their_types() {
    let hub = Hub::with_devices().await;
    assert_eq!(
        hub.rows("SELECT * FROM devices").await,
        hub.documents(false).await
    );
    assert_eq!(
        hub.rows("SELECT * FROM devices.modules").await,
        hub.documents(true).await
    );
    for (text, item_type, count) in [
        ("SELECT * FROM devices", "Twin", 10),
        ("select * from devices.modules", "Twin", 5),
        ("SELECT TOP 3 * FROM devices", "Twin", 3),
        ("SELECT * FROM devices WHERE deviceId = 'x'", "Twin", 0),
        ("SELECT deviceId FROM devices", "Raw", 10),
        ("SELECT COUNT() FROM devices", "Raw", 1),
        ("SELECT * FROM devices.jobs", "DeviceJob", 0),
        (
            "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j' ORDER BY deviceId",
            "DeviceJob",
            0,
        ),
    ] {
        let (rows, is, next) = hub.page(text, 100, None).await.unwrap();
        assert_eq!(
            (rows.len(), is.as_str(), next),
            (count, item_type, None),
            "{text}"
        );
    }
    for (text, rows) in [
        (
            "SELECT deviceId AS id FROM devices WHERE connectionState = 'Connected' AND tags.odd",
            json!([{"id":"d5"},{"id":"d7"}]),
        ),
        (
            "SELECT deviceId AS id, statusReason FROM devices WHERE status = 'disabled'",
            json!([{"id":"d3","statusReason":"broken"}]),
        ),
        (
            "SELECT deviceId AS id FROM devices WHERE NOT IS_DEFINED(tags.n)",
            json!([{"id":"d9"}]),
        ),
        (
            "SELECT moduleId, deviceId FROM devices.modules WHERE devices.deviceId IN ['d2','d3']",
            json!([{"moduleId":"m","deviceId":"d2"}]),
        ),
        (
            "SELECT tags.site AS site, COUNT() AS n FROM devices GROUP BY tags.site",
            json!([{"site":"berlin","n":3},{"site":"rome","n":3},{"site":"ulm","n":3},{"n":1}]),
        ),
        (
            "SELECT TOP 2 tags.n FROM devices ORDER BY tags.n DESC",
            json!([{"n":8},{"n":7}]),
        ),
        (
            "SELECT TOP 5 deviceId AS id FROM devices WHERE tags.site IN ['ulm','rome'] ORDER BY id DESC",
            json!([{"id":"d8"},{"id":"d7"},{"id":"d5"},{"id":"d4"},{"id":"d2"}]),
        ),
        (
            "SELECT SUM(properties.reported.n) AS n, MAX(properties.desired.$version) AS v FROM devices",
            json!([{"n":36,"v":2}]),
        ),
        (
            "SELECT properties.desired.$metadata.x.$lastUpdated FROM devices WHERE deviceId = 'd9'",
            json!([{}]),
        ),
        (
            "SELECT COUNT() AS n FROM devices.modules WHERE tags.site = 'berlin'",
            json!([{"n":5}]),
        ),
        (
            "SELECT COUNT() AS n FROM devices WHERE tags.site = 'berlin'",
            json!([{"n":3}]),
        ),
    ] {
        assert_eq!(Value::from(hub.rows(text).await), rows, "{text}");
    }
}

#[tokio::test]
async fn pages_hold_while_devices_come_and_go() {
    let hub = Hub::with_devices().await;
    for order in ["", " ORDER BY tags.n DESC"] {
        let text = format!("SELECT deviceId AS id FROM devices WHERE status = 'enabled'{order}");
        let (first, _, next) = hub.page(&text, 4, None).await.unwrap();
        // What was shown goes, and others come before and behind that place.
        let shown = |rows: &[Value]| -> BTreeSet<String> {
            rows.iter()
                .map(|row| row["id"].as_str().unwrap().to_owned())
                .collect()
        };
        for id in shown(&first) {
            let id = documents::id(&id, None).unwrap();
            hub.registry.delete(&id, IfMatch::Any).await.unwrap();
        }
        let (a, z) = (hub.create("a", None).await, hub.create("z", None).await);
        let (mut rest, mut after) = (Vec::new(), next);
        while let Some(next) = after {
            let (page, _, next) = hub.page(&text, 2, Some(&next)).await.unwrap();
            rest.extend(page);
            after = next;
        }
        let ids = shown(&rest);
        assert_eq!(ids.len(), rest.len(), "none twice");
        assert!(ids.is_disjoint(&shown(&first)));
        assert!(ids.contains("z"));
        for id in [a, z] {
            hub.registry.delete(&id, IfMatch::Any).await.unwrap();
        }
        let all = shown(
            &hub.rows("SELECT deviceId AS id FROM devices WHERE status='enabled'")
                .await,
        );
        assert!(all.is_subset(&ids));
        for id in shown(&first) {
            hub.create(&id, None).await;
        }
    }
}

#[tokio::test]
async fn continuations_are_checked() {
    let hub = Hub::with_devices().await;
    let (text, other) = ("SELECT * FROM devices", "SELECT  * FROM devices");
    let next = hub.page(text, 1, None).await.unwrap().2.unwrap();
    for (query, token) in [
        (other, next.as_str()),
        (text, "x"),
        (text, "AAAA"),
        (text, &next[1..]),
        (text, &format!("{next}A")),
    ] {
        let refusal = hub.page(query, 1, Some(token)).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::ARGUMENT_INVALID, "{token}");
    }
    // Any size is one, and any number of rows of TOP is left over.
    for (size, count) in [
        ("0", 10),
        ("-1", 10),
        ("1000", 10),
        (" 3 ", 3),
        ("99999999999", 10),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(PAGE_SIZE, size.parse().unwrap());
        let body = json!({ "query": text }).to_string();
        let (rows, ..) = hub.ask(&headers, body.as_bytes()).await.unwrap();
        assert_eq!(rows.len(), count, "{size}");
    }
    let mut headers = HeaderMap::new();
    headers.insert(PAGE_SIZE, "ten".parse().unwrap());
    let refusal = hub
        .ask(&headers, br#"{"query":"SELECT * FROM devices"}"#)
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::ARGUMENT_INVALID);
    assert_eq!(hub.rows("SELECT TOP 4 * FROM devices").await.len(), 4);
}

#[tokio::test]
async fn what_is_no_query_is_refused() {
    let hub = Hub::with_devices().await;
    for body in [
        "",
        "{",
        "[]",
        "\"x\"",
        "{}",
        r#"{"query":1}"#,
        r#"{"query":null}"#,
    ] {
        assert_eq!(hub.refused(body.as_bytes()).await.0 / 1000, 400, "{body}");
    }
    let (code, message) = hub
        .refused(br#"{"query":"SELECT * FROM devices WHERE x = 1"}"#)
        .await;
    assert_eq!(code, 400_004);
    assert_eq!(
        message,
        "the query is invalid at column 29: there is no property `x`"
    );
    for injection in [
        "SELECT * FROM devices WHERE deviceId = '' OR 1=1; DROP TABLE twins --",
        "SELECT * FROM sqlite_master",
        "SELECT primary_key FROM policies",
        "SELECT symmetricKey FROM devices",
        "SELECT * FROM devices WHERE deviceId = (SELECT name FROM policies)",
    ] {
        let body = json!({ "query": injection }).to_string();
        assert_eq!(hub.refused(body.as_bytes()).await.0, 400_004, "{injection}");
    }
    // What is text stays text, in the index and in the list of ids as well.
    for text in [
        "x' OR '1'='1",
        "\\\"] --",
        "d1\\\",\\\"d2",
        "'",
        "%",
        "é\\u0000",
    ] {
        for property in ["deviceId", "tags.site", "tags.[[a'] OR 1=1 --]]"] {
            let text = text.replace('\'', "\\'");
            let text = format!("SELECT * FROM devices WHERE {property} = '{text}'");
            assert_eq!(hub.rows(&text).await, [] as [Value; 0], "{text}");
        }
    }
}

#[tokio::test]
async fn a_page_of_large_twins_is_shorter() {
    let hub = Hub::new();
    let large = json!({ "properties": { "desired": { "x": vec!["y".repeat(4_000); 7] } } });
    for n in 0..180 {
        let device = hub.create(&format!("d{n:03}"), None).await;
        hub.write(&device, large.clone()).await;
    }
    let (rows, _, next) = hub
        .page("SELECT TOP 160 * FROM devices", 100, None)
        .await
        .unwrap();
    assert_eq!((rows.len(), next.is_some()), (100, true));
    let text = "SELECT TOP 170 properties, properties.desired AS a, properties.desired.x AS b, \
        properties AS c, properties AS d FROM devices";
    let (rows, _, next) = hub.page(text, 100, None).await.unwrap();
    assert!(rows.len() < 40 && next.is_some(), "{}", rows.len());
    assert_eq!(hub.pages(text, 100).await.len(), 170);
}

/// What takes too long is answered as far as it has come, unless it needs all.
#[tokio::test]
async fn a_page_ends_with_its_time() {
    let hub = Hub::new();
    for n in 0..70 {
        hub.create(&format!("d{n:02}"), None).await;
    }
    let page = async |text: &str, after, time| {
        let query = Query::parse(text).unwrap();
        let request = Request {
            query,
            after,
            limit: 100,
        };
        let rows = twins::page(&*hub.registry, &Presence, request, time).await;
        rows.map(|rows| (rows.count, rows.next))
    };
    let (none, long) = (Duration::ZERO, limits::QUERY_TIME);
    for (condition, found) in [
        ("STARTSWITH(deviceId, 'd')", [64, 6]),
        ("tags.x > 1", [0, 0]),
    ] {
        let text = format!("SELECT * FROM devices WHERE {condition}");
        let (count, next) = page(&text, None, none).await.unwrap();
        assert_eq!(count, found[0]);
        let next = next.unwrap();
        assert_eq!(next.tie(), "d63");
        let rest = page(&text, Some(next), long).await.unwrap();
        assert_eq!(rest, (found[1], None));
    }
    for text in [
        "SELECT COUNT() FROM devices",
        "SELECT * FROM devices ORDER BY etag",
    ] {
        let refusal = page(text, None, none).await.unwrap_err();
        assert_eq!(refusal.code, ErrorCode::GENERIC_TIMEOUT);
        assert!(page(text, None, long).await.unwrap().0 > 0);
    }
}
