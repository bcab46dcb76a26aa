use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

struct Sample {
    metrics: Metrics,
    is_ready: AtomicBool,
}

impl Program for Sample {
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn not_ready(&self) -> Pin<Box<dyn Future<Output = NotReady> + Send + '_>> {
        let reason = || "the hub session is down".to_owned();
        let reasons = (!self.is_ready.load(Relaxed)).then(reason);
        Box::pin(async move { reasons.into_iter().collect() })
    }
}

async fn start() -> (SocketAddr, Arc<Sample>, CancellationToken) {
    let listen = "0".parse().unwrap();
    let admin = Admin::bind(listen).await.unwrap().unwrap();
    let address = admin.address().unwrap();
    let program = Arc::new(Sample {
        metrics: Metrics::new("sample", "1.2.3", |_| {}),
        is_ready: AtomicBool::new(true),
    });
    let stop = CancellationToken::new();
    tokio::spawn(admin.run(Arc::clone(&program) as Arc<dyn Program>, stop.clone()));
    (address, program, stop)
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    ask(address, &request).await
}

#[tokio::test]
async fn it_says_what_it_counts_that_it_lives_and_whether_it_is_ready() {
    let (address, program, stop) = start().await;
    let metrics = get(address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
    assert!(
        metrics.contains("\nsample_build_info{version=\"1.2.3\"} 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\nsample_log_lines_lost_total 0\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\nprocess_start_time_seconds "),
        "{metrics}"
    );
    assert!(metrics.contains("\ntokio_alive_tasks "), "{metrics}");
    #[cfg(target_os = "linux")]
    for name in [
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ] {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let value: f64 = line.unwrap().trim().parse().unwrap();
        assert!(value > 0.0, "{name} {value}");
    }
    assert!(get(address, "/healthz").await.ends_with("\r\n\r\nalive\n"));
    assert!(get(address, "/readyz").await.ends_with("\r\n\r\nready\n"));
    program.is_ready.store(false, Relaxed);
    let answer = get(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nnot ready: the hub session is down\n"),
        "{answer}"
    );
    // Alive it is all the same.
    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200 "));
    let head = ask(address, "HEAD /metrics HTTP/1.0\r\n\r\n").await;
    assert!(
        head.ends_with("\r\n\r\n") && head.contains("Content-Length: "),
        "{head}"
    );
    // A body that nobody asked for does not cost the client its answer.
    let body = "x".repeat(20_000);
    let request =
        format!("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n{body}");
    assert!(ask(address, &request).await.starts_with("HTTP/1.1 405 "));
    let large = format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(9_000));
    assert!(ask(address, &large).await.starts_with("HTTP/1.1 431 "));
    stop.cancel();
}

#[tokio::test]
async fn who_holds_all_connections_keeps_nobody_out_and_is_closed_in_the_end() {
    let (address, _, stop) = start().await;
    let mut held = Vec::new();
    for _ in 0..3 * CONNECTIONS {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: ")
            .await
            .unwrap();
        held.push(socket);
    }
    assert!(get(address, "/healthz").await.ends_with("alive\n"));
    // The oldest had to go.
    let mut first = held.remove(0);
    let mut rest = Vec::new();
    let _ = first.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    // The newest gets its time, and not more.
    let mut last = held.pop().unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    stop.cancel();
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let (address, _, stop) = start().await;
    let listen: AdminListen = address.to_string().parse().unwrap();
    let error = Admin::bind(listen).await.err().unwrap();
    assert!(error.to_string().contains(&address.to_string()));
    assert!(Admin::bind(AdminListen::Off).await.unwrap().is_none());
    stop.cancel();
}
