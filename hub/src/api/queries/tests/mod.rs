//! Queries over a real registry, as a client sees them.

mod index;
mod jobs;
mod speed;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use common::identity::DeviceIdentity;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::*;
use crate::data_dir::DataDir;
use crate::documents;
use crate::registry::{
    Activity, Authentication, Identities as _, Identity, IdentitySettings, IfMatch, SqliteRegistry,
    Status, TwinChange, TwinPatch, Twins as _,
};

/// Devices whose id ends with a digit above 4 are connected.
#[derive(Clone)]
struct Presence;

impl Connections for Presence {
    fn activity(&self, identity: &Identity) -> Activity {
        let last = identity.id.device.as_str().bytes().last();
        Activity {
            connected: last.is_some_and(|last| (b'5'..=b'9').contains(&last)),
            last_activity: Some(1_700_000_000_000_000),
            ..identity.activity
        }
    }
    fn connected_devices(&self) -> u64 {
        0
    }
}

struct Hub {
    folder: tempfile::TempDir,
    registry: Arc<SqliteRegistry>,
}

/// What a client gets: the rows, the type of the items, and where the result goes on.
type Got = (Vec<Value>, String, Option<String>);

impl Hub {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("hub-data")).unwrap();
        Self {
            registry: Arc::new(SqliteRegistry::open(&dir).unwrap()),
            folder,
        }
    }

    async fn create(&self, device: &str, module: Option<&str>) -> DeviceIdentity {
        let id = documents::id(device, module).unwrap();
        let mut settings = IdentitySettings::new(Authentication::random_keys());
        if device.ends_with('3') {
            settings.status = Status::Disabled;
            settings.status_reason = Some("broken".to_owned());
        }
        self.registry.create(&id, settings).await.unwrap();
        id
    }

    async fn write(&self, id: &DeviceIdentity, document: Value) {
        let change = TwinChange::from_document(&document, false).unwrap();
        let done = self
            .registry
            .change_twin(id, change, IfMatch::Any, Box::new(|_| {}));
        done.await.unwrap();
    }

    async fn report(&self, id: &DeviceIdentity, patch: Value) {
        let patch = TwinPatch::parse(patch.to_string().as_bytes()).unwrap();
        self.registry.patch_reported(id, patch).await.unwrap();
    }

    /// Ten devices, every second one with a module.
    async fn with_devices() -> Self {
        let hub = Self::new();
        for n in 0..10 {
            let device = hub.create(&format!("d{n}"), None).await;
            if n != 9 {
                let site = ["berlin", "ulm", "rome"][n % 3];
                let tags =
                    json!({ "site": site, "n": n, "odd": n % 2 == 1, "a": { "b-c": n % 4 } });
                let desired = json!({ "x": { "y": n }, "list": [n] });
                hub.write(
                    &device,
                    json!({ "tags": tags, "properties": { "desired": desired } }),
                )
                .await;
                hub.report(&device, json!({ "ok": true, "n": n })).await;
            }
            if n % 2 == 0 {
                let module = hub.create(&format!("d{n}"), Some("m")).await;
                hub.write(&module, json!({ "tags": { "n": n, "site": "berlin" } }))
                    .await;
            }
        }
        hub
    }

    async fn page(&self, text: &str, size: usize, after: Option<&str>) -> Result<Got, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(PAGE_SIZE, size.into());
        if let Some(after) = after {
            headers.insert(CONTINUATION, after.parse().unwrap());
        }
        self.ask(&headers, json!({ "query": text }).to_string().as_bytes())
            .await
    }

    async fn ask(&self, headers: &HeaderMap, body: &[u8]) -> Result<Got, Refusal> {
        let answer = handle(&Presence, &*self.registry, headers, body).await?;
        let text = |name| {
            let value = answer.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        let (item_type, next) = (text(ITEM_TYPE).unwrap(), text(CONTINUATION));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Ok((serde_json::from_slice(&body).unwrap(), item_type, next))
    }

    /// The whole result, read in pages of this size.
    async fn pages(&self, text: &str, size: usize) -> Vec<Value> {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let (page, _, next) = self.page(text, size, after.as_deref()).await.unwrap();
            assert!(
                page.len() <= size && (next.is_none() || !page.is_empty()),
                "{text}"
            );
            rows.extend(page);
            match next {
                Some(next) => after = Some(next),
                None => return rows,
            }
        }
    }

    async fn rows(&self, text: &str) -> Vec<Value> {
        let rows = self.pages(text, 100).await;
        for size in [1, 2, 3, 7] {
            assert_eq!(self.pages(text, size).await, rows, "{text} by {size}");
        }
        rows
    }

    async fn refused(&self, body: &[u8]) -> (u32, String) {
        let refusal = self.ask(&HeaderMap::new(), body).await.unwrap_err();
        (refusal.code.number, refusal.message)
    }

    /// Every twin of the source, as `GET /twins` shows it.
    async fn documents(&self, has_module: bool) -> Vec<Value> {
        let mut documents = Vec::new();
        for n in 0..10 {
            let id = documents::id(&format!("d{n}"), has_module.then_some("m")).unwrap();
            if let Some(whole) = self.registry.device_twin(&id).await.unwrap() {
                let activity = Presence.activity(&whole.identity);
                documents.push(documents::twin::write(&whole, activity));
            }
        }
        documents
    }
}

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
