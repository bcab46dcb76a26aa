//! A disk that takes nothing.

use super::*;

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
