//! What is kept of an identity beside its credentials, also in a database of before.

use super::*;
use crate::registry::Activity;

#[tokio::test]
async fn a_database_of_before_opens_with_all_that_is_in_it() {
    let folder = Folder::new();
    let path = folder.dir.database().unwrap();
    let mut old = schema::connect(&path).unwrap();
    schema::migrate_to(&mut old, 2).unwrap();
    old.execute_batch(
        "INSERT INTO identities VALUES \
         ('d', '', '637', 'ZQ==', 0, 'lost', 1700000000, 'none', NULL, NULL), \
         ('d', 'm', '638', 'Zg==', 1, NULL, NULL, 'certificateAuthority', NULL, NULL); \
         INSERT INTO twins VALUES ('d', '', 5, 'Zw==', '{}', '{}', 1, '{\"a\":1}', '{}', 4)",
    )
    .unwrap();
    drop(old);
    let registry = folder.open();
    let found = registry.identity(&device("d")).await.unwrap().unwrap();
    assert_eq!(
        (found.status, found.generation_id.as_str()),
        (Status::Disabled, "637")
    );
    assert_eq!(found.status_reason.as_deref(), Some("lost"));
    assert_eq!(found.device_scope, None);
    assert!(!found.iot_edge && found.parent_scopes.is_empty() && found.managed_by.is_none());
    assert_eq!(found.activity, Activity::default());
    let twin = registry.twin(&device("d")).await.unwrap().unwrap();
    assert_eq!((twin.version, twin.reported.version), (5, 4));
    let mut changed = registry.identity(&module("d", "m")).await.unwrap().unwrap();
    changed.managed_by = Some("x".to_owned());
    let changed = registry.update(&changed.id, changed.settings(), IfMatch::Any);
    assert_eq!(changed.await.unwrap().managed_by.as_deref(), Some("x"));
}

#[tokio::test]
async fn activity_is_of_one_generation_and_no_change() {
    let folder = Folder::new();
    let registry = folder.open();
    let start = registry.changes_since(0).await.unwrap().upto;
    let id = device("d");
    let made = registry
        .create(&id, settings(Status::Enabled))
        .await
        .unwrap();
    let record = |generation_id: &str, last_activity| ActivityRecord {
        id: id.clone(),
        generation_id: generation_id.to_owned(),
        activity: Activity {
            connected: true,
            connection_state_updated: Some(7),
            last_activity: Some(last_activity),
        },
    };
    let first = record(&made.generation_id, 8);
    let stranger = ActivityRecord {
        id: device("nobody"),
        ..first.clone()
    };
    let stored = async |records| registry.record_activity(records).await.unwrap();
    stored(vec![stranger, first.clone()]).await;
    stored(vec![record("1", 9)]).await;
    let found = folder.open().identity(&id).await.unwrap().unwrap();
    assert_eq!(found.activity, first.activity);
    assert_eq!(found.etag, made.etag);
    let changes = registry.changes_since(start).await.unwrap();
    assert_eq!(changes.identities, [], "nobody need look at its sessions");
    registry.delete(&id, IfMatch::Any).await.unwrap();
    let again = registry
        .create(&id, settings(Status::Enabled))
        .await
        .unwrap();
    assert_eq!(again.activity, Activity::default());
}
