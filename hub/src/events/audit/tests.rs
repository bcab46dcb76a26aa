use std::time::Instant;

use proptest::prelude::*;
use tempfile::TempDir;

use super::chain::Link;
use super::check::{self, Checked};
use super::keys::{PublicKey, SigningKey};
use super::verify::{Finding, Verifier};
use super::*;

fn key() -> (TempDir, SigningKey) {
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::ensure(folder.path()).unwrap();
    (folder, key)
}

/// A chain of so many lines, with a head at its beginning, at every fifth line, and at its end.
fn lines(count: usize, key: &SigningKey) -> (Vec<String>, Link) {
    let (mut link, mut lines) = (Link::START, Vec::new());
    for number in 0..count {
        let (line, next) = if number % 5 == 0 || number + 1 == count {
            let head = Record::new("Audit", "SignedHead").with("key", key.public().id());
            link.seal_signed(&now(), &head, key)
        } else {
            link.seal(
                &now(),
                &Record::new("A", "B").with("name", format!("dév {number}")),
            )
        };
        lines.push(line);
        link = next;
    }
    (lines, link)
}

/// Whether something is found in these lines.
fn verify(lines: &[impl AsRef<[u8]>], key: &PublicKey, known: Link) -> Result<(), Finding> {
    let mut verifier = Verifier::new(Some(key), Some(known));
    for line in lines {
        let line = line.as_ref();
        verifier.line(line.strip_suffix(b"\n").unwrap_or(line))?;
    }
    verifier.finish().map(|_| ())
}

#[test]
fn a_number_that_no_hub_comes_to_is_none() {
    // Anybody can number lines, and hash them.
    let record = Record::new("A", "B");
    for seq in [u64::MAX - 1, u64::MAX / 2] {
        let before = Link { seq, hash: [7; 32] };
        let (line, _) = before.seal(&now(), &record);
        let read = chain::read(line.trim_end().as_bytes(), None);
        assert_eq!(read, Err(chain::LineError::Malformed), "{line}");
    }
    let (_folder, key) = key();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (last, _) = Link {
        seq: u64::MAX - 1,
        hash: [7; 32],
    }
    .seal(&now(), &record);
    let (first, end) = lines(1, &key);
    std::fs::write(&path, format!("{}{last}", first[0])).unwrap();
    // A hub goes on behind the last line that can have been its own.
    let mut file = file::LogFile::open(&path).unwrap();
    let found = file.check(key.public(), None).unwrap();
    assert_eq!(found.last, Some(end));
    assert!(matches!(found.wrong, Some((2, Finding::Line(_)))));
}

#[test]
fn every_changed_byte_is_found() {
    let (_folder, key) = key();
    let (lines, end) = lines(7, &key);
    assert_eq!(verify(&lines, key.public(), end), Ok(()));
    for at in 0..lines.len() {
        for place in 0..lines[at].len() - 1 {
            for change in [1, 0x20, 0x80] {
                let mut changed: Vec<Vec<u8>> =
                    lines.iter().map(|line| line.clone().into_bytes()).collect();
                changed[at][place] ^= change;
                let found = verify(&changed, key.public(), end);
                assert!(found.is_err(), "line {at}, byte {place} ^ {change}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_removed_doubled_or_moved_line_is_found(count in 2..40_usize, a: usize, b: usize) {
        let (_folder, key) = key();
        let (lines, end) = lines(count, &key);
        prop_assert_eq!(verify(&lines, key.public(), end), Ok(()));
        let (a, b) = (a % count, b % count);

        let mut removed = lines.clone();
        removed.remove(a);
        prop_assert!(verify(&removed, key.public(), end).is_err());

        let mut doubled = lines.clone();
        doubled.insert(b, lines[a].clone());
        prop_assert!(verify(&doubled, key.public(), end).is_err());

        let mut swapped = lines.clone();
        swapped.swap(a, b);
        prop_assert_eq!(verify(&swapped, key.public(), end).is_err(), a != b);

        prop_assert!(verify(&lines[..a], key.public(), end).is_err(), "cut off");
        let beginning = verify(&lines[a..], key.public(), end);
        prop_assert_eq!(beginning.is_err(), a != 0);
    }

    #[test]
    fn a_chain_that_was_made_anew_has_no_signatures(count in 3..20_usize, at: usize) {
        let (_folder, key) = key();
        let (_other_folder, other) = self::key();
        let (lines, end) = lines(count, &key);
        // All that somebody can make who has no key: a chain with his own.
        let at = 1 + at % (count - 1);
        let (mut forged, mut link) = (lines[..at].to_vec(), Link::START);
        for line in &forged {
            link = chain::read(line.trim_end().as_bytes(), None).unwrap().link;
        }
        let (line, next) = link.seal(&now(), &Record::new("A", "Forged"));
        forged.push(line);
        let unsigned = verify(&forged, key.public(), end);
        prop_assert!(unsigned.is_err(), "the data folder knows another end");
        let (line, _) = next.seal_signed(&now(), &Record::new("Audit", "SignedHead"), &other);
        forged.push(line);
        let mut verifier = Verifier::new(Some(key.public()), None);
        let found: Result<Vec<()>, Finding> =
            forged.iter().map(|line| verifier.line(line.trim_end().as_bytes())).collect();
        prop_assert!(found.is_err(), "signed by another key");
    }
}

#[test]
fn lines_without_heads_are_found() {
    let (_folder, key) = key();
    let (mut link, mut verifier) = (Link::START, Verifier::new(Some(key.public()), None));
    let mut next = |is_signed: bool| {
        let record = Record::new("A", "B");
        let (line, next) = match is_signed {
            true => link.seal_signed(&now(), &record, &key),
            false => link.seal(&now(), &record),
        };
        link = next;
        line
    };
    verifier.line(next(true).trim_end().as_bytes()).unwrap();
    for _ in 0..verify::MOST_UNSIGNED {
        verifier.line(next(false).trim_end().as_bytes()).unwrap();
    }
    let found = verifier.line(next(false).trim_end().as_bytes());
    assert_eq!(found, Err(Finding::Unsigned));
}

#[test]
fn the_public_key_survives_pem() {
    let (folder, key) = key();
    let file = folder.path().join("public.pem");
    std::fs::write(&file, key.public().to_pem()).unwrap();
    assert_eq!(PublicKey::read(&file).unwrap(), *key.public());
    std::fs::write(&file, "no key").unwrap();
    assert!(PublicKey::read(&file).is_err());
    let again = SigningKey::ensure(folder.path()).unwrap();
    assert_eq!(again.public(), key.public());
}

/// A log in a folder of its own.
struct Log {
    folder: TempDir,
    config: AuditConfig,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = AuditConfig {
            file: Some(folder.path().join("audit.log")),
            ..AuditConfig::default()
        };
        Self { folder, config }
    }

    fn open(&self) -> Audit {
        let opened = Audit::open(&self.config, self.folder.path()).unwrap();
        opened.unwrap()
    }

    fn path(&self) -> &Path {
        self.config.file.as_deref().unwrap()
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    fn check(&self) -> Checked {
        check::whole(self.folder.path()).unwrap()
    }

    #[track_caller]
    fn finding(&self) -> Finding {
        match self.check() {
            Checked::Broken { finding, .. } => finding,
            Checked::Whole(verified) => panic!("nothing was found: {verified:?}"),
        }
    }

    /// A run of a hub with so many records.
    async fn run(&self, records: u64) {
        let audit = self.open();
        for number in 0..records {
            audit.write(Record::new("A", "B").with("number", number));
        }
        assert!(audit.finish(Duration::from_secs(10)).await);
        wait_unlocked(self.path());
    }
}

/// The thread lets go of the file after its last answer.
fn wait_unlocked(path: &Path) {
    let start = Instant::now();
    while file::LogFile::open(path).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn the_chain_goes_on_at_the_next_start() {
    let log = Log::new();
    log.run(10).await;
    log.run(10).await;
    let Checked::Whole(Some(verified)) = log.check() else {
        panic!("{:?}", log.check());
    };
    // Each run has a head at its beginning and its end.
    assert_eq!(
        (verified.lines, verified.heads, verified.unsigned),
        (24, 4, 0)
    );
}

#[tokio::test]
async fn a_cut_end_is_found_and_stays_found() {
    let log = Log::new();
    log.run(10).await;
    let text = log.text();
    let cut: String = text.split_inclusive('\n').take(9).collect();
    std::fs::write(log.path(), cut).unwrap();
    let expected = Finding::CutOff {
        last: 9,
        expected: 12,
    };
    assert_eq!(log.finding(), expected);
    log.run(1).await;
    assert_eq!(log.finding(), Finding::Removed { from: 10, to: 12 });
    assert!(log.text().contains("ChainBroken"));

    // Also when nothing is left at all.
    std::fs::remove_file(log.path()).unwrap();
    assert!(matches!(log.finding(), Finding::CutOff { .. }));
    log.run(1).await;
    assert!(matches!(log.finding(), Finding::NoBeginning { .. }));
}

#[tokio::test]
async fn a_line_without_an_end_is_recorded() {
    let log = Log::new();
    log.run(3).await;
    let mut text = log.text();
    text += r#"{"seq":6,"time":"2026"#;
    std::fs::write(log.path(), text).unwrap();
    assert_eq!(log.finding(), Finding::Torn);
    log.run(1).await;
    assert!(matches!(log.check(), Checked::Whole(_)));
    assert!(
        log.text()
            .contains(r#""operationName":"Recovered","tornBytes":21"#)
    );
}

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
    while aside(log).len() < count {
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
    let before = aside(log);
    while aside(log) == before {
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

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_stops_streams_or_not_as_configured() {
    let mut log = Log::new();
    log.config.file = Some("/dev/full".into());
    let audit = log.open();
    audit.write(Record::new("A", "B"));
    let start = Instant::now();
    while audit.allows_streams().is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!audit.health().is_writable);
    let tuning = AuditTuning {
        full: WhenFull::Continue,
        ..AuditTuning::default()
    };
    audit.tune(tuning);
    assert_eq!(audit.allows_streams(), Ok(()));
    // More than the queue and one batch hold.
    for number in 0..QUEUE + 2_000 {
        audit.write(Record::new("A", "B").with("number", number));
    }
    assert!(audit.health().lost > 0);
    assert!(!audit.finish(Duration::from_millis(100)).await);
}

#[tokio::test]
async fn two_hubs_do_not_write_one_file() {
    let log = Log::new();
    let audit = log.open();
    if cfg!(unix) {
        let other = tempfile::tempdir().unwrap();
        assert!(Audit::open(&log.config, other.path()).is_err());
    }
    assert!(audit.finish(Duration::from_secs(10)).await);
}

#[tokio::test]
async fn a_log_goes_on_in_another_file() {
    let mut log = Log::new();
    log.run(3).await;
    let first = log.path().to_owned();
    log.config.file = Some(log.folder.path().join("other.log"));
    log.run(3).await;
    let Checked::Whole(Some(verified)) = log.check() else {
        panic!("{:?}", log.check());
    };
    assert_eq!(verified.first, 6);
    let key = check::key(log.folder.path()).unwrap();
    let both = vec![log.path().to_owned(), first];
    let checked = check::part(both, &key).unwrap();
    assert!(matches!(checked, Checked::Whole(Some(verified)) if verified.lines == 10));
    std::fs::remove_file(log.path()).unwrap();
    log.run(1).await;
    assert!(matches!(log.finding(), Finding::NoBeginning { .. }));
}

/// Lines that somebody has made who has no key.
fn forged(log: &Log, behind: usize, count: usize) -> String {
    let text = log.text();
    let kept: Vec<&str> = text.split_inclusive('\n').take(behind).collect();
    let mut link = chain::read(kept.last().unwrap().trim_end().as_bytes(), None)
        .unwrap()
        .link;
    let mut written: String = kept.concat();
    for _ in 0..count {
        let (line, next) = link.seal(
            &now(),
            &Record::new("A", "Forged").with("removedThrough", 3),
        );
        written += &line;
        link = next;
    }
    written
}

#[tokio::test]
async fn lines_that_were_added_while_no_hub_ran_are_found_and_stay_found() {
    let log = Log::new();
    log.run(3).await;
    std::fs::write(log.path(), forged(&log, 5, 2)).unwrap();
    assert_eq!(log.finding(), Finding::AfterStop);
    log.run(3).await;
    assert_eq!(log.finding(), Finding::AfterStop);
    assert!(log.text().contains("ChainBroken"));
}

#[tokio::test]
async fn lines_that_were_exchanged_after_a_kill_are_found_and_stay_found() {
    let log = Log::new();
    let audit = log.open();
    for number in 0..5 {
        audit.write(Record::new("A", "B").with("number", number));
        assert!(audit.is_stored().await);
    }
    // As after a kill: no signed head at the end.
    let killed = log.text();
    let end = std::fs::read(log.folder.path().join("audit/end.json")).unwrap();
    assert!(audit.finish(Duration::from_secs(10)).await);
    wait_unlocked(log.path());
    let restore = || std::fs::write(log.folder.path().join("audit/end.json"), &end).unwrap();
    restore();
    std::fs::write(log.path(), &killed).unwrap();
    assert!(matches!(log.check(), Checked::Whole(Some(_))));
    // One line was written anew, and two more were added.
    std::fs::write(log.path(), forged(&log, 5, 3)).unwrap();
    assert!(matches!(log.finding(), Finding::OtherEnd { .. }));
    log.run(1).await;
    assert!(matches!(
        log.finding(),
        Finding::OtherEnd { .. } | Finding::Order { .. }
    ));
    // Lines that the killed hub may have written itself are kept, and counted.
    restore();
    std::fs::write(log.path(), killed).unwrap();
    std::fs::write(log.path(), forged(&log, 6, 2)).unwrap();
    log.run(1).await;
    assert!(matches!(log.check(), Checked::Whole(Some(_))));
    assert!(log.text().contains("\"notVouched\":2"), "{}", log.text());
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
