//! What a start finds of the hub before, and what somebody has done to the log meanwhile.

use super::*;

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
async fn two_hubs_do_not_write_one_file() {
    let log = Log::new();
    let audit = log.open();
    if cfg!(unix) {
        let other = tempfile::tempdir().unwrap();
        assert!(Audit::open(&log.config, other.path(), &Counts::default()).is_err());
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
    let checked = log.check();
    let Checked::Whole(Some(verified)) = checked else {
        panic!("{checked:?}");
    };
    assert_eq!(verified.not_vouched, 2);
    assert!(log.text().contains("\"notVouched\":2"), "{}", log.text());
}

#[tokio::test]
async fn a_log_goes_to_another_file_and_back() {
    let mut log = Log::new();
    let files = ["audit.log", "other.log"].map(|name| log.folder.path().join(name));
    let mut first = 1;
    for file in [&files[0], &files[1], &files[0], &files[1]] {
        log.config.file = Some(file.clone());
        log.run(3).await;
        let checked = log.check();
        let Checked::Whole(Some(verified)) = checked else {
            panic!("{checked:?}");
        };
        assert_eq!((verified.first, verified.lines), (first, 5));
        first += 5;
    }
    // What was there before is kept.
    let key = check::key(log.folder.path()).unwrap();
    let mut all: Vec<PathBuf> = files.to_vec();
    for file in &files {
        all.extend(
            rotation::older(file)
                .unwrap()
                .into_iter()
                .map(|(_, file)| file),
        );
    }
    let checked = check::part(all, &key).unwrap();
    assert!(matches!(checked, Checked::Whole(Some(verified)) if verified.lines == 20));
}

#[tokio::test]
async fn nothing_is_built_on_what_stands_in_another_file() {
    let mut log = Log::new();
    log.run(3).await;
    // Genuine lines, and forged ones behind them.
    let text = forged(&log, 4, 5);
    log.config.file = Some(log.folder.path().join("other.log"));
    std::fs::write(log.path(), &text).unwrap();
    log.run(3).await;
    let checked = log.check();
    assert!(
        matches!(&checked, Checked::Whole(Some(verified)) if verified.first == 6),
        "{checked:?}"
    );
    assert!(!log.text().contains("Forged"));
    let aside = log.folder.path().join("other.log.000000000001");
    assert_eq!(std::fs::read_to_string(aside).unwrap(), text);
}

#[tokio::test]
async fn what_a_hub_says_of_its_log_is_found() {
    let log = Log::new();
    log.run(3).await;
    std::fs::write(log.path(), forged(&log, 5, 2)).unwrap();
    log.run(3).await;
    // What is wrong itself is not in what is left of it. The next hub does not say it again.
    let begun = log.text().split_inclusive('\n').skip(7).collect::<String>();
    assert!(begun.contains("ChainBroken"), "{begun}");
    std::fs::write(log.path(), begun).unwrap();
    let known = log.text();
    log.run(3).await;
    assert_eq!(
        log.text().matches("ChainBroken").count(),
        known.matches("ChainBroken").count()
    );
    let key = check::key(log.folder.path()).unwrap();
    let checked = check::part(vec![log.path().to_owned()], &key).unwrap();
    assert!(
        matches!(&checked, Checked::Broken { finding, .. } if *finding == Finding::Broken { seq: 7 }),
        "{checked:?}"
    );
}

#[tokio::test]
async fn a_kill_while_the_log_comes_to_another_file_is_no_break() {
    let mut log = Log::new();
    log.run(3).await;
    let end_file = log.folder.path().join("audit/end.json");
    let end = std::fs::read(&end_file).unwrap();
    log.config.file = Some(log.folder.path().join("other.log"));
    log.run(3).await;
    let text = log.text();
    for lines in [1, 3] {
        // The data folder did not know of the new file yet.
        std::fs::write(&end_file, &end).unwrap();
        let kept: String = text.split_inclusive('\n').take(lines).collect();
        std::fs::write(log.path(), kept).unwrap();
        for _ in 0..3 {
            log.run(1).await;
        }
        let checked = log.check();
        assert!(
            matches!(&checked, Checked::Whole(Some(verified)) if verified.first == 6),
            "{checked:?}"
        );
        assert!(rotation::older(log.path()).unwrap().is_empty());
    }
    // Whatever else stands there makes way, again and again.
    log.config.file = Some(log.folder.path().join("third.log"));
    for number in 1..=2 {
        std::fs::write(&end_file, &end).unwrap();
        std::fs::write(log.path(), "not a log\n").unwrap();
        log.run(1).await;
        assert!(matches!(log.check(), Checked::Whole(Some(_))));
        let aside = log.folder.path().join(format!("third.log.other.{number}"));
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "not a log\n");
    }
}

#[tokio::test]
async fn a_broken_log_is_found_while_it_is_written() {
    let log = Log::new();
    log.run(3).await;
    std::fs::write(log.path(), forged(&log, 5, 2)).unwrap();
    let audit = log.open();
    let folder = log.folder.path().to_owned();
    let checking = tokio::task::spawn_blocking(move || check::whole(&folder).unwrap());
    let writing = async {
        loop {
            audit.write(Record::new("A", "B"));
            assert!(audit.is_stored().await);
        }
    };
    let checked = tokio::select! {
        checked = tokio::time::timeout(Duration::from_secs(20), checking) => checked.unwrap().unwrap(),
        () = writing => unreachable!(),
    };
    assert!(
        matches!(&checked, Checked::Broken { finding, .. } if *finding == Finding::AfterStop),
        "{checked:?}"
    );
    assert!(audit.finish(Duration::from_secs(10)).await);
}
