//! Where strangers arrive: HTTPS (REST, MQTT over WebSocket, streaming endpoint), MQTT over TLS,
//! and AMQP over TLS, which is refused.

mod accept;
pub mod amqp;
pub mod head;
mod http;
mod mqtt;
mod tls;
mod write_deadline;

pub use accept::{Listening, most, run};
pub use amqp::AmqpListener;
pub use http::HttpListener;
pub use mqtt::MqttListener;
pub use tls::ServerTls;
