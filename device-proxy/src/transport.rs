//! How MQTT reaches the hub, as an operator chooses it.

use clap::ValueEnum;

/// How MQTT reaches the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// MQTT over WebSocket on the HTTPS port: only outbound 443 is needed.
    MqttWs,
    /// MQTT over TLS, port 8883.
    Mqtt,
}
