//! Many short connections one after the other leave nothing behind. A test binary of its own,
//! because it measures the whole process. With `--full`, which sets VOLUME_MIB to 1024, there are
//! 100,000.

use tests::session_setup::{pass, rest};
use tests::{SessionSetup, holdings, wait};
use tokio::io::AsyncWriteExt as _;

/// A request, a response, and the end; both sides in turn close first.
async fn short(setup: &SessionSetup, number: u32) {
    let (mut here, mut there) = setup.pair().await;
    if number % 4 == 3 {
        // Nothing at all.
        drop(here);
        assert_eq!(rest(&mut there).await, b"");
        return;
    }
    pass(&mut here, &mut there, b"a question").await;
    pass(&mut there, &mut here, b"an answer").await;
    let (mut first, mut second) = if number.is_multiple_of(2) {
        (here, there)
    } else {
        (there, here)
    };
    first.shutdown().await.unwrap();
    assert_eq!(rest(&mut second).await, b"");
    drop(second);
    assert_eq!(rest(&mut first).await, b"");
}

#[tokio::test]
async fn many_short_connections_leave_nothing() {
    let setup = SessionSetup::start("short").await;
    let count = if holdings::is_full() { 100_000 } else { 2_000 };
    for number in 0..100 {
        short(&setup, number).await;
    }
    let held = || (holdings::tasks(), holdings::descriptors());
    // Both ends of the last connection may still be closing.
    let mut before = held();
    wait("the first ones to be gone", || {
        let now = held();
        std::mem::replace(&mut before, now) == now
    })
    .await;
    let memory = holdings::memory();
    for number in 0..count {
        short(&setup, number).await;
    }
    wait("tasks and descriptors to be as many as before", || {
        let now = held();
        now.0 <= before.0 && now.1 <= before.1
    })
    .await;
    let grown = holdings::memory().saturating_sub(memory);
    println!("memory grew by {} KiB", grown >> 10);
    assert!(grown < 16 << 20, "{grown} bytes");
}
