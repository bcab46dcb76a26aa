//! The words and the wire: everything that at least two of hub, device-proxy
//! and service-proxy must agree on.
//!
//! Read in this order:
//!
//! 1. [`identity`], [`secret`], [`hub_address`], [`connection_string`],
//!    [`sas_token`]: who is who, and how they prove it.
//! 2. [`wire`]: every message of the device-streams handshake, written and
//!    read by the same code.
//! 3. [`tls`], [`dial`], [`streaming_hosts`], [`websocket`], [`mqtt`]: how bytes reach the
//!    hub.
//! 4. [`tunnel`]: how bytes move between a local socket and a stream; [`session`]: how
//!    many connections share a stream and outlive it.
//! 5. [`limits`], [`backoff`], [`keepalive`], [`shutdown`], [`telemetry`], [`repeats`],
//!    [`network`], [`report`]: the manners all programs share.

pub mod backoff;
pub mod clock;
pub mod command_line;
pub mod connection_string;
#[cfg(test)]
mod corpus;
pub mod descriptors;
pub mod dial;
pub mod hub_address;
pub mod identity;
pub mod keepalive;
pub mod limits;
pub mod mqtt;
pub mod network;
pub mod output;
pub mod outside;
pub mod path_watch;
pub mod random;
pub mod repeats;
pub mod report;
pub mod sample_output;
pub mod sas_token;
pub mod secret;
pub mod session;
pub mod session_mode;
pub mod shutdown;
pub mod streaming_hosts;
pub mod telemetry;
pub mod text_input;
pub mod tls;
pub mod tunnel;
pub mod verdict;
pub mod websocket;
pub mod wire;
