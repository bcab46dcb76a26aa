//! Devices that take direct methods, count them, and connect again when the hub is back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::clock::unix_now;
use common::connection_string::DeviceConnectionString;
use common::mqtt::{self, ConnectReturnCode, Packet, PacketIo};
use common::net::{Dialer, TlsHostStream};
use common::wire::method::{self, MethodRequest, MethodResponse};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::raw_device::{connect_packet, password};
use crate::wait;

/// Some devices of one hub; they end when this is dropped.
pub struct MethodDevices {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    port: u16,
    dialer: Dialer,
    calls: Mutex<BTreeMap<String, usize>>,
    connected: AtomicUsize,
    /// Whether those answer that hold back at first.
    all_answer: AtomicBool,
}

impl MethodDevices {
    /// None yet, at the hub with this port for MQTT over TLS.
    pub fn new(port: u16, tls: &Arc<rustls::ClientConfig>) -> Self {
        Self {
            shared: Arc::new(Shared {
                port,
                dialer: Dialer::new(tls),
                calls: Mutex::default(),
                connected: AtomicUsize::new(0),
                all_answer: AtomicBool::new(false),
            }),
            tasks: JoinSet::new(),
        }
    }

    /// Adds one. It answers each call with 200, or with nothing if it `holds_back`, until
    /// [`MethodDevices::answer_all`].
    pub fn add(&mut self, connection: DeviceConnectionString, holds_back: bool) {
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            loop {
                if let Some(io) = shared.connect(&connection).await {
                    shared.connected.fetch_add(1, Ordering::Relaxed);
                    shared.serve(&connection, io, holds_back).await;
                    shared.connected.fetch_sub(1, Ordering::Relaxed);
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// From now on all of them answer; not what has come before.
    pub fn answer_all(&self) {
        self.shared.all_answer.store(true, Ordering::Relaxed);
    }

    /// Waits until all are connected.
    pub async fn connected(&self) {
        let all = || self.shared.connected.load(Ordering::Relaxed) == self.tasks.len();
        wait("all devices", all).await;
    }

    /// How many calls each has taken that has taken any.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        self.shared.calls.lock().unwrap().clone()
    }
}

impl Shared {
    /// A connected and subscribed session; nothing when the hub is not there.
    async fn connect(
        &self,
        connection: &DeviceConnectionString,
    ) -> Option<PacketIo<TlsHostStream>> {
        let stream = self.dialer.tls("localhost", self.port).await.ok()?;
        let mut io = PacketIo::new(stream, 1 << 20);
        let password = password(connection, unix_now() + 3600);
        let connect = connect_packet(connection, &password, true);
        io.write(&connect).await.ok()?;
        match io.read().await.ok()?? {
            Packet::Connack(answer) => {
                assert_eq!(answer.return_code(), ConnectReturnCode::Accepted);
            }
            other => panic!("{other:?} instead of CONNACK"),
        }
        let subscribe = mqtt::subscribe(1, &[method::FILTER]).unwrap();
        io.write(&subscribe).await.ok()?;
        match io.read().await.ok()?? {
            Packet::Suback(_) => Some(io),
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// Takes calls until the session ends.
    async fn serve(
        &self,
        connection: &DeviceConnectionString,
        mut io: PacketIo<TlsHostStream>,
        holds_back: bool,
    ) {
        while let Ok(Some(packet)) = io.read().await {
            let Packet::Publish(publish) = packet else {
                continue;
            };
            let call = MethodRequest::from_topic(publish.topic_name()).unwrap();
            let name = connection.identity.to_string();
            *self.calls.lock().unwrap().entry(name).or_default() += 1;
            if holds_back && !self.all_answer.load(Ordering::Relaxed) {
                continue;
            }
            let answer = MethodResponse {
                request_id: call.request_id,
                status: 200,
            };
            let answer = mqtt::publish_with(&answer.to_topic(), b"{}").unwrap();
            if io.write(&answer).await.is_err() {
                return;
            }
        }
    }
}
