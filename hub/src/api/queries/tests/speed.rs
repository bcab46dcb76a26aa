//! How long queries take over many devices, and how much memory. Run it by itself:
//! `cargo test --release -p hub --lib speed_of_queries -- --ignored --nocapture`.

use std::time::Instant;

use rusqlite::{Connection, params};

use super::*;
use crate::query::tag_values;

const DEVICES: usize = 100_000;

/// Devices as a fleet of device-proxies has them, written past the registry: one by one, each with
/// a transaction of its own, they would take minutes.
fn fill(hub: &Hub) {
    let path = hub.folder.path().join("hub-data").join("hub.db");
    let mut connection = Connection::open(path).unwrap();
    let transaction = connection.transaction().unwrap();
    let at = "2026-11-29T20:30:00.0000000Z";
    let updated = |names: &[&str]| {
        let mut metadata = json!({ "$lastUpdated": at });
        for name in names {
            metadata[*name] = json!({ "$lastUpdated": at });
        }
        metadata
    };
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for n in 0..DEVICES {
        let device = format!("device-{n:06}");
        transaction
            .execute(
                "INSERT INTO identities (device, module, generation, etag, enabled, authentication, \
                 primary_credential, secondary_credential) VALUES (?1, '', ?2, 'NTI', ?3, 'sas', ?4, ?4)",
                params![device, format!("{n}"), n % 50 != 0, key],
            )
            .unwrap();
        transaction
            .execute(
                "INSERT INTO activity VALUES (?1, '', ?2, 0, 1, 1700000000000000)",
                params![device, format!("{n}")],
            )
            .unwrap();
        let region = if n % 2 == 0 { "EU" } else { "US" };
        let tags = json!({
            "customer": format!("customer-{}", n % 1_000), "building": format!("{}", n % 100),
            "location": { "region": region, "floor": n % 30 }, "serial": n,
        });
        let desired = json!({ "deviceStreams": { "accept": true, "maxStreams": 8, "targets": { "rdp": n % 3 == 0 } } });
        let reported = json!({ "deviceStreams": {
            "session": { "version": 1, "bootId": "0123456789abcdef0123456789abcdef" },
            "version": "0.1.0", "platform": "linux-x86_64", "startTime": at,
            "targets": ["ssh", "rdp", "echo"], "activeStreams": n % 7, "streams": n,
            "bytesIn": n * 1_000, "bytesOut": n * 2_000, "policy": { "version": 4, "status": "applied" },
        } });
        let names = [
            "session",
            "version",
            "platform",
            "startTime",
            "targets",
            "activeStreams",
            "streams",
            "bytesIn",
            "bytesOut",
            "policy",
        ];
        let mut reported_metadata = updated(&[]);
        reported_metadata["deviceStreams"] = updated(&names);
        let mut desired_metadata = updated(&[]);
        desired_metadata["deviceStreams"] = updated(&["accept", "maxStreams", "targets"]);
        transaction
            .execute(
                "INSERT INTO twins (device, module, version, etag, tags, desired, desired_metadata, \
                 desired_version, reported, reported_metadata, reported_version) \
                 VALUES (?1, '', 3, 'AAAA', ?2, ?3, ?4, 2, ?5, ?6, 9)",
                params![device, tags.to_string(), desired.to_string(), desired_metadata.to_string(),
                    reported.to_string(), reported_metadata.to_string()],
            )
            .unwrap();
        for tag in tag_values(tags.as_object().unwrap()) {
            transaction
                .execute(
                    "INSERT INTO tag_values VALUES (?1, ?2, ?3, '')",
                    params![tag.path, tag.value, device],
                )
                .unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// Milliseconds that the threads of this process have been at work: other programs do not
/// disturb it.
fn worked() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of_thread = |folder: std::path::PathBuf| {
        let text = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    let nanoseconds = threads.filter_map(|thread| of_thread(thread.ok()?.path()));
    nanoseconds.sum::<f64>() / 1e6
}

/// What the process holds now, in MiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: usize = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib >> 10
}

#[tokio::test]
#[ignore = "a measurement: it takes half a minute"]
async fn speed_of_queries() {
    let hub = Hub::new();
    fill(&hub);
    println!("{DEVICES} devices; milliseconds of work, and in all; rows of the page");
    let mut slow = Vec::new();
    let indexed = 20.0;
    // A hundred whole twins are 250 KiB of JSON, which the test reads, too.
    let page = 50.0;
    let scan = 1_000.0;
    for (limit, text) in [
        (
            indexed,
            "SELECT * FROM devices WHERE deviceId = 'device-077777'",
        ),
        (
            indexed,
            "SELECT * FROM devices WHERE deviceId IN ['device-000001', 'device-077777', 'x']",
        ),
        (indexed, "SELECT * FROM devices WHERE tags.serial = 77777"),
        (
            page,
            "SELECT * FROM devices WHERE tags.customer = 'customer-777'",
        ),
        (
            page,
            "SELECT * FROM devices WHERE tags.location.region = 'EU'",
        ),
        (
            page,
            "SELECT * FROM devices WHERE tags.building = '43' AND tags.location.floor = 3",
        ),
        (
            indexed,
            "SELECT COUNT() AS n FROM devices WHERE tags.building = '43'",
        ),
        (
            page,
            "SELECT * FROM devices WHERE tags.customer = 'x' OR tags.customer IN ['customer-1', 'customer-2']",
        ),
        (page, "SELECT * FROM devices"),
        (scan, "SELECT COUNT() AS n FROM devices"),
        (
            scan,
            "SELECT COUNT() AS n FROM devices WHERE status = 'disabled'",
        ),
        (
            scan,
            "SELECT COUNT() AS n FROM devices WHERE connectionState = 'Connected'",
        ),
        (
            scan,
            "SELECT COUNT() AS n FROM devices WHERE lastActivityTime > '2023'",
        ),
        (
            scan,
            "SELECT * FROM devices WHERE properties.reported.deviceStreams.activeStreams > 9",
        ),
        (
            scan,
            "SELECT * FROM devices WHERE properties.reported.deviceStreams.bytesIn > 99999000",
        ),
        (
            scan,
            "SELECT * FROM devices WHERE STARTSWITH(tags.customer, 'x')",
        ),
        (
            scan,
            "SELECT * FROM devices WHERE tags.location.floor > 40 AND status = 'enabled'",
        ),
        (
            scan,
            "SELECT * FROM devices WHERE properties.desired.deviceStreams.maxStreams != properties.reported.deviceStreams.policy.version * 2",
        ),
        (
            scan,
            "SELECT SUM(properties.reported.deviceStreams.activeStreams) AS n FROM devices",
        ),
        (
            scan,
            "SELECT tags.customer, COUNT() AS n FROM devices GROUP BY tags.customer ORDER BY n DESC",
        ),
        (
            scan,
            "SELECT deviceId FROM devices ORDER BY properties.reported.deviceStreams.bytesIn DESC",
        ),
        (
            scan,
            "SELECT COUNT() AS n FROM devices WHERE tags.location.region = 'EU'",
        ),
    ] {
        let before = memory();
        let (mut best, mut worked, mut count) = (f64::INFINITY, f64::INFINITY, 0);
        for _ in 0..5 {
            let (start, before) = (Instant::now(), self::worked());
            count = hub.page(text, 100, None).await.unwrap().0.len();
            worked = worked.min(self::worked() - before);
            best = best.min(start.elapsed().as_secs_f64() * 1e3);
        }
        let grown = memory().saturating_sub(before);
        println!("{worked:8.1} {best:8.1} {count:4}  +{grown} MiB  {text}");
        if worked > limit {
            slow.push(text);
        }
    }
    assert_eq!(slow, [] as [&str; 0]);
}
