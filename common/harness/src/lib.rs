//! The code of the fuzz targets (`fuzz/`), which uses the public items of the tested crates. The
//! tests here run the same code from seeds and corpora. Not part of any program.
//!
//! ```text
//! session       session mode: both ends under any events, or one end and a hostile peer
//! websocket     the WebSocket decoder on any bytes
//! parsers       topics, SAS tokens and connection strings
//! http_routes   the hub's router
//! tables        the hub's tables of pending requests and of legs, against a simple model
//! query         the query language, on any text
//! mqtt_session  a device's MQTT session at the hub
//! corpus        reads the corpora
//! ```

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "not part of any program: a panic is a finding"
)]

pub mod corpus;
pub mod http_routes;
pub mod mqtt_session;
pub mod parsers;
pub mod query;
pub mod session;
pub mod tables;
pub mod websocket;
