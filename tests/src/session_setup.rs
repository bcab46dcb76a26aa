//! Both proxies in session mode; the test itself is the client and the target.

use common::connection_string::DeviceConnectionString;
use common::tunnel::ConnectionSocket as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::hub::Links;
use crate::{TestDevice, TestHub, TestService, slow_link, soon};

/// The device's name in these tests.
pub const DEVICE: &str = "MyDevice";

/// A hub, a device with one target, and a port that leads there.
pub struct SessionSetup {
    /// The hub between the two.
    pub hub: TestHub,
    /// The device's name and key.
    pub connection: DeviceConnectionString,
    /// Offers one target.
    pub device: TestDevice,
    /// Has one port, which leads to the target.
    pub service: TestService,
    /// The target's listener; the test accepts its connections.
    pub target: TcpListener,
    /// The target's name.
    pub name: String,
}

impl SessionSetup {
    /// Starts everything with a target of this name, by which a test finds its log lines.
    pub async fn start(name: &str) -> Self {
        Self::on(TestHub::start().await, name, &[], &[]).await
    }

    /// As [`SessionSetup::start`], with all traffic through links: the device's hub session through
    /// the link for MQTT, everything else through the other.
    pub async fn behind_links(name: &str) -> (Self, Links) {
        let (hub, links) = TestHub::start_behind(slow_link::Settings::default()).await;
        let setup = Self::on(hub, name, &["--transport", "mqtt"], &[]).await;
        (setup, links)
    }

    /// As [`SessionSetup::start`], at this hub and with more options for both proxies.
    pub async fn on(
        hub: TestHub,
        name: &str,
        device_options: &[&str],
        service_options: &[&str],
    ) -> Self {
        let connection = hub.create(DEVICE).await;
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let option = format!("{name}={}", target.local_addr().unwrap());
        let options = [&["--target", &option], device_options].concat();
        let device = TestDevice::start(&hub, &connection, &options).await;
        let port = format!("0:{name}");
        let always = ["--session", "always", DEVICE, &port];
        let service = TestService::listen(&hub, &[service_options, &always].concat()).await;
        Self {
            hub,
            connection,
            device,
            service,
            target,
            name: name.to_owned(),
        }
    }

    /// Opens a connection: the client's end and the target's.
    pub async fn pair(&self) -> (TcpStream, TcpStream) {
        let here = self.service.connect().await;
        let (there, _) = soon("the target's connection", self.target.accept())
            .await
            .unwrap();
        (here, there)
    }
}

/// Passes a few bytes in each direction.
pub async fn talk(here: &mut TcpStream, there: &mut TcpStream) {
    pass(here, there, b"a question").await;
    pass(there, here, b"the answer").await;
}

/// Sends bytes and checks that they arrive.
pub async fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).await.unwrap();
    let mut arrived = vec![0; bytes.len()];
    soon("the bytes", to.read_exact(&mut arrived))
        .await
        .unwrap();
    assert_eq!(arrived, bytes);
}

/// Reads up to the orderly end of the connection.
pub async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    soon("the end", socket.read_to_end(&mut all)).await.unwrap();
    all
}

/// Waits for a reset, and skips the bytes before it.
pub async fn reset(socket: &mut TcpStream) {
    let mut all = Vec::new();
    let end = soon("a reset", socket.read_to_end(&mut all)).await;
    let error = end.expect_err("an orderly end instead of a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Resets a connection.
pub fn break_off(socket: TcpStream) {
    socket.arm();
}
