//! Types, wire formats and behaviour that at least two of hub, device-proxy and service-proxy
//! share.
//!
//! Read in this order:
//!
//! 1. [`identity`], [`secret`], [`hub_address`], [`connection_string`], [`sas_token`]: identities,
//!    and how they authenticate.
//! 2. [`wire`]: every message of the device streams handshake, written and read by the same code.
//! 3. [`tls`], [`net`], [`streaming_hosts`], [`websocket`], [`mqtt`]: connections to the hub.
//! 4. [`tunnel`]: copies bytes between a local socket and a stream; [`session`]: many connections
//!    that share a stream and outlive it.
//! 5. [`limits`], [`permits`], [`backoff`], [`shutdown`], [`telemetry`], [`repeats`], [`network`], [`report`],
//!    [`service_manager`], [`admin`]: common behaviour of all programs.
//! 6. [`settings`]: the sources of settings; [`reload`]: when they are read again; [`places`] and [`files`]: where files are, and
//!    how they are written; [`output`], [`table`]: what a program prints.
//! 7. [`enrolment`]: how a device or an operator gets its first credential.
//! 8. [`doctor`]: what is wrong on the way.

pub mod admin;
pub mod backoff;
pub mod boxed;
pub mod clock;
pub mod command_line;
pub mod connection_string;
pub mod descriptors;
pub mod doctor;
pub mod enrolment;
pub mod files;
pub mod hub_address;
pub mod identity;
pub mod json_line;
pub mod limits;
pub mod locks;
pub mod mqtt;
pub mod net;
pub mod network;
pub mod optional;
#[cfg(feature = "otel")]
pub mod otel;
pub mod output;
pub mod outside;
pub mod percent;
pub mod permits;
pub mod places;
pub mod reload;
pub mod repeats;
pub mod report;
pub mod retirement;
pub mod room;
pub mod sample_output;
pub mod sas_token;
pub mod secret;
pub mod service_manager;
pub mod session_mode;
pub mod settings;
pub mod shutdown;
#[cfg(unix)]
pub mod socket_turn;
pub mod split_mix;
pub mod status;
pub mod streaming_hosts;
pub mod table;
pub mod telemetry;
pub mod text_input;
pub mod tls;
pub mod tunnel;
pub mod verdict;
pub mod wire;

pub use device_stream_session as session;
pub use device_stream_websocket as websocket;
pub use device_stream_websocket::{keepalive, random};
