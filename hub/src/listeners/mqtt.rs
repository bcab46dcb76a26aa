//! MQTT over TLS from devices.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::Permit;
use super::tls::{ServerTls, client_certificate};
use crate::device_session;
use crate::state::HubState;

/// What each connection of the MQTT listener needs.
#[derive(Clone)]
pub struct MqttListener {
    /// The hub.
    pub state: HubState,
    /// TLS of this listener.
    pub tls: ServerTls,
    /// Cancelled when device sessions shall end.
    pub stop: CancellationToken,
}

impl MqttListener {
    /// Serves one connection to its end.
    pub async fn serve(self, socket: TcpStream, peer: SocketAddr, _permit: Permit) {
        let stream = tokio::select! {
            stream = self.tls.accept(socket) => stream,
            () = self.stop.cancelled() => None,
        };
        let Some(stream) = stream else { return };
        let certificate = client_certificate(&stream);
        device_session::serve(&self.state, stream, certificate, peer, "mqtt", &self.stop).await;
    }
}
