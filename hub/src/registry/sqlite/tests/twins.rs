//! Twins in the database: as long as their identities, and many reports at a time.

use super::*;

/// Reports properties; returns their new version.
async fn report(registry: &SqliteRegistry, id: &DeviceIdentity, patch: Value) -> Result<u64> {
    let patch = TwinPatch::parse(patch.to_string().as_bytes()).unwrap();
    registry.patch_reported(id, patch).await
}

#[tokio::test]
async fn twins_live_as_long_as_their_identities() {
    let folder = Folder::new();
    let registry = folder.open();
    let (id, of_module) = (device("d"), module("d", "m"));
    assert_eq!(registry.twin(&id).await.unwrap(), None);
    assert!(matches!(
        report(&registry, &id, json!({})).await,
        Err(RegistryError::NotFound(_))
    ));
    for id in [&id, &of_module] {
        let made = settings(Status::Enabled);
        registry.create(id, made).await.unwrap();
    }
    let first = registry.twin(&id).await.unwrap().unwrap();
    assert_eq!((first.version, first.reported.version), (1, 1));

    let patch = json!({ "a": { "b": 1, "c": "x" }, "d": true });
    assert_eq!(report(&registry, &id, patch).await.unwrap(), 2);
    let patch = json!({ "a": { "b": null }, "d": null });
    assert_eq!(report(&registry, &id, patch).await.unwrap(), 3);
    let patch = json!({ "m": 1 });
    assert_eq!(report(&registry, &of_module, patch).await.unwrap(), 2);
    let twin = folder.open().twin(&id).await.unwrap().unwrap();
    assert_eq!((twin.version, twin.desired.version), (3, 1));
    assert_ne!(twin.etag, first.etag);
    assert_eq!(
        twin.for_device()["reported"],
        json!({ "a": { "c": "x" }, "$version": 3 })
    );

    registry.delete(&id, IfMatch::Any).await.unwrap();
    for id in [&id, &of_module] {
        assert_eq!(registry.twin(id).await.unwrap(), None);
        registry
            .create(id, settings(Status::Enabled))
            .await
            .unwrap();
        let again = registry.twin(id).await.unwrap().unwrap();
        assert!(again.reported.properties.is_empty());
        assert_ne!(again.etag, first.etag, "another twin");
    }
}

#[tokio::test]
async fn a_twins_changes_are_none_of_its_identity() {
    let folder = Folder::new();
    let (hub, admin) = (folder.open(), folder.open());
    let id = device("d");
    let made = hub.create(&id, settings(Status::Enabled)).await.unwrap();
    let start = hub.changes_since(0).await.unwrap();
    report(&admin, &id, json!({ "a": 1 })).await.unwrap();
    assert_eq!(hub.changes_since(start.upto).await.unwrap(), start);
    assert_eq!(hub.identity(&id).await.unwrap(), Some(made));
}

#[tokio::test]
async fn a_twin_that_would_be_too_large_stays_as_it_was() {
    let folder = Folder::new();
    let registry = folder.open();
    let id = device("d");
    let made = settings(Status::Enabled);
    registry.create(&id, made).await.unwrap();
    let large = |key: &str| json!({ key: vec!["x".repeat(4000); 7] });
    report(&registry, &id, large("a")).await.unwrap();
    let before = registry.twin(&id).await.unwrap();
    assert!(matches!(
        report(&registry, &id, large("b")).await,
        Err(RegistryError::TwinRule(TwinRuleError::SectionTooLarge))
    ));
    assert_eq!(registry.twin(&id).await.unwrap(), before);
}

#[tokio::test]
async fn reports_at_the_same_time_are_all_kept() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    let id = device("d");
    one.create(&id, settings(Status::Enabled)).await.unwrap();
    let mut reports = tokio::task::JoinSet::new();
    for n in 0..20 {
        let registry = if n % 2 == 0 { &one } else { &other }.clone();
        let id = id.clone();
        reports.spawn(async move {
            let patch = json!({ format!("k{n}"): n });
            report(&registry, &id, patch).await.unwrap()
        });
    }
    let mut versions = reports.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, Vec::from_iter(2..22));
    let twin = one.twin(&id).await.unwrap().unwrap();
    assert_eq!(twin.reported.properties.len(), 20);
}

/// Frames of the write-ahead log that end a transaction.
fn transactions(folder: &Folder) -> usize {
    let mut path = folder.dir.database().unwrap().into_os_string();
    path.push("-wal");
    let log = std::fs::read(path).unwrap();
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let page = number(&log[8..12]) as usize;
    let frames = log[32..].chunks(24 + page);
    frames.filter(|frame| number(&frame[4..8]) > 0).count()
}

#[tokio::test]
async fn reports_that_wait_share_a_transaction_and_nothing_else() {
    let folder = Folder::new();
    let registry = folder.open();
    let devices: Vec<_> = (0..100).map(|n| device(&format!("d{n}"))).collect();
    for id in devices.iter().skip(1) {
        registry
            .create(id, settings(Status::Enabled))
            .await
            .unwrap();
    }
    let before = transactions(&folder);
    // Another process is at it: they all wait.
    let other = schema::connect(&folder.dir.database().unwrap()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let reports = devices.iter().map(|id| {
        let patch = if *id == devices[1] {
            json!({ "a": vec!["x".repeat(4000); 9] })
        } else {
            json!({ "a": 1 })
        };
        report(&registry, id, patch)
    });
    let dropped = report(&registry, &devices[2], json!({ "b": 2 }));
    let (results, ()) = tokio::join!(futures_util::future::join_all(reports), async {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(1), dropped).await;
        other.execute_batch("ROLLBACK").unwrap();
    });
    assert!(matches!(&results[0], Err(RegistryError::NotFound(id)) if *id == devices[0]));
    assert!(matches!(&results[1], Err(RegistryError::TwinRule(_))));
    for result in &results[2..] {
        assert_eq!(*result.as_ref().unwrap(), 2);
    }
    // The first, and all that came while it waited.
    assert!(transactions(&folder) - before <= 2);
    let last = report(&registry, &devices[1], json!({ "a": 1 })).await;
    assert_eq!(last.unwrap(), 2);
    let twin = registry.twin(&devices[2]).await.unwrap().unwrap();
    assert_eq!(
        twin.for_device()["reported"],
        json!({ "a": 1, "b": 2, "$version": 3 }),
        "who was dropped was written for all the same"
    );
}

#[tokio::test]
async fn a_registry_has_settled_when_all_is_stored() {
    let folder = Folder::new();
    let registry = folder.open();
    registry.settle().await;
    let id = device("d");
    registry
        .create(&id, settings(Status::Enabled))
        .await
        .unwrap();
    let other = schema::connect(&folder.dir.database().unwrap()).unwrap();
    for version in 2..5 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let at_once = std::time::Duration::ZERO;
        let patch = report(&registry, &id, json!({ "a": version }));
        assert!(tokio::time::timeout(at_once, patch).await.is_err());
        let early = tokio::time::timeout(at_once, registry.settle()).await;
        assert!(early.is_err(), "another process is at it");
        other.execute_batch("ROLLBACK").unwrap();
        registry.settle().await;
        let twin = registry.twin(&id).await.unwrap().unwrap();
        assert_eq!(twin.reported.version, version);
    }
}

#[tokio::test]
async fn a_database_from_before_twins_gets_them() {
    let folder = Folder::new();
    let path = folder.dir.database().unwrap();
    let mut old = schema::connect(&path).unwrap();
    schema::migrate_to(&mut old, 1).unwrap();
    let keys = |connection: &Connection| {
        let sql = "SELECT group_concat(primary_key || secondary_key) FROM policies";
        connection.query_row(sql, [], |row| row.get::<_, String>(0))
    };
    let made = keys(&old).unwrap();
    old.execute_batch(
        "INSERT INTO identities VALUES ('d', '', '637', 'ZQ==', 1, NULL, NULL, 'none', NULL, NULL)",
    )
    .unwrap();
    let registry = folder.open();
    assert_eq!(keys(&old).unwrap(), made);
    let id = device("d");
    let found = registry.identity(&id).await.unwrap().unwrap();
    assert_eq!(found.generation_id, "637");
    assert_eq!(report(&registry, &id, json!({ "a": 1 })).await.unwrap(), 2);
}
