//! Rows that another hand has damaged: the others are found all the same.

use super::*;

#[tokio::test]
async fn lists_go_on_behind_a_cursor_also_past_what_is_damaged() {
    let folder = Folder::new();
    let registry = folder.open();
    let ids = ["A", "a", "a.b", "b", "c", "~"];
    for name in ids.map(|name| name.replace('~', "x'y")) {
        let settings = settings(Status::Enabled);
        registry
            .create(&device(&name), settings.clone())
            .await
            .unwrap();
        registry
            .create(&module("A", &name), settings)
            .await
            .unwrap();
    }
    // Two in a row: a page of two is then empty, and not the last one.
    for name in ["a", "a.b"] {
        let statement = "UPDATE identities SET primary_credential = '?' WHERE ";
        damage(&registry, &format!("{statement} device = '{name}'"));
        damage(&registry, &format!("{statement} module = '{name}'"));
    }
    let whole = ["A", "b", "c", "x'y"];
    for limit in 1..8 {
        for of in [None, Some(device("A").device)] {
            let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
            loop {
                let page = match &of {
                    None => registry.devices(after.as_ref(), limit).await,
                    Some(device) => registry.modules(device, after.as_ref(), limit).await,
                };
                let page = page.unwrap();
                assert!(page.identities.len() <= limit);
                seen.extend(page.identities.into_iter().map(|i| match i.id.module {
                    Some(module) => module.to_string(),
                    None => i.id.device.to_string(),
                }));
                pages += 1;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, whole, "in pages of {limit}");
            assert_eq!(pages, ids.len() / limit + 1);
        }
    }
    let behind = registry.devices(None, 2).await.unwrap().next;
    registry.delete(&device("a"), IfMatch::Any).await.unwrap();
    let page = registry.devices(behind.as_ref(), 9).await.unwrap();
    assert_eq!(page.identities.len(), 3, "its place is there without it");
}

fn damage(registry: &SqliteRegistry, statement: &str) {
    let changed = registry.writer.lock().unwrap().execute(statement, []);
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test]
async fn one_damaged_identity_does_not_hide_the_others() {
    let folder = Folder::new();
    let registry = folder.open();
    for name in ["a", "b", "c"] {
        let settings = settings(Status::Enabled);
        registry
            .create(&device(name), settings.clone())
            .await
            .unwrap();
        registry.create(&module("a", name), settings).await.unwrap();
    }
    let point = registry.changes_since(0).await.unwrap().upto;
    damage(
        &registry,
        "UPDATE identities SET primary_credential = '?' WHERE device = 'b'",
    );
    damage(
        &registry,
        "UPDATE identities SET authentication = '?' WHERE device = 'a' AND module = 'c'",
    );
    damage(
        &registry,
        "UPDATE policies SET primary_key = '?' WHERE name = 'device'",
    );
    let names =
        |found: Vec<Identity>| -> Vec<_> { found.into_iter().map(|i| i.id.to_string()).collect() };
    // Twice: what is reported once is left out every time.
    for _ in 0..2 {
        assert_eq!(
            names(registry.devices(None, 10).await.unwrap().identities),
            ["a", "c"]
        );
        let of_a = registry.modules(&device("a").device, None, 9).await;
        let modules = of_a.unwrap().identities;
        assert_eq!(names(modules), ["a/a", "a/b"]);
        assert_eq!(registry.policies().await.unwrap().len(), 4);
    }
    assert_eq!(registry.statistics().await.unwrap().total, 3);
    let changed = registry.changes_since(point).await.unwrap().identities;
    assert_eq!(changed, [device("b"), module("a", "c")]);

    let error = registry.identity(&device("b")).await.unwrap_err();
    assert!(error.to_string().contains("a key of b"), "{error}");
    let error = registry.policy("device").await.unwrap_err();
    assert!(error.to_string().contains("\"device\""), "{error}");

    // New keys mend it, and what is damaged can be deleted.
    let error = registry
        .create(&device("b"), settings(Status::Enabled))
        .await;
    assert!(matches!(error, Err(RegistryError::AlreadyExists(_))));
    registry
        .update(&device("b"), settings(Status::Enabled), IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(
        names(registry.devices(None, 10).await.unwrap().identities),
        ["a", "b", "c"]
    );
    registry
        .delete(&module("a", "c"), IfMatch::Any)
        .await
        .unwrap();
    let of_a = registry.modules(&device("a").device, None, 9).await;
    let modules = of_a.unwrap().identities;
    assert_eq!(modules.len(), 2);
}
