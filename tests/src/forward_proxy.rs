//! A proxy as corporate networks have them, in this process: HTTP CONNECT or SOCKS5 with names. It is
//! the only way to a [`TestHub::start_hidden`], whose name no resolver knows.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::TestHub;

/// The password of every proxy that wants one, as in `Proxy-Authorization`.
const BASIC: &str = "Basic YWRhOm9wZW4gc2VzYW1l";
/// The same in a URL.
pub const IN_URL: &str = "ada:open%20sesame@";

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP CONNECT.
    Http,
    /// HTTP CONNECT, with a password.
    HttpBasic,
    /// SOCKS5 with user name and password.
    Socks,
}

/// A running proxy; dropped, it stops and its connections are cut.
pub struct ForwardProxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

struct Shared {
    kind: Kind,
    /// What it was asked for, and has opened.
    opened: Mutex<Vec<String>>,
    /// How often it was asked at all.
    asked: Mutex<usize>,
}

impl ForwardProxy {
    /// Starts one.
    pub async fn start(kind: Kind) -> Self {
        let shared = Arc::new(Shared {
            kind,
            opened: Mutex::default(),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            running: tokio::spawn(accept(listener, Arc::clone(&shared))),
            shared,
        }
    }

    /// Cuts all connections, and refuses new ones.
    pub async fn stop(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
    }

    /// Accepts connections again, at the same address.
    pub async fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.running = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
    }

    /// The targets that it has opened connections to, as `HOST:PORT`.
    pub fn opened(&self) -> Vec<String> {
        self.shared.opened.lock().unwrap().clone()
    }

    /// How often it was asked for a connection.
    pub fn asked(&self) -> usize {
        *self.shared.asked.lock().unwrap()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // The other side may leave at any time.
            let _ = match shared.kind {
                Kind::Socks => shared.socks(socket).await,
                Kind::Http | Kind::HttpBasic => shared.http(socket).await,
            };
        });
        while connections.try_join_next().is_some() {}
    }
}

impl Shared {
    async fn http(&self, mut socket: TcpStream) -> io::Result<()> {
        loop {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await?);
            }
            *self.asked.lock().unwrap() += 1;
            let request = String::from_utf8(request).unwrap();
            let login = format!("\r\nProxy-Authorization: {BASIC}\r\n");
            if self.kind == Kind::HttpBasic && !request.contains(&login) {
                let answer = "HTTP/1.1 407 Who are you?\r\nProxy-Authenticate: Basic realm=\"corp\"\r\nContent-Length: 3\r\n\r\nno\n";
                socket.write_all(answer.as_bytes()).await?;
                continue;
            }
            let target = request.strip_prefix("CONNECT ").unwrap();
            let (target, _) = target.split_once(' ').unwrap();
            return match self.open(target).await {
                Ok(hub) => {
                    let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
                    socket.write_all(answer).await?;
                    carry(socket, hub).await
                }
                Err(_) => socket.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await,
            };
        }
    }

    async fn socks(&self, mut socket: TcpStream) -> io::Result<()> {
        let mut greeting = [0; 4];
        socket.read_exact(&mut greeting).await?;
        *self.asked.lock().unwrap() += 1;
        assert_eq!(greeting, [5, 2, 0, 2], "without and with a password");
        socket.write_all(&[5, 2]).await?;
        let mut password = [0; 17];
        socket.read_exact(&mut password).await?;
        let is_right = &password == b"\x01\x03ada\x0bopen sesame";
        socket.write_all(&[1, (!is_right).into()]).await?;
        let mut head = [0; 4];
        socket.read_exact(&mut head).await?;
        assert_eq!(head, [5, 1, 0, 3], "connect to a name");
        let length = socket.read_u8().await?;
        let mut name = vec![0; length.into()];
        socket.read_exact(&mut name).await?;
        let port = socket.read_u16().await?;
        let target = format!("{}:{port}", String::from_utf8(name).unwrap());
        let opened = self.open(&target).await;
        let code = if opened.is_ok() { 0 } else { 5 };
        socket.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        carry(socket, opened?).await
    }

    /// Connects to the hub, which is on this machine; nothing else is let through.
    async fn open(&self, target: &str) -> io::Result<TcpStream> {
        let Some((TestHub::HIDDEN, port)) = target.rsplit_once(':') else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await?;
        self.opened.lock().unwrap().push(target.to_owned());
        Ok(stream)
    }
}

async fn carry(mut near: TcpStream, mut far: TcpStream) -> io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    copy_bidirectional(&mut near, &mut far).await.map(drop)
}
