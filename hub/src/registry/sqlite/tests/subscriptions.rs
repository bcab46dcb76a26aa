//! What is kept of subscriptions, and when it goes.

use super::*;

fn filters(names: &[&str]) -> Subscriptions {
    names.iter().map(|name| ((*name).to_owned(), 1)).collect()
}

#[tokio::test]
async fn they_are_of_one_generation_and_no_change() {
    let folder = Folder::new();
    let registry = folder.open();
    let id = module("d", "m");
    for id in [&device("d"), &id] {
        registry
            .create(id, settings(Status::Enabled))
            .await
            .unwrap();
    }
    let of = |generation: String| {
        let (registry, id) = (registry.clone(), id.clone());
        async move { registry.subscriptions(&id, &generation).await.unwrap() }
    };
    let first = registry.identity(&id).await.unwrap().unwrap();
    let generation = first.generation_id.clone();
    let point = registry.changes_since(0).await.unwrap().upto;
    for wanted in [filters(&["a", "b"]), filters(&["b"])] {
        let kept = registry.keep_subscriptions(&id, &generation, wanted.clone());
        kept.await.unwrap();
        assert_eq!(of(generation.clone()).await, wanted);
    }
    assert_eq!(of("1".to_owned()).await, filters(&[]));
    assert_eq!(registry.changes_since(point).await.unwrap().upto, point);
    // Another key is no other identity.
    let update = registry.update(&id, settings(Status::Enabled), IfMatch::Any);
    update.await.unwrap();
    let again = folder.open();
    let kept = again.subscriptions(&id, &generation).await.unwrap();
    assert_eq!(kept, filters(&["b"]));

    registry.delete(&device("d"), IfMatch::Any).await.unwrap();
    assert_eq!(of(generation.clone()).await, filters(&[]));
    let late = registry.keep_subscriptions(&id, &generation, filters(&["late"]));
    late.await.unwrap();
    for id in [&device("d"), &id] {
        registry
            .create(id, settings(Status::Enabled))
            .await
            .unwrap();
    }
    let late = registry.keep_subscriptions(&id, &generation, filters(&["late"]));
    late.await.unwrap();
    let second = registry.identity(&id).await.unwrap().unwrap();
    assert_eq!(of(second.generation_id).await, filters(&[]));
    assert_eq!(of(generation).await, filters(&[]));
}
