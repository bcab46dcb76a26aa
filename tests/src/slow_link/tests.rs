//! Tests of delays, freezes and resets, also with a hub behind the link.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::Instant;

use super::pump::CHUNK;
use super::*;
use crate::target::Behaviour;
use crate::{Target, TestDevice, TestHub, TestService};

const DELAY: Duration = Duration::from_millis(25);

/// One direction on its own: both ends, and the number of bytes it has read.
fn direction(line: &Arc<Line>) -> (DuplexStream, DuplexStream, Arc<AtomicU64>) {
    let (near, from) = duplex(CHUNK);
    let (to, far) = duplex(CHUNK);
    let taken = Arc::new(AtomicU64::new(0));
    let (line, counter) = (Arc::clone(line), Arc::clone(&taken));
    tokio::spawn(async move {
        let count = |bytes| _ = counter.fetch_add(bytes, Relaxed);
        let _ = pump(from, to, &line, count).await;
    });
    (near, far, taken)
}

async fn read(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    soon("bytes", stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn is_reset(stream: &mut TcpStream) {
    let mut byte = [0];
    let error = soon("a reset", stream.read(&mut byte)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

async fn echo_behind(settings: Settings) -> (Target, SlowLink, TcpStream) {
    let target = Target::start(Behaviour::Echo).await;
    let link = SlowLink::start(Some(target.address), settings).await;
    let mut client = TcpStream::connect(link.address).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"hello");
    (target, link, client)
}

#[tokio::test(start_paused = true)]
async fn bytes_and_the_end_are_late_by_the_delay_and_in_order() {
    let line = Arc::new(Line::new(DELAY, 0));
    let (mut near, mut far, _) = direction(&line);
    let start = Instant::now();
    near.write_all(b"one").await.unwrap();
    tokio::time::sleep(DELAY / 2).await;
    near.write_all(b"two").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    // With a shorter delay, later bytes do not overtake earlier ones.
    line.delay.send_replace(Duration::ZERO);
    near.write_all(b"three").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(read(&mut far, 3).await, b"one");
    assert_eq!(start.elapsed().as_millis(), DELAY.as_millis());
    assert_eq!(read(&mut far, 8).await, b"twothree");
    let late = start.elapsed() - DELAY * 3 / 2;
    assert!(late <= Duration::from_millis(1), "{late:?}");
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_the_way_is_bounded() {
    let (near, mut far, taken) = direction(&Arc::new(Line::new(DELAY, 4 * CHUNK)));
    let (_, mut near) = tokio::io::split(near);
    let writer = tokio::spawn(async move {
        near.write_all(&[7; 64 * CHUNK]).await.unwrap();
        near.shutdown().await.unwrap();
    });
    // The paused clock advances only when every task is idle.
    tokio::time::sleep(DELAY * 100).await;
    // The last chunk taken from the queue is in the reader's own buffer.
    let most = 5 * CHUNK as u64;
    assert!((4 * CHUNK as u64..=most).contains(&taken.load(Relaxed)));
    let bytes = read(&mut far, 64 * CHUNK).await;
    assert!(bytes.iter().all(|byte| *byte == 7));
    writer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_frozen_direction_keeps_what_it_has() {
    let line = Arc::new(Line::new(DELAY, 0));
    let (mut near, mut far, _) = direction(&line);
    line.frozen.send_replace(true);
    near.write_all(b"bytes").await.unwrap();
    let mut bytes = [0; 5];
    let early = tokio::time::timeout(DELAY * 100, far.read(&mut bytes)).await;
    assert!(early.is_err());
    line.frozen.send_replace(false);
    assert_eq!(read(&mut far, 5).await, b"bytes");
}

#[tokio::test]
async fn a_reset_is_one_on_both_sides() {
    let (target, link, mut client) = echo_behind(Settings::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    link.lead_to(listener.local_addr().unwrap());
    let mut other = TcpStream::connect(link.address).await.unwrap();
    let (mut server, _) = soon("a connection", listener.accept()).await.unwrap();
    // Proves that the connection is established.
    other.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x");
    link.reset_all();
    is_reset(&mut client).await;
    is_reset(&mut other).await;
    is_reset(&mut server).await;
    link.is_empty().await;
    let counts = Counts {
        connections: 0,
        accepted: 2,
        resets: 2,
        bytes_forward: 6,
        bytes_back: 5,
    };
    assert_eq!(link.counts(), counts);
    // Later connections are not affected.
    link.lead_to(target.address);
    let mut client = TcpStream::connect(link.address).await.unwrap();
    client.write_all(b"again").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"again");
}

#[tokio::test]
async fn a_link_that_refuses_keeps_its_connections() {
    let (_target, link, mut client) = echo_behind(Settings::default()).await;
    link.refuse().await;
    let refused = TcpStream::connect(link.address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    client.write_all(b"still").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"still");
    link.allow().await;
    let mut client = TcpStream::connect(link.address).await.unwrap();
    client.write_all(b"again").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"again");
}

#[tokio::test]
async fn an_ambush_waits_for_its_bytes() {
    let (_target, link, mut early) = echo_behind(Settings::default()).await;
    link.reset_after(Some(RandomReset {
        after_bytes: 8,
        within_ms: 0..5,
    }));
    let mut client = TcpStream::connect(link.address).await.unwrap();
    client.write_all(b"abc").await.unwrap();
    // Three bytes there and three back are not enough.
    assert_eq!(read(&mut client, 3).await, b"abc");
    client.write_all(b"de").await.unwrap();
    wait("the reset", || link.counts().resets == 1).await;
    while let Ok(count) = client.read(&mut [0; 9]).await {
        assert_ne!(count, 0, "an orderly end");
    }
    early.write_all(b"not me").await.unwrap();
    assert_eq!(read(&mut early, 6).await, b"not me");
}

#[test]
fn chances_come_from_the_seed() {
    let draw = |seed| {
        let mut chance = fastrand::Rng::with_seed(seed);
        [(); 8].map(|()| pick(&mut chance, &(10..500)))
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let range = Duration::from_millis(10)..Duration::from_millis(500);
    assert!(draw(3).iter().all(|picked| range.contains(picked)));
}

#[tokio::test]
async fn a_dropped_link_is_gone() {
    let (_target, link, mut client) = echo_behind(Settings::default()).await;
    let address = link.address;
    drop(link);
    is_reset(&mut client).await;
    soon("the port's end", async {
        while TcpStream::connect(address).await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn everybody_meets_a_hub_through_its_links() {
    let settings = Settings {
        delay: Duration::from_millis(5),
        ..Settings::default()
    };
    let (hub, links) = TestHub::start_behind(settings).await;
    let connection = hub.create("MyDevice").await;
    let target = Target::start(Behaviour::Echo).await;
    let arguments = ["--target", &target.address.to_string()];
    let device = TestDevice::start(&hub, &connection, &arguments).await;
    let before = links.https.counts();
    assert_eq!(before.connections, 1, "the device's session");
    let service = TestService::listen(&hub, &["--session", "never", "MyDevice", "0"]).await;
    let start = Instant::now();
    let mut client = service.connect().await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut client, 5).await, b"hello");
    assert!(start.elapsed() > settings.delay * 8);
    // The service's request, two legs, and perhaps the connections for the next stream's legs.
    let accepted = links.https.counts().accepted - before.accepted;
    assert!((3..=5).contains(&accepted), "{accepted}");
    assert_eq!(links.mqtts.counts().accepted, 0);
    links.https.reset_all();
    wait("the tunnel's end", || target.counters.connections() == 0).await;
    soon("the client's end", async {
        while client.read(&mut [0]).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    service.shut_down().await;
    device.shut_down().await.unwrap();
    hub.shut_down().await;
}
