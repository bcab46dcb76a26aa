//! Queries over what jobs did.

use common::identity::{DeviceId, DeviceIdentity};

use super::*;
use crate::registry::{DeviceJobError, JobId, JobKind, JobResult, Jobs as _, NewJob};

const NOW: u64 = 1_700_000_000_000_000;

impl Hub {
    /// A job at work on 70 devices: one has done it, one has failed, one is at it.
    async fn run_job(&self, id: &str, kind: JobKind) {
        let job = NewJob {
            id: JobId::parse(id).unwrap(),
            kind,
            condition: "*".to_owned(),
            content: "{}".to_owned(),
            policy: "service".to_owned(),
            start: NOW,
            max_seconds: 60,
        };
        let (id, registry) = (job.id.clone(), &*self.registry);
        registry.create_job(job, NOW).await.unwrap();
        registry.begin_job(&id, NOW).await.unwrap();
        let devices = (0..70).map(|n| DeviceId::parse(&format!("d{n:02}")).unwrap());
        let devices: Vec<_> = devices.map(DeviceIdentity::of_device).collect();
        registry
            .add_job_devices(&id, devices.clone(), true, NOW)
            .await
            .unwrap();
        registry
            .claim_job_devices(&id, 3, NOW + 1_000_000)
            .await
            .unwrap();
        let outcome = r#"{"deviceMethodResponse":{"status":200,"payload":null}}"#;
        let error = DeviceJobError {
            code: "DeviceNotOnline".to_owned(),
            description: "not here".to_owned(),
        };
        let outcomes = [Ok(Some(outcome.to_owned())), Err(error)];
        let results = devices.into_iter().zip(outcomes);
        let results = results.map(|(device, outcome)| JobResult { device, outcome });
        registry
            .record_job_results(&id, results.collect(), NOW + 2_000_000)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_jobs_did_is_queried() {
    let hub = Hub::new();
    hub.run_job("j", JobKind::DeviceMethod).await;
    hub.run_job("i", JobKind::UpdateTwin).await;
    let done =
        "SELECT * FROM devices.jobs WHERE devices.jobs.jobId = 'j' AND NOT status = 'pending'";
    let (started, ended) = (
        "2023-11-14T22:13:21.0000000Z",
        "2023-11-14T22:13:22.0000000Z",
    );
    let created = "2023-11-14T22:13:20.0000000Z";
    assert_eq!(
        Value::from(hub.rows(done).await),
        json!([
            {
                "deviceId": "d00", "jobId": "j", "jobType": "scheduleDeviceMethod",
                "status": "completed", "createdDateTimeUtc": created,
                "lastUpdatedDateTimeUtc": ended, "startTimeUtc": started, "endTimeUtc": ended,
                "outcome": { "deviceMethodResponse": { "status": 200, "payload": null } },
            },
            {
                "deviceId": "d01", "jobId": "j", "jobType": "scheduleDeviceMethod",
                "status": "failed", "createdDateTimeUtc": created,
                "lastUpdatedDateTimeUtc": ended, "startTimeUtc": started, "endTimeUtc": ended,
                "error": { "code": "DeviceNotOnline", "description": "not here" },
            },
            {
                "deviceId": "d02", "jobId": "j", "jobType": "scheduleDeviceMethod",
                "status": "running", "createdDateTimeUtc": created,
                "lastUpdatedDateTimeUtc": started, "startTimeUtc": started,
            },
        ])
    );
    let count = async |rest: &str| {
        let text = format!("SELECT * FROM devices.jobs{rest}");
        hub.pages(&text, 40).await.len()
    };
    assert_eq!(count("").await, 140);
    assert_eq!(count(" WHERE deviceId = 'd69'").await, 2);
    assert_eq!(count(" WHERE jobId = 'i' OR jobId IN ['x']").await, 70);
    assert_eq!(
        count(" WHERE jobType = 'scheduleTwinUpdate' AND status = 'pending'").await,
        67
    );
    assert_eq!(
        count(" WHERE createdTimeUtc > '2023-11' AND NOT IS_DEFINED(startTimeUtc)").await,
        134
    );
    assert_eq!(
        count(" WHERE outcome.deviceMethodResponse.status = 200").await,
        2
    );
    let text = "SELECT TOP 3 * FROM devices.jobs ORDER BY deviceId DESC, jobId";
    let rows = hub.rows(text).await;
    let ids = rows
        .iter()
        .map(|row| (row["deviceId"].as_str(), row["jobId"].as_str()));
    let wanted = [("d69", "i"), ("d69", "j"), ("d68", "i")];
    assert!(
        ids.eq(wanted.map(|(device, job)| (Some(device), Some(job)))),
        "{rows:?}"
    );
}
