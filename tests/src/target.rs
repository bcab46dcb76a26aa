//! Targets of a device-proxy: TCP services that behave well or badly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How a target behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Echoes what arrives, and ends when its client does.
    Echo,
    /// Accepts connections and does nothing with them.
    Silent,
    /// Sends without end, and never reads.
    Flood,
    /// Closes each connection at once.
    CloseAtOnce,
    /// Reads, and counts the connections that ended in an orderly way.
    Sink,
}

/// What a target has seen, over all connections.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes it has sent.
    pub sent: AtomicU64,
    /// Bytes it has received and not sent back.
    pub received: AtomicU64,
    /// Connections that ended in an orderly way.
    pub ends: AtomicU64,
    /// Connections it has now.
    pub connections: AtomicU64,
}

impl Counters {
    /// Connections it has now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }
}

/// A local TCP service; dropped, it stops.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it has seen.
    pub counters: Arc<Counters>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Target {
    /// Starts a service on a free port.
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let counters = Arc::clone(&shared);
                counters.connections.fetch_add(1, Relaxed);
                tasks.spawn(async move {
                    serve(socket, behaviour, &counters).await;
                    counters.connections.fetch_sub(1, Relaxed);
                });
            }
        });
        Self {
            address,
            counters,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    /// An address where nothing listens.
    pub async fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }
}

async fn serve(mut socket: TcpStream, behaviour: Behaviour, counters: &Counters) {
    match behaviour {
        Behaviour::Echo => {
            let (mut reader, mut writer) = socket.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        }
        // Reads nothing, but detects the end of the connection.
        Behaviour::Silent => {
            let mut byte = [0];
            while socket.peek(&mut byte).await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        Behaviour::Flood => {
            let noise = [0x5a; 64 << 10];
            while let Ok(count) = socket.write(&noise).await {
                counters.sent.fetch_add(count as u64, Relaxed);
            }
        }
        Behaviour::CloseAtOnce => {}
        Behaviour::Sink => {
            let mut scrap = vec![0; 64 << 10];
            loop {
                match socket.read(&mut scrap).await {
                    Ok(0) => {
                        counters.ends.fetch_add(1, Relaxed);
                        break;
                    }
                    Ok(count) => {
                        counters.received.fetch_add(count as u64, Relaxed);
                    }
                    Err(_) => break,
                }
            }
        }
    }
}
