//! The registry on a real database in a temporary folder; two [`SqliteRegistry`] on
//! one folder stand for two processes.

use serde_json::{Value, json};

use super::*;
use crate::registry::{Authentication, Thumbprint, TwinRuleError};

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
        status_reason: None,
        authentication: Authentication::random_keys(),
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
        names(registry.modules(&id.device).await.unwrap()),
        ["d/m", "d/n"]
    );
    assert_eq!(names(registry.devices(9).await.unwrap()), ["d", "e"]);
    assert_eq!(names(registry.devices(1).await.unwrap()), ["d"]);

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
    assert!(registry.modules(&id.device).await.unwrap().is_empty());
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
    let kept = common::limits::CHANGES_KEPT;
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
async fn a_database_from_before_twins_gets_them() {
    let folder = Folder::new();
    let registry = folder.open();
    let id = device("d");
    let made = registry
        .create(&id, settings(Status::Enabled))
        .await
        .unwrap();
    let policies = registry.policies().await.unwrap();
    // Back to the first step.
    registry
        .writer
        .lock()
        .unwrap()
        .execute_batch(
            "DROP TRIGGER identity_deleted_twin; DROP TABLE twins; PRAGMA user_version = 1;",
        )
        .unwrap();
    let registry = folder.open();
    assert_eq!(registry.identity(&id).await.unwrap(), Some(made));
    assert_eq!(registry.policies().await.unwrap(), policies);
    assert_eq!(report(&registry, &id, json!({ "a": 1 })).await.unwrap(), 2);
}
