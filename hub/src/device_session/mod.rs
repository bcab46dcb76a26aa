//! One connected device: CONNECT and proof of identity, then its session until it
//! ends. The rules of MQTT are in [`mqtt::machine`], without I/O.

pub mod mqtt;
mod session;
mod twin;

pub use mqtt::serve;

use common::identity::DeviceIdentity;
use common::limits;

use crate::presence::EndReason;

/// Bytes that a stranger may send for its CONNECT, in records of TLS and frames of WebSocket.
pub const STRANGER_READS: usize = limits::MQTT_CONNECT_PACKET + (2 << 10);

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The device has sent Close.
    #[error("the device disconnected")]
    Disconnect,
    /// The connection ended without a Close.
    #[error("the connection was lost")]
    Lost,
    /// The device was silent for 1.5 times its keep-alive.
    #[error("the device was silent for longer than its keep-alive")]
    Silent,
    /// The device does not read what it is sent.
    #[error("the device does not read")]
    Stuck,
    /// Its SAS token ended.
    #[error("its SAS token expired")]
    TokenExpired,
    /// The device broke a rule.
    #[error("{0}")]
    Rule(mqtt::machine::Violation),
    /// The hub ended it.
    #[error("{}", match .0 { EndReason::Displaced => "the same identity connected again", EndReason::Revoked => "the identity was disabled, deleted or given other keys" })]
    Ended(EndReason),
    /// The hub stops.
    #[error("the hub is stopping")]
    Stopping,
}

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It was no MQTT client, or gave up.
    #[error("no CONNECT came: {0}")]
    NoConnect(String),
    /// Its CONNECT was not acceptable.
    #[error("CONNECT of {identity} refused: {reason}")]
    Connect {
        /// Who it claimed to be.
        identity: String,
        /// Why it is not believed.
        reason: String,
    },
}

/// Log fields of a session.
struct Peer<'a> {
    identity: &'a DeviceIdentity,
    address: std::net::SocketAddr,
    transport: &'static str,
}
