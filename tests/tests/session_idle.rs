//! What a device keeps for idle sessions. A test binary of its own, because it measures the whole
//! process.

use std::time::Duration;

use tests::session_setup::DEVICE;
use tests::{RawService, RawSession, TestDevice, TestHub, holdings, logs, wait};
use tokio::time::sleep;

/// Each has one open connection, as an idle shell does; half of the limit of sessions.
const SESSIONS: usize = 500;
/// Upper limit for each. The measured value is printed.
const MOST: u64 = 32 << 10;

#[tokio::test]
async fn a_detached_idle_session_is_small() {
    logs::keep();
    holdings::allow_descriptors(4_096);
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    let service = RawService::new(&hub).await;
    // One-time allocations do not count.
    leave_detached(&service, 20).await;
    let (memory, tasks) = (settled().await, holdings::tasks());
    leave_detached(&service, SESSIONS).await;
    wait("the sessions to be detached", || {
        logs::lines(&["session detached"]).len() == SESSIONS + 20
    })
    .await;
    let each = settled().await.saturating_sub(memory) / SESSIONS as u64;
    let tasks = (holdings::tasks() - tasks) as f64 / SESSIONS as f64;
    println!("a detached idle session: {each} bytes and {tasks:.1} tasks at the device");
    assert!(each < MOST, "{each} bytes");
}

/// Begins sessions, opens a connection in each, and disconnects.
async fn leave_detached(service: &RawService, count: usize) {
    for _ in 0..count {
        let mut session = RawSession::begin(service, DEVICE, "echo").await;
        session.live.open().unwrap();
        let opened = format!("session={} connection=1", session.id);
        wait("the connection", || {
            !logs::lines(&["connection opened", &opened]).is_empty()
        })
        .await;
        session.lose().await;
    }
}

/// Resident memory, once it is stable.
async fn settled() -> u64 {
    let mut before = 0;
    loop {
        sleep(Duration::from_millis(300)).await;
        let now = holdings::memory();
        if now.abs_diff(before) < 64 << 10 {
            return now;
        }
        before = now;
    }
}
