//! Files that are put aside and removed.

use super::super::end;
use super::*;

#[tokio::test]
async fn files_are_put_aside_and_the_oldest_removed() {
    let mut log = Log::new();
    log.config.tuning.rotate_bytes = 2_000;
    log.config.tuning.keep = 3;
    let audit = log.open();
    for number in 0..100 {
        audit.write(Record::new("A", "B").with("number", number));
        assert!(audit.is_stored().await);
    }
    assert!(audit.finish(Duration::from_secs(10)).await);
    let files = check::files(log.folder.path()).unwrap();
    assert_eq!(files.len(), 4, "{files:?}");
    let Checked::Whole(Some(verified)) = log.check() else {
        panic!("{:?}", log.check());
    };
    assert!(verified.first > 1);
    let key = check::key(log.folder.path()).unwrap();
    let mut part = files[1..3].to_vec();
    part.reverse();
    assert!(matches!(check::part(part, &key), Ok(Checked::Whole(_))));

    let gap = vec![files[0].clone(), files[2].clone()];
    assert!(matches!(
        check::part(gap, &key),
        Ok(Checked::Broken {
            finding: Finding::Removed { .. },
            ..
        })
    ));
    // What rotation has not removed is missed.
    std::fs::remove_file(&files[0]).unwrap();
    assert!(matches!(log.finding(), Finding::NoBeginning { .. }));
}

/// A log of some files that were put aside, oldest first, and a hub that writes on.
async fn in_files(log: &mut Log, count: usize) -> (Audit, Vec<PathBuf>) {
    log.config.tuning.rotate_bytes = 2_000;
    log.config.tuning.keep = 0;
    let audit = log.open();
    let start = Instant::now();
    while aside(log).len() < count {
        assert!(start.elapsed() < Duration::from_secs(20));
        more(&audit).await;
    }
    let files = aside(log);
    (audit, files)
}

fn aside(log: &Log) -> Vec<PathBuf> {
    let files = rotation::older(log.path()).unwrap();
    files.into_iter().map(|(_, file)| file).collect()
}

async fn more(audit: &Audit) {
    audit.write(Record::new("A", "B").with("name", "x".repeat(100)));
    assert!(audit.is_stored().await);
}

/// Goes on until other files were put aside than these.
async fn rotate(log: &Log, audit: &Audit) {
    let (before, start) = (aside(log), Instant::now());
    while aside(log) == before {
        assert!(start.elapsed() < Duration::from_secs(20));
        more(audit).await;
    }
    assert!(audit.is_stored().await);
}

#[tokio::test]
async fn rotation_does_not_excuse_what_somebody_else_has_removed() {
    let mut log = Log::new();
    let (audit, files) = in_files(&mut log, 5).await;
    for file in &files[..3] {
        std::fs::remove_file(file).unwrap();
    }
    assert!(matches!(log.finding(), Finding::NoBeginning { .. }));
    log.config.tuning.keep = 1;
    audit.tune(log.config.tuning.clone());
    rotate(&log, &audit).await;
    rotate(&log, &audit).await;
    assert!(audit.finish(Duration::from_secs(10)).await);
    assert!(matches!(log.finding(), Finding::NoBeginning { .. }));
    // Nor does it remove anything behind the gap.
    assert!(files[3].exists() && files[4].exists());
}

#[tokio::test]
async fn files_that_are_young_are_kept_beside_their_number() {
    let mut log = Log::new();
    let (audit, files) = in_files(&mut log, 3).await;
    log.config.tuning.keep = 1;
    log.config.tuning.keep_age = Duration::from_secs(24 * 3600);
    audit.tune(log.config.tuning.clone());
    rotate(&log, &audit).await;
    assert!(files.iter().all(|file| file.exists()));
    log.config.tuning.keep_age = Duration::ZERO;
    audit.tune(log.config.tuning.clone());
    rotate(&log, &audit).await;
    assert!(!files.iter().any(|file| file.exists()));
    assert!(audit.finish(Duration::from_secs(10)).await);
    assert!(matches!(log.check(), Checked::Whole(Some(_))));
}

#[tokio::test]
async fn files_of_others_take_no_place_of_the_log_s() {
    let mut log = Log::new();
    let (audit, files) = in_files(&mut log, 3).await;
    log.config.tuning.keep = 4;
    audit.tune(log.config.tuning.clone());
    let fake = |name: &str| {
        let file = log.folder.path().join(name);
        std::fs::write(&file, "x\n").unwrap();
        file
    };
    let fakes: Vec<_> = (0..10)
        .map(|number| fake(&format!("audit.log.99999999990{number}")))
        .chain((2..5).map(|number| fake(&format!("audit.log.00000000000{number}"))))
        .collect();
    rotate(&log, &audit).await;
    for file in &files {
        assert!(file.exists(), "{}", file.display());
    }
    assert!(audit.finish(Duration::from_secs(10)).await);
    for file in &fakes {
        std::fs::remove_file(file).unwrap();
    }
    assert!(matches!(log.check(), Checked::Whole(Some(verified)) if verified.first == 1));
}

#[tokio::test]
async fn what_was_signed_away_is_removed_later_if_not_at_once() {
    let mut log = Log::new();
    let (audit, files) = in_files(&mut log, 3).await;
    log.config.tuning.keep = 2;
    audit.tune(log.config.tuning.clone());
    let oldest = std::fs::read(&files[0]).unwrap();
    rotate(&log, &audit).await;
    assert!(!files[0].exists() && !files[1].exists());
    std::fs::write(&files[0], oldest).unwrap();
    assert!(matches!(log.check(), Checked::Whole(Some(_))));
    rotate(&log, &audit).await;
    assert!(audit.finish(Duration::from_secs(10)).await);
    assert!(!files[0].exists());
    // The log itself says it, too, for a data folder that has lost its end.
    std::fs::remove_file(log.folder.path().join("audit/end.json")).unwrap();
    wait_unlocked(log.path());
    log.run(1).await;
    assert!(matches!(log.check(), Checked::Whole(Some(verified)) if verified.first > 1));
}

#[tokio::test]
async fn a_kill_while_a_file_is_put_aside_is_no_break() {
    let mut log = Log::new();
    let (audit, _) = in_files(&mut log, 1).await;
    assert!(audit.finish(Duration::from_secs(10)).await);
    wait_unlocked(log.path());
    // What rotation has done until the kill: the known end is the last line of the file aside.
    let first = chain::read(log.text().lines().next().unwrap().as_bytes(), None).unwrap();
    let known = end::KnownEnd {
        link: Link {
            seq: first.link.seq - 1,
            hash: first.prev,
        },
        file: Some(log.path().to_owned()),
        since: 1,
        removed_through: 0,
    };
    let key = SigningKey::ensure(&log.folder.path().join("audit")).unwrap();
    for text in [String::new(), log.text()] {
        std::fs::write(log.path(), text).unwrap();
        known.store(&log.folder.path().join("audit"), &key).unwrap();
        log.run(1).await;
        assert!(
            matches!(log.check(), Checked::Whole(Some(_))),
            "{:?}",
            log.check()
        );
        assert!(!log.text().contains("ChainBroken"));
    }
}

/// What rotation removes of files with one signed head each, of these times.
fn planned(times: &[&str], place: rotation::Place, keep_age: Duration) -> Vec<PathBuf> {
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::ensure(folder.path()).unwrap();
    let path = folder.path().join("audit.log");
    let mut link = Link::START;
    for (number, time) in times.iter().enumerate() {
        let (line, next) = link.seal_signed(time, &Record::new("Audit", "SignedHead"), &key);
        std::fs::write(
            folder.path().join(format!("audit.log.{:012}", number + 1)),
            line,
        )
        .unwrap();
        link = next;
    }
    let retention = rotation::Retention { keep: 1, keep_age };
    let planned = rotation::Removal::plan(&path, place, retention, key.public()).unwrap();
    planned.files
}

#[test]
fn a_time_that_is_still_to_come_keeps_files_only_where_ages_count() {
    let place = rotation::Place {
        since: 1,
        removed_through: 0,
        last: 3,
    };
    let times = ["2999-01-01T00:00:00Z", "2020-01-01T00:00:00Z"];
    assert_eq!(planned(&times, place, Duration::ZERO).len(), 1);
    assert_eq!(planned(&times, place, Duration::from_secs(60)).len(), 0);
    let times = ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"];
    assert_eq!(planned(&times, place, Duration::from_secs(60)).len(), 1);
}

#[test]
fn what_stood_there_before_the_log_came_is_not_removed() {
    let place = rotation::Place {
        since: 501,
        removed_through: 300,
        last: 600,
    };
    let times = ["2020-01-01T00:00:00Z"; 3];
    assert_eq!(planned(&times, place, Duration::ZERO).len(), 0);
}
