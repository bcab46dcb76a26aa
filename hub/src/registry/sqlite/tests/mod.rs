//! The registry on a real database in a temporary folder; two [`SqliteRegistry`] on
//! one folder stand for two processes.

mod members;
mod subscriptions;
mod twins;

use common::identity::DeviceId;
use serde_json::{Value, json};

use super::*;
use crate::registry::{
    ActivityRecord, Authentication, ChangeLog as _, Identities as _, Identity, IdentitySettings,
    IfMatch, Policies as _, Sessions as _, Statistics, Status, Subscriptions, Thumbprint,
    TwinPatch, TwinRuleError, Twins as _,
};

struct Folder {
    _temporary: tempfile::TempDir,
    dir: DataDir,
}

impl Folder {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&temporary.path().join("hub-data")).unwrap();
        Self {
            _temporary: temporary,
            dir,
        }
    }

    fn open(&self) -> SqliteRegistry {
        SqliteRegistry::open(&self.dir).unwrap()
    }
}

fn device(name: &str) -> DeviceIdentity {
    DeviceIdentity::of_device(DeviceId::parse(name).unwrap())
}

fn module(device: &str, name: &str) -> DeviceIdentity {
    DeviceIdentity::of_module(
        DeviceId::parse(device).unwrap(),
        ModuleId::parse(name).unwrap(),
    )
}

fn settings(status: Status) -> IdentitySettings {
    IdentitySettings {
        status,
        ..IdentitySettings::new(Authentication::random_keys())
    }
}

#[tokio::test]
async fn identities_live() {
    let folder = Folder::new();
    let registry = folder.open();
    let id = device("MyDevice");
    let wanted = settings(Status::Enabled);
    let created = registry.create(&id, wanted.clone()).await.unwrap();
    assert_eq!(created.authentication, wanted.authentication);
    assert_eq!(created.status_updated, None);
    assert!(created.generation_id.bytes().all(|b| b.is_ascii_digit()));
    assert!(STANDARD.decode(&created.etag).is_ok());
    assert_eq!(
        folder.open().identity(&id).await.unwrap(),
        Some(created.clone())
    );
    assert_eq!(registry.identity(&device("mydevice")).await.unwrap(), None);
    assert!(matches!(
        registry.create(&id, wanted).await,
        Err(RegistryError::AlreadyExists(_))
    ));

    let mut wanted = settings(Status::Disabled);
    wanted.status_reason = Some("lost".to_owned());
    wanted.authentication = Authentication::SelfSigned {
        primary: Thumbprint::parse(&"a".repeat(40)),
        secondary: None,
    };
    let stale = IfMatch::Etag("c3RhbGU=".to_owned());
    assert!(matches!(
        registry.update(&id, wanted.clone(), stale.clone()).await,
        Err(RegistryError::PreconditionFailed(_))
    ));
    let fresh = IfMatch::Etag(created.etag.clone());
    let updated = registry.update(&id, wanted.clone(), fresh).await.unwrap();
    assert_ne!(updated.etag, created.etag);
    assert_eq!(updated.generation_id, created.generation_id);
    assert_eq!(updated.authentication, wanted.authentication);
    assert_eq!(updated.status, Status::Disabled);
    assert!(updated.status_updated.is_some());
    assert_eq!(updated.status_reason.as_deref(), Some("lost"));
    assert_eq!(
        registry.statistics().await.unwrap(),
        Statistics {
            total: 1,
            enabled: 0
        }
    );

    assert!(matches!(
        registry.delete(&id, stale).await,
        Err(RegistryError::PreconditionFailed(_))
    ));
    registry.delete(&id, IfMatch::Any).await.unwrap();
    assert!(matches!(
        registry.delete(&id, IfMatch::Any).await,
        Err(RegistryError::NotFound(_))
    ));
    let again = registry
        .create(&id, settings(Status::Enabled))
        .await
        .unwrap();
    assert_ne!(again.generation_id, created.generation_id);
}

#[tokio::test]
async fn modules_go_with_their_device() {
    let folder = Folder::new();
    let registry = folder.open();
    let id = module("d", "m");
    let Err(RegistryError::NotFound(missing)) =
        registry.create(&id, settings(Status::Enabled)).await
    else {
        panic!("a module without a device")
    };
    assert_eq!(missing, device("d"));
    for id in [device("d"), module("d", "n"), id.clone(), device("e")] {
        registry
            .create(&id, settings(Status::Enabled))
            .await
            .unwrap();
    }
    let names = |found: Vec<Identity>| found.iter().map(|i| i.id.to_string()).collect::<Vec<_>>();
    assert_eq!(
        names(
            registry
                .modules(&id.device, None, 9)
                .await
                .unwrap()
                .identities
        ),
        ["d/m", "d/n"]
    );
    assert_eq!(
        names(registry.devices(None, 9).await.unwrap().identities),
        ["d", "e"]
    );
    assert_eq!(
        names(registry.devices(None, 1).await.unwrap().identities),
        ["d"]
    );

    registry
        .update(&device("d"), settings(Status::Disabled), IfMatch::Any)
        .await
        .unwrap();
    let found = registry
        .update(&id, settings(Status::Enabled), IfMatch::Any)
        .await
        .unwrap();
    assert_eq!(
        found.status,
        Status::Disabled,
        "a module has its device's status"
    );
    registry.delete(&device("d"), IfMatch::Any).await.unwrap();
    assert_eq!(registry.identity(&id).await.unwrap(), None);
    assert!(
        registry
            .modules(&id.device, None, 9)
            .await
            .unwrap()
            .identities
            .is_empty()
    );
}

#[tokio::test]
async fn changes_of_another_process_are_seen() {
    let folder = Folder::new();
    let (hub, admin) = (folder.open(), folder.open());
    let start = hub.changes_since(0).await.unwrap();
    assert!(start.upto > 0 && start.identities.is_empty() && !start.gap);
    for id in [device("d"), device("e"), module("d", "m")] {
        admin.create(&id, settings(Status::Enabled)).await.unwrap();
    }
    assert_eq!(hub.changes_since(start.upto).await.unwrap(), start);
    admin
        .update(&device("d"), settings(Status::Disabled), IfMatch::Any)
        .await
        .unwrap();
    let first = hub.changes_since(start.upto).await.unwrap();
    assert_eq!(first.identities, [device("d")]);
    assert!(!first.gap && first.upto > start.upto);
    admin.delete(&device("d"), IfMatch::Any).await.unwrap();
    let second = hub.changes_since(first.upto).await.unwrap();
    assert!(second.identities.contains(&device("d")));
    assert!(second.identities.contains(&module("d", "m")));
    assert_eq!(hub.changes_since(second.upto).await.unwrap().identities, []);
}

#[tokio::test]
async fn history_is_pruned_and_says_so() {
    let folder = Folder::new();
    let registry = folder.open();
    registry
        .create(&device("d"), settings(Status::Enabled))
        .await
        .unwrap();
    let start = registry.changes_since(0).await.unwrap().upto;
    let kept = crate::limits::CHANGES_KEPT;
    let writer = &registry;
    let touch = |times: u64| {
        writer.write(move |connection| {
            for _ in 0..times {
                connection
                    .prepare_cached("UPDATE identities SET enabled = enabled")?
                    .execute([])?;
            }
            Ok(())
        })
    };
    let other = folder.open();
    touch(kept).await.unwrap();
    let whole = other.changes_since(start).await.unwrap();
    assert!(!whole.gap, "all of it is still there");
    assert_eq!(whole.identities.len() as u64, kept);
    touch(1).await.unwrap();
    let cut = other.changes_since(start).await.unwrap();
    assert!(cut.gap);
    assert_eq!(cut.identities.len() as u64, kept);
    assert!(!other.changes_since(start + 1).await.unwrap().gap);
    let future = other.changes_since(cut.upto + 5).await.unwrap();
    assert!(future.gap, "the database was put back");
    assert_eq!(future.upto, cut.upto);
}

#[tokio::test]
async fn policies_are_iot_hubs() {
    let folder = Folder::new();
    let policies = folder.open().policies().await.unwrap();
    let told: Vec<_> = policies
        .iter()
        .map(|p| (p.name.as_str(), p.permissions.names()))
        .collect();
    assert_eq!(
        told,
        [
            ("device", vec!["DeviceConnect"]),
            (
                "iothubowner",
                vec![
                    "RegistryRead",
                    "RegistryReadWrite",
                    "ServiceConnect",
                    "DeviceConnect"
                ]
            ),
            ("registryRead", vec!["RegistryRead"]),
            (
                "registryReadWrite",
                vec!["RegistryRead", "RegistryReadWrite"]
            ),
            ("service", vec!["ServiceConnect"]),
        ]
    );
    let again = folder.open();
    assert_eq!(again.policies().await.unwrap(), policies, "keys stay");
    let service = again.policy("service").await.unwrap().unwrap();
    assert_ne!(service.primary, service.secondary);
    assert_eq!(again.policy("nobody").await.unwrap(), None);
    let key = service.primary.to_base64();
    assert!(!format!("{policies:?}").contains(key.expose()));
}

#[test]
fn many_may_open_a_new_folder_at_once() {
    let folder = Folder::new();
    let registries: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| folder.open())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let policies = |r: &SqliteRegistry| runtime.block_on(r.policies()).unwrap();
    let first = policies(&registries[0]);
    assert!(registries.iter().all(|r| policies(r) == first));
}

#[test]
fn a_later_database_is_refused() {
    let folder = Folder::new();
    let registry = folder.open();
    registry
        .writer
        .lock()
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = SqliteRegistry::open(&folder.dir).err().unwrap();
    assert!(error.to_string().contains("newer"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let folder = Folder::new();
    std::fs::write(folder.dir.database().unwrap(), "x".repeat(5000)).unwrap();
    let error = SqliteRegistry::open(&folder.dir).err().unwrap();
    assert!(error.to_string().contains("damaged"), "{error}");
}

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

#[tokio::test]
async fn opening_it_again_writes_nothing() {
    let folder = Folder::new();
    let registry = folder.open();
    registry
        .create(&device("d"), settings(Status::Enabled))
        .await
        .unwrap();
    drop(registry);
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(folder.dir.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let mut content = std::fs::read(entry.path()).unwrap();
                // Shared memory, with a file only for its name and its room on the disk.
                if entry.file_name() == "hub.db-shm" {
                    content.fill(0);
                }
                (entry.file_name(), content)
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    let log = before
        .iter()
        .find(|(name, _)| name == "hub.db-wal")
        .unwrap();
    assert!(log.1.is_empty(), "all of it is in the database");
    let registry = folder.open();
    assert_eq!(
        registry.devices(None, 10).await.unwrap().identities.len(),
        1
    );
    drop(registry);
    assert!(before == files());
}

#[cfg(unix)]
#[tokio::test]
async fn every_file_of_the_database_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let registry = folder.open();
    registry
        .create(&device("d"), settings(Status::Enabled))
        .await
        .unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        seen += 1;
    }
    assert!(seen >= 3, "hub.db, -wal and -shm");
}
