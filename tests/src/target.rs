//! What a device-proxy dials: services with good and bad manners.

use std::net::SocketAddr;

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
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Target {
    /// Starts a service on a free port.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, manner));
            }
        });
        Self {
            address,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    /// An address where nothing listens.
    pub async fn nowhere() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }
}

async fn serve(mut socket: TcpStream, manner: Manner) {
    match manner {
        Manner::Echo => {
            let (mut reader, mut writer) = socket.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            let _ = writer.shutdown().await;
        }
        Manner::Silent => std::future::pending().await,
        Manner::Flood => {
            let noise = [0x5a; 64 << 10];
            while socket.write_all(&noise).await.is_ok() {}
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
