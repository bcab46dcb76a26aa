//! What a device-proxy dials: services with good and bad manners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How a target behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Sends back what comes, and ends when its client does.
    Echo,
    /// Takes connections and does nothing with them.
    Silent,
    /// Sends without end, and never reads.
    Flood,
    /// Closes each connection at once.
    CloseAtOnce,
    /// Reads to the end of input, then answers with the number of bytes, in decimal.
    Count,
}

/// A local TCP service; dropped, it is gone.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Bytes it has sent, over all connections.
    pub sent: Arc<AtomicU64>,
    /// Connections it has now.
    pub connections: Arc<AtomicU64>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Target {
    /// Starts a service on a free port.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sent, connections): (Arc<AtomicU64>, Arc<AtomicU64>) = Default::default();
        let counters = (Arc::clone(&sent), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (sent, connections) = counters.clone();
                connections.fetch_add(1, Relaxed);
                tasks.spawn(async move {
                    serve(socket, manner, &sent).await;
                    connections.fetch_sub(1, Relaxed);
                });
            }
        });
        Self {
            address,
            sent,
            connections,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    /// An address where nothing listens.
    pub async fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }
}

async fn serve(mut socket: TcpStream, manner: Manner, sent: &AtomicU64) {
    match manner {
        Manner::Echo => {
            let (mut reader, mut writer) = socket.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        }
        // Reads nothing, but notices the end of the connection.
        Manner::Silent => {
            let mut byte = [0];
            while socket.peek(&mut byte).await.is_ok_and(|count| count > 0) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
        Manner::Flood => {
            let noise = [0x5a; 64 << 10];
            while let Ok(count) = socket.write(&noise).await {
                sent.fetch_add(count as u64, Relaxed);
            }
        }
        Manner::CloseAtOnce => {}
        Manner::Count => {
            let mut all = Vec::new();
            if let Ok(count) = socket.read_to_end(&mut all).await {
                let _ = socket.write_all(count.to_string().as_bytes()).await;
            }
        }
    }
}
