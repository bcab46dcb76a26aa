//! What runs a session: over one carrier after the other, and for each of its connections. Nothing
//! here decides what is sent, or whether a session goes on.

pub mod budget;
pub mod carrier;
mod clock;
pub mod connection;
pub mod handshake;
pub mod memory;
pub mod outcome;
pub mod shared;
pub mod socket;
pub mod traffic;
