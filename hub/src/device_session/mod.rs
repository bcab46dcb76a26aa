//! One connected device: its proof of identity, then its session until it ends. What a device
//! and the hub have for each other is in [`DeviceEvent`] and [`DeviceCommand`]; the protocol
//! that carries them stands beside the session, as [`mqtt`].

mod event;
mod inbox;
pub mod mqtt;
mod reports;
mod session;
mod twin;

use crate::presence::EndReason;

pub use event::{DeviceCommand, DeviceEvent, HubEnd, TwinAnswer};
pub use mqtt::{STRANGER_READS, serve};
pub use twin::TWIN_REQUESTS;

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
    /// The device broke a rule of its protocol.
    #[error(transparent)]
    Rule(#[from] mqtt::machine::Violation),
    /// The hub ended it.
    #[error(transparent)]
    Hub(#[from] HubEnd),
}

impl SessionEnd {
    /// Names it among a fixed set of words.
    fn kind(&self) -> &'static str {
        match self {
            Self::Disconnect => "disconnected",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Stuck => "stuck",
            Self::Rule(_) => "protocol",
            Self::Hub(HubEnd::Expired) => "expired",
            Self::Hub(HubEnd::Ended(EndReason::Displaced)) => "displaced",
            Self::Hub(HubEnd::Ended(EndReason::Revoked)) => "revoked",
            Self::Hub(HubEnd::Ended(EndReason::Behind)) => "behind",
            Self::Hub(HubEnd::Stopping) => "stopping",
        }
    }
}
