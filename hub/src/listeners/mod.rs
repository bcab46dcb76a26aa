//! Where strangers arrive: HTTPS (REST, MQTT over WebSocket, streaming endpoint) and
//! MQTT over TLS.

mod accept;
mod http;
mod mqtt;
mod tls;

pub use accept::run;
pub use http::HttpListener;
pub use mqtt::MqttListener;
pub use tls::{CertificateSlot, ServerTls};
