//! What the index of tags leaves out, and what is read of each twin, change no answer.

use proptest::prelude::*;

use super::*;
use crate::query::Condition;

#[tokio::test]
async fn the_index_follows_the_tags() {
    let hub = Hub::new();
    let device = hub.create("d", None).await;
    let count = async |condition: &str| {
        let text = format!("SELECT * FROM devices WHERE {condition}");
        hub.rows(&text).await.len()
    };
    hub.write(&device, json!({ "tags": { "a": "x", "b": { "c": 1.0 } } }))
        .await;
    assert_eq!(
        (count("tags.a = 'x'").await, count("tags.b.c = 1").await),
        (1, 1)
    );
    hub.write(&device, json!({ "tags": { "a": "y", "b": null } }))
        .await;
    hub.report(&device, json!({ "n": 1 })).await;
    assert_eq!(
        (count("tags.a = 'x'").await, count("tags.b.c = 1").await),
        (0, 0)
    );
    assert_eq!(count("tags.a = 'y' OR tags.a = 'x'").await, 1);
    let long = "é".repeat(2_000);
    hub.write(&device, json!({ "tags": { "long": long } }))
        .await;
    assert_eq!(count(&format!("tags.long = '{long}'")).await, 1);
    assert_eq!(count(&format!("tags.long = '{long}x'")).await, 0);
    hub.registry.delete(&device, IfMatch::Any).await.unwrap();
    hub.create("d", None).await;
    assert_eq!(count("tags.a = 'y'").await, 0);
}

/// Conditions with everything that narrows a search, and much that does not.
fn conditions() -> impl Strategy<Value = String> {
    let leaf = proptest::sample::select(vec![
        "deviceId = 'd2'",
        "deviceId IN ['d1','d5','x']",
        "tags.site = 'berlin'",
        "tags.site IN ['ulm','rome']",
        "'ulm' = tags.site",
        "tags.n = 3",
        "tags.odd = true",
        "tags.a.[[b-c]] = 2",
        "tags.a.[[b-c]] IN [0, 3]",
        "tags.n > 4",
        "tags.site != 'ulm'",
        "tags.n NIN [1, 2]",
        "IS_DEFINED(tags.a)",
        "IS_OBJECT(tags)",
        "status = 'enabled'",
        "connectionState = 'Connected'",
        "properties.reported.n % 3 = 1",
        "properties.desired.x.y = properties.reported.n",
        "IS_ARRAY(properties.desired.list)",
        "properties.reported.$version > 1",
        "IS_STRING(properties.reported.$metadata.n.$lastUpdated)",
        "version = 3",
        "IS_DEFINED(statusReason)",
        "capabilities.iotEdge = false",
        "authenticationType = 'sas'",
        "STARTSWITH(etag, 'A') OR LENGTH(deviceEtag) > 3",
    ]);
    leaf.prop_map(str::to_owned)
        .prop_recursive(3, 10, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
                inner.prop_map(|a| format!("NOT {a}")),
            ]
        })
}

/// What the index finds, and what is read of a twin, are enough: the answer is that of the
/// condition on all whole documents.
#[test]
fn narrowed_and_partial_reading_change_no_answer() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hub = runtime.block_on(Hub::with_devices());
    let sources = [false, true].map(|has_module| runtime.block_on(hub.documents(has_module)));
    proptest!(ProptestConfig { cases: 48, ..ProptestConfig::default() }, |(text in conditions(), size in 1_usize..12)| {
        let condition = Condition::parse(&text).unwrap();
        for (source, documents) in ["devices", "devices.modules"].iter().zip(&sources) {
            let whole: Vec<Value> = documents.iter().filter(|d| condition.matches(d)).cloned().collect();
            let query = format!("SELECT * FROM {source} WHERE {text}");
            let found = runtime.block_on(hub.pages(&query, size));
            prop_assert_eq!(&found, &whole, "{}", query);
            let query = format!("SELECT COUNT() AS n FROM {source} WHERE {text}");
            let counted = runtime.block_on(hub.pages(&query, size));
            prop_assert_eq!(&counted[0]["n"], whole.len(), "{}", query);
        }
    });
}
