//! One short connection after the other, and nothing is left behind. A story of its
//! own, because it counts what the whole process holds. With `--full`, which sets
//! VOLUME_MIB to 1024, there are 100,000.

use tests::session_story::{pass, rest};
use tests::{SessionStory, holdings, wait};
use tokio::io::AsyncWriteExt as _;

/// A question, an answer, and the end; who closes first changes.
async fn short(story: &SessionStory, number: u32) {
    let (mut here, mut there) = story.pair().await;
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
    let story = SessionStory::start("short").await;
    let count = if holdings::is_full() { 100_000 } else { 2_000 };
    for number in 0..100 {
        short(&story, number).await;
    }
    let held = || (holdings::tasks(), holdings::descriptors());
    // Both ends of the last one are on their way out.
    let mut before = held();
    wait("the first ones to be gone", || {
        let now = held();
        std::mem::replace(&mut before, now) == now
    })
    .await;
    let memory = holdings::memory();
    for number in 0..count {
        short(&story, number).await;
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
