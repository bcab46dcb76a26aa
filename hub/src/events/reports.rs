//! What others report to the hub: a device about its connections, and other processes about what
//! they have changed in the registry.

use common::identity::DeviceIdentity;

/// What a device reports of the connections in its sessions. All of it is the device's word.
#[derive(Debug, Clone, Copy)]
pub enum DeviceReport<'a> {
    /// One has begun or ended.
    Connection {
        /// What it leads to.
        target: &'a str,
        /// The session.
        session: &'a str,
        /// The stream that carried the session then.
        stream: Option<&'a str>,
        /// The connection's number in the session.
        connection: u64,
        /// When it was by the device's clock, Unix milliseconds.
        time_ms: u64,
        /// Which of the two.
        phase: ConnectionPhase<'a>,
    },
    /// So many reports were lost on the device.
    Lost {
        /// How many.
        count: u64,
    },
}

/// Whether a connection has begun or ended.
#[derive(Debug, Clone, Copy)]
pub enum ConnectionPhase<'a> {
    /// It has begun.
    Opened,
    /// It has ended.
    Ended {
        /// Bytes to the target.
        to_device: u64,
        /// Bytes from the target.
        to_service: u64,
        /// How long it was.
        duration_ms: u64,
        /// Which end has ended it.
        ended_by: &'a str,
        /// How it ended.
        reason: &'a str,
    },
}

/// A change in the registry, by this hub or another process.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// Its number: a hub that was killed may report it again.
    pub id: u64,
    /// When it was, RFC 3339.
    pub time: &'a str,
    /// What was done.
    pub operation: &'a str,
    /// To this identity,
    pub device: Option<&'a DeviceIdentity>,
    /// or to this shared access policy.
    pub policy: Option<&'a str>,
    /// What of it; no values.
    pub what: &'a str,
    /// Who has done it, as JSON; `None`: it is not known.
    pub actor: Option<&'a str>,
}
