//! A device that a test drives by hand, MQTT packet by packet.

use std::future::poll_fn;

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::mqtt::{
    self, ConnectReturnCode, Packet, PacketIo, Qos, SubEntry, SubOpts, SubackReturnCode, packet,
};
use common::net::{self, Dialer, TlsHostStream};
use common::sas_token;
use common::websocket::{Incoming, WebSocket};
use common::wire::stream::{REQUEST_FILTER, RESPONSE_FILTER, StreamAnswer, StreamRequest};
use common::wire::streaming_endpoint::StreamingEndpoint;
use common::wire::topics;
use common::wire::twin::{self, BootId, SessionReport, TwinResponse};
use serde_json::Value;

use crate::{TestHub, messages, soon};

/// A leg of the device.
pub type DeviceLeg = WebSocket<TlsHostStream>;

/// Echoes what arrives until the leg ends.
pub async fn echo(mut leg: DeviceLeg) {
    while let Ok(Incoming::Data(data)) = poll_fn(|cx| leg.poll_incoming(cx)).await {
        messages::send(&mut leg, data.into_bytes()).await;
    }
}

/// One MQTT connection of a device.
pub struct RawDevice {
    /// Its packets.
    pub io: PacketIo<TlsHostStream>,
    tls: std::sync::Arc<rustls::ClientConfig>,
}

/// A SAS token for this identity that expires at the given time.
pub fn password(connection: &DeviceConnectionString, expiry: u64) -> String {
    let DeviceCredential::Key { key, .. } = &connection.credential else {
        panic!("no key")
    };
    let resource = format!(
        "{}/{}",
        connection.host.name(),
        connection.identity.resource_path()
    );
    sas_token::mint(&resource, key, None, expiry)
        .expose()
        .to_owned()
}

/// The bytes of CONNECT with this password.
pub fn connect_packet(
    connection: &DeviceConnectionString,
    password: &str,
    clean_session: bool,
) -> Vec<u8> {
    let identity = &connection.identity;
    let connect = packet::Connect::builder()
        .client_id(identity.to_string())
        .unwrap()
        .user_name(topics::user_name(connection.host.name(), identity, "test"))
        .unwrap()
        .password(password)
        .unwrap()
        .clean_session(clean_session)
        .keep_alive(240)
        .build()
        .unwrap();
    connect.to_continuous_buffer()
}

impl RawDevice {
    /// Opens the connection and sends nothing.
    pub async fn open(hub: &TestHub) -> Self {
        Self::at(hub.mqtts.port(), hub.tls()).await
    }

    /// The same at this port.
    pub async fn at(port: u16, tls: std::sync::Arc<rustls::ClientConfig>) -> Self {
        let stream = Dialer::new(&tls).tls("localhost", port).await.unwrap();
        Self {
            io: PacketIo::new(stream, 1 << 20),
            tls,
        }
    }

    /// Sends CONNECT for a clean session with this password and returns the hub's return code.
    pub async fn hello(
        &mut self,
        connection: &DeviceConnectionString,
        password: &str,
    ) -> ConnectReturnCode {
        self.hello_with(connection, password, true).await.0
    }

    /// A connected device, and whether the hub had a session of it.
    pub async fn resume(
        hub: &TestHub,
        connection: &DeviceConnectionString,
        clean_session: bool,
    ) -> (Self, bool) {
        let mut device = Self::open(hub).await;
        let password = password(connection, unix_now() + 3600);
        let (verdict, present) = device
            .hello_with(connection, &password, clean_session)
            .await;
        assert_eq!(verdict, ConnectReturnCode::Accepted);
        (device, present)
    }

    async fn hello_with(
        &mut self,
        connection: &DeviceConnectionString,
        password: &str,
        clean_session: bool,
    ) -> (ConnectReturnCode, bool) {
        let connect = connect_packet(connection, password, clean_session);
        self.io.write(&connect).await.unwrap();
        match self.packet().await {
            Packet::Connack(answer) => (answer.return_code(), answer.session_present()),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// A device that is connected and takes stream requests.
    pub async fn connect(hub: &TestHub, connection: &DeviceConnectionString) -> Self {
        let mut device = Self::open(hub).await;
        let verdict = device
            .hello(connection, &password(connection, unix_now() + 3600))
            .await;
        assert_eq!(verdict, ConnectReturnCode::Accepted);
        device.subscribe().await;
        device
    }

    /// Subscribes the two stream filters, as the C SDK does.
    pub async fn subscribe(&mut self) {
        let options = || SubOpts::new().set_qos(Qos::AtMostOnce);
        let subscribe = packet::Subscribe::builder()
            .packet_id(2u16)
            .entries(vec![
                SubEntry::new(REQUEST_FILTER, options()).unwrap(),
                SubEntry::new(RESPONSE_FILTER, options()).unwrap(),
            ])
            .build()
            .unwrap();
        self.io
            .write(&subscribe.to_continuous_buffer())
            .await
            .unwrap();
        match self.packet().await {
            Packet::Suback(answer) => assert_eq!(answer.return_codes().len(), 2),
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// Subscribes the filter for responses about the twin.
    pub async fn subscribe_twin(&mut self) {
        self.subscribe_to(twin::RESPONSE_FILTER).await;
    }

    /// Subscribes a filter that the hub knows.
    pub async fn subscribe_to(&mut self, filter: &str) {
        let subscribe = mqtt::subscribe(4, &[filter]).unwrap();
        self.io.write(&subscribe).await.unwrap();
        match self.packet().await {
            Packet::Suback(answer) => {
                assert_eq!(
                    answer.return_codes(),
                    &[SubackReturnCode::SuccessMaximumQos0]
                );
            }
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    /// The next message: its topic and its payload.
    pub async fn message(&mut self) -> (String, Vec<u8>) {
        match self.packet().await {
            Packet::Publish(publish) => (
                publish.topic_name().to_owned(),
                publish.payload().as_slice().to_vec(),
            ),
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Publishes with QoS 0.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) {
        let bytes = mqtt::publish_with(topic, payload).unwrap();
        self.io.write(&bytes).await.unwrap();
    }

    /// The next response about the twin, and its payload.
    pub async fn twin_response(&mut self) -> (TwinResponse, Vec<u8>) {
        match self.packet().await {
            Packet::Publish(publish) => {
                assert_eq!(publish.qos(), Qos::AtMostOnce);
                let payload = publish.payload().as_slice().to_vec();
                let response = TwinResponse::from_topic(publish.topic_name());
                (response.unwrap(), payload)
            }
            other => panic!("{other:?} instead of an answer about the twin"),
        }
    }

    /// Reads the twin, by a request of this id.
    pub async fn twin(&mut self, rid: &str) -> Value {
        let topic = format!("$iothub/twin/GET/?$rid={rid}");
        self.publish(&topic, b" ").await;
        let (response, body) = self.twin_response().await;
        assert_eq!(response.request_id.as_str(), rid);
        assert_eq!((response.status, response.version), (200, None));
        serde_json::from_slice(&body).unwrap()
    }

    /// Reports support of session mode in its twin.
    pub async fn report_sessions(&mut self) {
        self.subscribe_twin().await;
        let report = SessionReport {
            version: twin::SESSION_VERSION,
            boot_id: BootId::random(),
        };
        let patch = report.to_patch().to_string();
        let topic = "$iothub/twin/PATCH/properties/reported/?$rid=1";
        self.publish(topic, patch.as_bytes()).await;
        let (response, _) = self.twin_response().await;
        assert!(response.is_success());
    }

    /// Sends raw bytes.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.io.write(bytes).await.unwrap();
    }

    /// As [`RawDevice::send`], on a connection that the hub may have closed.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.io.write(bytes).await
    }

    /// Whether a ping that was sent is answered before the connection ends. Other packets are
    /// skipped.
    pub async fn answers_ping(&mut self) -> bool {
        soon("an answer to a ping, or the end", async {
            loop {
                match self.io.read().await {
                    Ok(Some(Packet::Pingresp)) => return true,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return false,
                }
            }
        })
        .await
    }

    /// The return code for a CONNECT; `None` when the hub only closes the connection.
    pub async fn verdict(&mut self) -> Option<ConnectReturnCode> {
        match soon("the hub's verdict", self.io.read()).await {
            Ok(Some(Packet::Connack(answer))) => Some(answer.return_code()),
            Ok(Some(other)) => panic!("{other:?} instead of CONNACK"),
            Ok(None) | Err(_) => None,
        }
    }

    /// The next packet.
    pub async fn packet(&mut self) -> Packet {
        match soon("an MQTT packet", self.io.read()).await {
            Ok(Some(packet)) => packet,
            other => panic!("{other:?} instead of a packet"),
        }
    }

    /// The next packet, however late it comes. Never, once the connection has ended.
    pub async fn packet_without_limit(&mut self) -> Packet {
        match self.io.read().await {
            Ok(Some(packet)) => packet,
            _ => std::future::pending().await,
        }
    }

    /// Waits until the hub closes the connection; packets that arrive before are skipped.
    pub async fn ended(&mut self) {
        soon("the end of the session", async {
            while let Ok(Some(_)) = self.io.read().await {}
        })
        .await;
    }

    /// The next stream request.
    pub async fn request(&mut self) -> StreamRequest {
        match self.packet().await {
            Packet::Publish(publish) => StreamRequest::from_topic(publish.topic_name()).unwrap(),
            other => panic!("{other:?} instead of a stream request"),
        }
    }

    /// Accepts or rejects a stream request.
    pub async fn answer(&mut self, request: &StreamRequest, accepted: bool) {
        let answer = StreamAnswer {
            request_id: request.request_id.clone(),
            accepted,
        };
        let bytes = mqtt::publish(&answer.to_topic()).unwrap();
        self.io.write(&bytes).await.unwrap();
    }

    /// Opens the device's leg.
    pub async fn leg(&self, request: &StreamRequest) -> DeviceLeg {
        let endpoint = StreamingEndpoint::parse(&request.url).unwrap();
        net::leg(&Dialer::new(&self.tls), &endpoint, &request.token)
            .await
            .unwrap()
    }
}
