//! Where strangers arrive: HTTPS (REST, MQTT over WebSocket, streaming endpoint) and
//! MQTT over TLS.

mod accept;
mod http;
mod mqtt;
mod tls;
mod write_deadline;

pub use accept::{Permit, run};
pub use http::HttpListener;
pub use mqtt::MqttListener;
pub use tls::{CertificateSlot, ServerTls};
