//! The code of the fuzz targets (`fuzz/`), which uses the public items of the tested crates. The
//! tests here run the same code from seeds and corpora. Not part of any program.
//!
//! ```text
//! session            session mode: both ends under any events, or one end and a hostile peer
//! websocket          the WebSocket decoder on any bytes
//! parsers            topics, reports of devices, SAS tokens and connection strings
//! listeners          what clients send first: to the proxy port, admin listeners and the hub
//! http_routes        the hub's router
//! rest_api           what is behind it, for who may do everything
//! hub_answers        what the proxies read from a hub
//! proxy_answers      what they read from a proxy on the way: HTTP CONNECT, NTLM, SOCKS5
//! device_management  what a hub sends a device: its twin, direct methods
//! certificates       X.509 certificates and revocation lists
//! people             identity tokens, keys of their provider, and the access file
//! audit_log          the audit log, whatever was done to its lines
//! tables             the hub's tables of pending requests and of legs, against a simple model
//! query              the query language, on any text
//! mqtt_session       a device's MQTT session at the hub
//! pieces             a peer whose bytes come in pieces
//! corpus             reads the corpora
//! ```

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "not part of any program: a panic is a finding"
)]

pub mod audit_log;
pub mod certificates;
pub mod corpus;
pub mod device_management;
pub mod http_routes;
pub mod hub_answers;
pub mod listeners;
pub mod mqtt_session;
pub mod parsers;
pub mod people;
pub mod pieces;
pub mod proxy_answers;
pub mod query;
pub mod rest_api;
pub mod session;
pub mod tables;
pub mod websocket;
