//! What jobs do to devices and modules.

use super::jobs::{new, result};
use super::*;
use crate::registry::{JobEnd, JobId, JobKind, JobRows as _, Jobs as _, RegistryError, TwinChange};

fn desired(text: &str) -> TwinChange {
    let desired: Value = serde_json::from_str(text).unwrap();
    TwinChange::from_document(&json!({ "properties": { "desired": desired } }), false).unwrap()
}

#[tokio::test]
async fn a_twin_is_changed_once_for_a_job_and_only_while_it_runs() {
    let folder = Folder::new();
    let registry = folder.open();
    let [a, b, c, gone] = ["a", "b", "c", "gone"].map(device);
    for id in [&a, &b, &c] {
        let made = registry.create(id, settings(Status::Enabled));
        made.await.unwrap();
    }
    let made = registry.create_job(new("j", JobKind::UpdateTwin, 1), 1);
    let id = made.await.unwrap().new.id;
    registry.begin_job(&id, 1).await.unwrap();
    let devices = vec![a.clone(), b.clone(), c.clone(), gone.clone()];
    let adding = registry.add_job_devices(&id, devices, true, 1);
    adding.await.unwrap();
    let change = async |device: &DeviceIdentity, condition: IfMatch| {
        let change = desired(r#"{"x":1}"#);
        let changed =
            registry.change_twin_for_job(&id, device, change, condition, Box::new(|_| {}));
        changed.await
    };
    let version = async |device| registry.twin(device).await.unwrap().unwrap().version;
    // Its turn has not come.
    assert!(!change(&a, IfMatch::Any).await.unwrap());
    registry.claim_job_devices(&id, 9, 2).await.unwrap();
    let etag = registry.twin(&a).await.unwrap().unwrap().etag;
    assert!(change(&a, IfMatch::Etag(etag.clone())).await.unwrap());
    // Neither when the hub is killed now, nor later.
    let job = folder.open().begin_job(&id, 3).await.unwrap().unwrap();
    assert_eq!((job.counts.succeeded, job.counts.pending), (1, 3));
    assert!(!change(&a, IfMatch::Etag(etag.clone())).await.unwrap());
    registry.claim_job_devices(&id, 9, 4).await.unwrap();
    // A failure leaves both as they are.
    let refused = change(&b, IfMatch::Etag(etag)).await;
    assert!(matches!(refused, Err(RegistryError::PreconditionFailed(_))));
    let refused = change(&gone, IfMatch::Any).await;
    assert!(matches!(refused, Err(RegistryError::NotFound(_))));
    let counts = registry.job(&id).await.unwrap().unwrap().counts;
    assert_eq!((counts.succeeded, counts.running), (1, 3));
    registry.end_job(&id, JobEnd::Cancelled, 5).await.unwrap();
    assert!(!change(&c, IfMatch::Any).await.unwrap());
    let versions = [version(&a).await, version(&b).await, version(&c).await];
    assert_eq!(versions, [2, 1, 1]);
}

#[tokio::test]
async fn jobs_have_modules_beside_devices_also_those_of_before() {
    let folder = Folder::new();
    let mut old = schema::connect(&folder.dir.database().unwrap()).unwrap();
    schema::migrate_to(&mut old, 8).unwrap();
    old.execute_batch(
        "INSERT INTO jobs VALUES ('old', 'scheduleUpdateTwin', '*', '{}', 'service', 1, 60, 1, \
         'running', 1, NULL, NULL, 1); \
         INSERT INTO device_jobs VALUES ('old', 'a', 'completed', 1, 2, 1, 2, NULL, NULL); \
         INSERT INTO device_jobs VALUES ('old', 'b', 'running', 1, 1, 1, NULL, NULL, NULL);",
    )
    .unwrap();
    drop(old);
    let registry = folder.open();
    let old = JobId::parse("old").unwrap();
    let counts = registry.begin_job(&old, 2).await.unwrap().unwrap().counts;
    assert_eq!((counts.succeeded, counts.pending), (1, 1));

    let id = JobId::parse("j").unwrap();
    let made = registry.create_job(new("j", JobKind::DeviceMethod, 1), 1);
    made.await.unwrap();
    registry.begin_job(&id, 1).await.unwrap();
    let targets = vec![device("a"), module("a", "m"), module("a", "n")];
    let adding = registry.add_job_devices(&id, targets.clone(), true, 1);
    adding.await.unwrap();
    let claimed = registry.claim_job_devices(&id, 2, 1).await.unwrap();
    assert_eq!(claimed, targets[..2]);
    let results = vec![result(&targets[1], true)];
    registry.record_job_results(&id, results, 2).await.unwrap();
    let counts = registry.job(&id).await.unwrap().unwrap().counts;
    assert_eq!(
        (counts.pending, counts.running, counts.succeeded),
        (1, 1, 1)
    );
    // Row by row.
    let (mut rows, mut after) = (Vec::new(), None::<String>);
    let all = crate::query::Narrowing::All;
    while let Some(row) = registry
        .job_rows(&all, after.as_deref(), 1)
        .await
        .unwrap()
        .pop()
    {
        let text = |name| row.document[name].as_str().map(str::to_owned);
        rows.push((text("deviceId"), text("moduleId"), text("status")));
        after = Some(row.key);
    }
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        rows,
        [
            (some("a"), None, some("running")),
            (some("a"), some("m"), some("completed")),
            (some("a"), some("n"), some("pending")),
            (some("a"), None, some("completed")),
            (some("b"), None, some("pending")),
        ]
    );
    registry.end_job(&id, JobEnd::Completed, 3).await.unwrap();
    registry.forget_jobs(9).await.unwrap();
    let left = registry.job_rows(&all, None, 9).await.unwrap();
    assert_eq!(left.len(), 2, "the rows go with their job");
}
