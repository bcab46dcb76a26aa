//! The tasks that run a session: one for the current carrier, and one for each connection. They do
//! not decide what is sent, or whether a session continues.

pub mod budget;
pub mod carrier;
mod clock;
pub mod connection;
pub mod figures;
pub mod handshake;
pub mod memory;
pub mod new_connection;
pub mod outcome;
pub mod shared;
pub mod socket;
pub mod traffic;
