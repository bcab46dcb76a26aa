//! A hub whose part a test plays: TLS with a CA of its own, MQTT and HTTP by hand.

use std::path::PathBuf;
use std::sync::Arc;

use common::mqtt::{self, ConnectReturnCode, Packet, PacketIo, SubEntry, SubackReturnCode, packet};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::soon;

/// A connection of a client.
pub type Stream = TlsStream<TcpStream>;

/// Listens on two ports, and sends nothing by itself.
pub struct RawHub {
    folder: TempDir,
    tls: TlsAcceptor,
    https: TcpListener,
    mqtts: TcpListener,
}

impl RawHub {
    /// One that is known as `localhost`.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = folder.path().join("tls");
        std::fs::create_dir(&tls).unwrap();
        let made = hub::tls::ca::ensure(&tls, "localhost", OffsetDateTime::now_utc()).unwrap();
        Self::start_in(folder, made.certificates, made.key).await
    }

    /// One with this certificate, and without a CA.
    pub async fn start_with(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), vec![certificate], key).await
    }

    async fn start_in(
        folder: TempDir,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Self {
        let config = ServerConfig::builder_with_provider(common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self {
            folder,
            tls: TlsAcceptor::from(Arc::new(config)),
            https: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            mqtts: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        }
    }

    /// The CA's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("tls/ca.pem")
    }

    /// Address of HTTPS.
    pub fn https_port(&self) -> u16 {
        self.https.local_addr().unwrap().port()
    }

    /// Address of MQTT over TLS.
    pub fn mqtts_port(&self) -> u16 {
        self.mqtts.local_addr().unwrap().port()
    }

    /// Accepts a device: answers its CONNECT, its SUBSCRIBE, its first report and its reading of the
    /// twin, which is empty. `None` when it disconnected before that.
    pub async fn device(&self) -> Option<PacketIo<Stream>> {
        self.device_with(r#"{"desired":{"$version":1},"reported":{"$version":1}}"#)
            .await
    }

    /// The same with this twin.
    pub async fn device_with(&self, twin: &str) -> Option<PacketIo<Stream>> {
        let mut io = self.subscribed(|_| true).await?;
        // Its session report; stream requests are taken only after it.
        let Ok(Some(Packet::Publish(report))) = io.read().await else {
            return None;
        };
        let (_, id) = report.topic_name().split_once("$rid=")?;
        let taken = format!("$iothub/twin/res/204/?$rid={id}&$version=2");
        io.write(&publish(taken.as_bytes())).await.ok()?;
        // So they are until the desired properties are known.
        let Ok(Some(Packet::Publish(read))) = io.read().await else {
            return None;
        };
        let (_, id) = read.topic_name().split_once("$rid=")?;
        let topic = format!("$iothub/twin/res/200/?$rid={id}");
        let answer = mqtt::publish_with(&topic, twin.as_bytes()).ok()?;
        io.write(&answer).await.ok()?;
        Some(io)
    }

    /// Accepts a device: answers its CONNECT and its SUBSCRIBE, and grants some filters. `None` when
    /// it disconnected before that.
    pub async fn subscribed(&self, is_granted: fn(&str) -> bool) -> Option<PacketIo<Stream>> {
        let (socket, _) = soon("a device", self.mqtts.accept()).await.unwrap();
        let mut io = PacketIo::new(self.tls.accept(socket).await.ok()?, 1 << 20);
        let Ok(Some(Packet::Connect(_))) = io.read().await else {
            return None;
        };
        let connack = packet::Connack::builder()
            .session_present(false)
            .return_code(ConnectReturnCode::Accepted)
            .build()
            .unwrap();
        io.write(&connack.to_continuous_buffer()).await.ok()?;
        let Ok(Some(Packet::Subscribe(subscribe))) = io.read().await else {
            return None;
        };
        let code = |entry: &SubEntry| {
            if is_granted(entry.topic_filter()) {
                SubackReturnCode::SuccessMaximumQos0
            } else {
                SubackReturnCode::Failure
            }
        };
        let suback = packet::Suback::builder()
            .packet_id(subscribe.packet_id())
            .return_codes(subscribe.entries().iter().map(code).collect())
            .build()
            .unwrap();
        io.write(&suback.to_continuous_buffer()).await.ok()?;
        Some(io)
    }

    /// The next HTTP request up to its body, and its connection. Waits without a limit.
    pub async fn request(&self) -> (Stream, String) {
        loop {
            let (socket, _) = self.https.accept().await.unwrap();
            // Some connections are opened in advance and send nothing.
            if let Ok(mut stream) = self.tls.accept(socket).await
                && let Some(head) = head(&mut stream).await
            {
                return (stream, head);
            }
        }
    }
}

/// Reads a request's head.
pub async fn head(stream: &mut Stream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Sends an answer and closes the connection.
pub async fn answer(mut stream: Stream, answer: &[u8]) {
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

/// The answer to a WebSocket upgrade.
pub fn switching(head: &str) -> String {
    let key = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .starts_with("sec-websocket-key:")
                .then(|| line[18..].trim())
        })
        .unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        tungstenite::handshake::derive_accept_key(key.as_bytes())
    )
}

/// A PUBLISH with QoS 0 and any topic.
pub fn publish(topic: &[u8]) -> Vec<u8> {
    let mut rest = topic.len() + 2;
    let mut bytes = vec![0x30];
    while rest > 0x7f {
        bytes.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    bytes.extend_from_slice(topic);
    bytes
}
