//! The registry on a real database in a temporary folder; two [`SqliteRegistry`] on
//! one folder stand for two processes.

mod approvals;
mod damaged;
mod device_jobs;
mod files;
mod jobs;
mod members;
mod subscriptions;
mod twins;
mod usage;

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
