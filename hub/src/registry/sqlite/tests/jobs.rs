//! Jobs in the database.

use proptest::prelude::*;

use super::*;
use crate::registry::{
    DeviceJobError, Job, JobCounts, JobEnd, JobError, JobFilter, JobId, JobKind, JobPlace,
    JobResult, JobStatus, Jobs as _, NewJob,
};

pub(super) fn new(id: &str, kind: JobKind, start: u64) -> NewJob {
    NewJob {
        id: JobId::parse(id).unwrap(),
        kind,
        condition: "*".to_owned(),
        content: "{}".to_owned(),
        policy: "service".to_owned(),
        start,
        max_seconds: 60,
    }
}

fn ids(names: &[&str]) -> Vec<DeviceIdentity> {
    names.iter().map(|name| device(name)).collect()
}

fn names(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.new.id.as_str()).collect()
}

pub(super) fn result(device: &DeviceIdentity, has_worked: bool) -> JobResult {
    JobResult {
        device: device.clone(),
        outcome: if has_worked {
            Ok(Some("{}".to_owned()))
        } else {
            Err(DeviceJobError {
                code: "DeviceNotOnline".to_owned(),
                description: "not here".to_owned(),
            })
        },
    }
}

#[tokio::test]
async fn the_usual_life_of_a_job() {
    let folder = Folder::new();
    let registry = folder.open();
    let job = registry
        .create_job(new("j", JobKind::DeviceMethod, 5), 5)
        .await
        .unwrap();
    assert_eq!(job.status, JobStatus::Queued);
    let id = job.new.id.clone();
    assert_eq!(registry.job(&id).await.unwrap(), Some(job));
    let again = registry.create_job(new("j", JobKind::UpdateTwin, 5), 5);
    assert!(matches!(
        again.await,
        Err(RegistryError::Job(JobError::Exists(_)))
    ));

    let begun = registry.begin_job(&id, 6).await.unwrap().unwrap();
    assert_eq!((begun.status, begun.began), (JobStatus::Running, Some(6)));
    let devices = ids(&["a", "b", "c", "d"]);
    for is_all in [false, true] {
        // What it has already stays.
        let adding = registry.add_job_devices(&id, devices.clone(), is_all, 7);
        adding.await.unwrap();
    }
    let claimed = registry.claim_job_devices(&id, 3, 8).await.unwrap();
    assert_eq!(claimed, devices[..3]);
    // The last one does not run, so nothing becomes of it.
    let results = devices
        .iter()
        .map(|id| result(id, id.device.as_str() != "b"));
    registry
        .record_job_results(&id, results.collect(), 9)
        .await
        .unwrap();
    let job = registry.begin_job(&id, 10).await.unwrap().unwrap();
    assert!(job.has_all_devices && job.began == Some(6));
    let counts = JobCounts {
        pending: 1,
        succeeded: 2,
        failed: 1,
        ..JobCounts::default()
    };
    assert_eq!((job.counts, job.counts.total()), (counts, 4));
    assert_eq!(
        registry.claim_job_devices(&id, 3, 8).await.unwrap(),
        devices[3..]
    );
    let results = vec![result(&devices[3], true)];
    registry.record_job_results(&id, results, 9).await.unwrap();
    let ended = registry.end_job(&id, JobEnd::Completed, 11).await.unwrap();
    let ended = ended.unwrap();
    assert_eq!(
        (ended.status, ended.ended),
        (JobStatus::Completed, Some(11))
    );
    // An end is an end.
    let cancelled = registry.end_job(&id, JobEnd::Cancelled, 12).await.unwrap();
    assert_eq!(cancelled, Some(ended.clone()));
    assert_eq!(registry.begin_job(&id, 13).await.unwrap(), Some(ended));
    registry.forget_jobs(11).await.unwrap();
    assert!(registry.job(&id).await.unwrap().is_some());
    registry.forget_jobs(12).await.unwrap();
    assert_eq!(registry.job(&id).await.unwrap(), None);
}

#[tokio::test]
async fn jobs_are_due_in_their_order_and_listed_from_the_newest() {
    let folder = Folder::new();
    let registry = folder.open();
    for (name, start, created) in [("late", 90, 1), ("b", 10, 2), ("a", 10, 2), ("now", 3, 3)] {
        let made = registry.create_job(new(name, JobKind::UpdateTwin, start), created);
        let is_later = made.await.unwrap().status == JobStatus::Scheduled;
        assert_eq!(is_later, start > created);
    }
    let due = async |now| registry.due_jobs(now, 9).await.unwrap();
    assert_eq!(names(&due(9).await), ["now"]);
    registry.queue_jobs(9).await.unwrap();
    assert_eq!(names(&due(10).await), ["now", "a", "b"]);
    assert_eq!(registry.next_job(2).await.unwrap(), Some(3));
    assert_eq!(registry.next_job(3).await.unwrap(), Some(10));
    assert_eq!(registry.next_job(90).await.unwrap(), None);
    let of = |name| JobId::parse(name).unwrap();
    registry.begin_job(&of("b"), 10).await.unwrap();
    registry
        .end_job(&of("now"), JobEnd::Completed, 10)
        .await
        .unwrap();
    assert_eq!(names(&due(10).await), ["b", "a"]);

    let list = async |status, after: Option<&JobPlace>, limit| {
        let filter = JobFilter {
            kind: Some(JobKind::UpdateTwin),
            status,
        };
        registry.jobs(filter, after, limit).await.unwrap()
    };
    let all = list(None, None, 9).await;
    assert_eq!(names(&all), ["now", "a", "b", "late"]);
    let second = JobPlace {
        created: all[1].created,
        id: all[1].new.id.clone(),
    };
    assert_eq!(names(&list(None, Some(&second), 1).await), ["b"]);
    let scheduled = list(Some(JobStatus::Scheduled), None, 9).await;
    assert_eq!(names(&scheduled), ["a", "late"]);
    // Its time has come; where there is room, it would have begun.
    registry.queue_jobs(10).await.unwrap();
    let scheduled = list(Some(JobStatus::Scheduled), None, 9).await;
    assert_eq!(names(&scheduled), ["late"]);
    assert_eq!(names(&list(Some(JobStatus::Queued), None, 9).await), ["a"]);
    let methods = JobFilter {
        kind: Some(JobKind::DeviceMethod),
        status: None,
    };
    assert!(registry.jobs(methods, None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn after_a_kill_twins_are_updated_again_and_methods_are_not_called_twice() {
    let folder = Folder::new();
    let devices = ids(&["a", "b"]);
    for kind in [JobKind::UpdateTwin, JobKind::DeviceMethod] {
        let registry = folder.open();
        let id = JobId::parse(kind.as_str()).unwrap();
        registry
            .create_job(new(kind.as_str(), kind, 1), 1)
            .await
            .unwrap();
        registry.begin_job(&id, 1).await.unwrap();
        registry
            .add_job_devices(&id, devices.clone(), true, 1)
            .await
            .unwrap();
        registry.claim_job_devices(&id, 1, 1).await.unwrap();
        let registry = folder.open();
        let counts = registry.begin_job(&id, 2).await.unwrap().unwrap().counts;
        let left = registry.claim_job_devices(&id, 9, 2).await.unwrap();
        if kind == JobKind::UpdateTwin {
            assert_eq!((left, counts.failed), (devices.clone(), 0));
        } else {
            assert_eq!((left, counts.failed), (devices[1..].to_vec(), 1));
        }
    }
}

#[tokio::test]
async fn a_damaged_job_holds_up_no_other() {
    let folder = Folder::new();
    let registry = folder.open();
    for name in ["bad", "good"] {
        let made = registry.create_job(new(name, JobKind::UpdateTwin, 1), 1);
        made.await.unwrap();
    }
    let connection = schema::connect(&folder.dir.database().unwrap()).unwrap();
    let damage = "UPDATE jobs SET kind = 'x' WHERE id = 'bad'";
    connection.execute(damage, []).unwrap();
    assert_eq!(names(&registry.due_jobs(2, 9).await.unwrap()), ["good"]);
    let listed = registry.jobs(JobFilter::default(), None, 9).await.unwrap();
    assert_eq!(names(&listed), ["good"]);
    let bad = registry.job(&JobId::parse("bad").unwrap()).await;
    assert!(matches!(bad, Err(RegistryError::Damaged { .. })));
}

/// What can happen to a job.
#[derive(Debug, Clone)]
enum Step {
    Begin,
    Add(Vec<u8>),
    Claim(usize),
    Record(u8, bool),
    End(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Begin),
        2 => proptest::collection::vec(0..6u8, 0..4).prop_map(Step::Add),
        3 => (0..4usize).prop_map(Step::Claim),
        4 => (0..6u8, any::<bool>()).prop_map(|(device, good)| Step::Record(device, good)),
        1 => (0..6u8).prop_map(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens, in whatever order: each device is in one state, states go one way only,
    /// and an end is an end.
    #[test]
    fn a_job_is_as_its_model(steps in proptest::collection::vec(step(), 0..25), is_method in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let kind = if is_method { JobKind::DeviceMethod } else { JobKind::UpdateTwin };
        let seen = runtime.block_on(async move {
            let folder = Folder::new();
            let registry = folder.open();
            registry.create_job(new("j", kind, 1), 1).await.unwrap();
            let id = JobId::parse("j").unwrap();
            let name = |number: u8| match number {
                0..4 => device(&format!("d{number}")),
                _ => module("d1", &format!("m{number}")),
            };
            let mut model = std::collections::BTreeMap::<DeviceIdentity, &str>::new();
            let mut has_ended = false;
            let mut seen = Vec::new();
            for (now, step) in (2..).zip(steps) {
                match step {
                    Step::Begin => {
                        for status in model.values_mut().filter(|status| **status == "running") {
                            *status = if is_method { "failed" } else { "pending" };
                        }
                        registry.begin_job(&id, now).await.unwrap();
                    }
                    Step::Add(devices) => {
                        let devices: Vec<_> = devices.into_iter().map(name).collect();
                        if !has_ended {
                            for device in &devices {
                                model.entry(device.clone()).or_insert("pending");
                            }
                        }
                        registry.add_job_devices(&id, devices, false, now).await.unwrap();
                    }
                    Step::Claim(limit) => {
                        let claimed = registry.claim_job_devices(&id, limit, now).await.unwrap();
                        let waiting = model.iter_mut().filter(|(_, status)| **status == "pending");
                        let mut expected = Vec::new();
                        for (device, status) in waiting.take(limit) {
                            *status = "running";
                            expected.push(device.clone());
                        }
                        let mut claimed = claimed;
                        claimed.sort_unstable();
                        seen.push((format!("{claimed:?}"), format!("{expected:?}")));
                    }
                    Step::Record(device, good) => {
                        let device = name(device);
                        if let Some(status) = model.get_mut(&device)
                            && *status == "running"
                        {
                            *status = if good { "completed" } else { "failed" };
                        }
                        let results = vec![result(&device, good)];
                        registry.record_job_results(&id, results, now).await.unwrap();
                    }
                    Step::End(how) => {
                        let (end, rest) = match how {
                            0..4 => (JobEnd::Completed, "failed"),
                            4 => (JobEnd::Failed("x".to_owned()), "failed"),
                            _ => (JobEnd::Cancelled, "canceled"),
                        };
                        has_ended = true;
                        for status in model.values_mut() {
                            if matches!(*status, "pending" | "running") {
                                *status = rest;
                            }
                        }
                        registry.end_job(&id, end, now).await.unwrap();
                    }
                }
                let job = registry.job(&id).await.unwrap().unwrap();
                let count = |status: &str| model.values().filter(|s| **s == status).count() as u64;
                let counts = JobCounts {
                    pending: count("pending"),
                    running: count("running"),
                    succeeded: count("completed"),
                    failed: count("failed"),
                    canceled: count("canceled"),
                };
                seen.push((format!("{:?}", job.counts), format!("{counts:?}")));
                seen.push((job.has_ended().to_string(), has_ended.to_string()));
            }
            seen
        });
        for (seen, expected) in seen {
            prop_assert_eq!(seen, expected);
        }
    }
}
