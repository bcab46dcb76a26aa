//! Streams that neither side reads while both sides send: the memory that they hold in the real
//! programs is bounded, and is returned to the system after their end. Measured as resident memory,
//! on Linux.

#![cfg(target_os = "linux")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tests::program_hub::ProgramHub;
use tests::programs::Program;
use tests::{holdings, soon, wait};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Number of simultaneous streams; the environment may set more.
const STREAMS: usize = 24;
/// Upper limit for each stream in the hub, both directions together.
const MOST: u64 = 256 << 10;
/// Time limit for the return of freed memory.
const RETURN: Duration = Duration::from_secs(20);

/// Small socket buffers, so that undelivered bytes stay in the programs.
fn socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    socket
}

/// Sends endlessly and never reads; dropped, it resets the connection.
async fn flood(mut socket: TcpStream, sent: Arc<AtomicU64>) {
    socket.set_zero_linger().unwrap();
    let noise = [0x5a; 64 << 10];
    while let Ok(count) = socket.write(&noise).await {
        sent.fetch_add(count as u64, Relaxed);
    }
}

/// Waits until no more bytes move.
async fn rest(sent: &AtomicU64) {
    let begun = Instant::now();
    let resting = tokio::time::timeout(Duration::from_secs(60), async {
        let (mut before, mut still) = (u64::MAX, 0);
        // A single check may fall into a pause of a busy machine.
        while still < 6 {
            sleep(Duration::from_millis(100)).await;
            let now = sent.load(Relaxed);
            still = if before == now { still + 1 } else { 0 };
            before = now;
        }
    });
    resting.await.expect("the streams to be full");
    println!(
        "full after {:.1} s, {} KiB",
        begun.elapsed().as_secs_f32(),
        sent.load(Relaxed) >> 10
    );
}

/// Opens streams to the port, and returns when all are full in both directions.
async fn fill(port: u16, target: &TcpListener, count: usize) -> JoinSet<()> {
    let sent = Arc::new(AtomicU64::new(0));
    let mut sockets = Vec::new();
    for _ in 0..count {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        sockets.push(socket().connect(address).await.unwrap());
        let (there, _) = soon("the target", target.accept()).await.unwrap();
        sockets.push(there);
    }
    let mut floods = JoinSet::new();
    for socket in sockets {
        floods.spawn(flood(socket, Arc::clone(&sent)));
    }
    rest(&sent).await;
    floods
}

/// Memory of one program, before, during and after.
struct Account<'a> {
    name: &'static str,
    program: &'a Program,
    before: u64,
    during: u64,
}

impl<'a> Account<'a> {
    fn open(name: &'static str, program: &'a Program) -> Self {
        let before = holdings::memory_of(program.id());
        Self {
            name,
            program,
            before,
            during: 0,
        }
    }

    fn now(&self) -> u64 {
        holdings::memory_of(self.program.id())
    }

    fn grown(&self) -> u64 {
        self.during.saturating_sub(self.before)
    }

    /// Whether three quarters of the growth have been returned.
    fn is_back(&self) -> bool {
        self.now().saturating_sub(self.before) <= self.grown() / 4
    }
}

#[tokio::test]
async fn a_stuck_stream_holds_little_and_its_memory_goes_back() {
    let asked = std::env::var("STUCK_STREAMS").ok();
    let streams = asked.map_or(STREAMS, |count| count.parse().unwrap());
    holdings::allow_descriptors(4_096);
    let hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "d"]);
    let target = socket();
    target.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = target.listen(128).unwrap();
    let address = target.local_addr().unwrap().to_string();
    let device = hub.device(&connection, &address);
    device.line("connected").await;
    let (service, port) = hub
        .service(&["listen", "d", "0", "--session", "never"])
        .await;
    // One-time allocations do not count.
    drop(fill(port, &target, 2).await);
    wait("the first streams' end", || {
        hub.program.count("stream closed") == 2
    })
    .await;
    let mut accounts = [
        Account::open("stream-hub", &hub.program),
        Account::open("device-proxy", &device),
        Account::open("service-proxy", &service),
    ];
    let floods = fill(port, &target, streams).await;
    // What was freed while the streams filled is returned to the system with a delay.
    let most = MOST * streams as u64;
    let filled = Instant::now();
    while filled.elapsed() < RETURN && accounts[0].now() > accounts[0].before + most {
        sleep(Duration::from_millis(200)).await;
    }
    for account in &mut accounts {
        account.during = account.now();
    }
    drop(floods);
    soon("the streams' end", async {
        while hub.program.count("stream closed") < streams + 2 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let ended = Instant::now();
    while ended.elapsed() < RETURN && !accounts.iter().all(Account::is_back) {
        sleep(Duration::from_millis(200)).await;
    }
    let seconds = ended.elapsed().as_secs_f32();
    for account in &accounts {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{}: {:.1} MiB before, {:.1} with {streams} stuck streams ({} KiB each), {:.1} when they were gone for {seconds:.1} s",
            account.name,
            mib(account.before),
            mib(account.during),
            (account.grown() / streams as u64) >> 10,
            mib(account.now()),
        );
    }
    let each = accounts[0].grown() / streams as u64;
    assert!(each <= MOST, "{each} bytes of the hub for each");
    // On other systems the programs use the system's allocator (docs/performance.md).
    if !cfg!(all(target_env = "gnu", target_arch = "x86_64")) {
        return;
    }
    for account in &accounts {
        assert!(
            account.is_back(),
            "{} keeps {} bytes",
            account.name,
            account.now()
        );
    }
}
