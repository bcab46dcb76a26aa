//! MQTT over TLS from devices.

use std::net::SocketAddr;
use std::sync::Arc;

use common::boxed::boxed;
use common::permits::Permit;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::tls::{ServerTls, client_certificate};
use crate::admission::{Beyond, Place};
use crate::device_session;
use crate::state::HubState;

/// What the connections of the MQTT listener share.
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
    ///
    /// Dropped, it closes the connection.
    pub async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        _permit: Permit,
        place: Place,
    ) {
        let stream = tokio::select! {
            stream = self.tls.accept(socket, &place) => stream,
            () = self.stop.cancelled() => None,
        };
        let Some(stream) = stream else { return };
        place.allow(device_session::STRANGER_READS, Beyond::Fail);
        let certificate = client_certificate(&stream);
        let (state, stop) = (&self.state, &self.stop);
        let transport = "mqtt";
        boxed(|| device_session::serve(state, stream, certificate, peer, transport, &place, stop))
            .await;
    }
}
