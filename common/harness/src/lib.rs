//! What the fuzz targets (`fuzz/`) do with their input, on the public items of the crates they are
//! for. The tests here play the same from seeds and corpora. No part of any program.
//!
//! ```text
//! session       session mode: both ends under any events, or one and a hostile peer
//! websocket     the WebSocket decoder on any bytes
//! parsers       topics, SAS tokens and connection strings
//! http_routes   the hub's router
//! tables        the hub's pending requests and meeting legs, against a plain model
//! mqtt_session  a device's MQTT session at the hub
//! corpus        what fuzzing has found worth keeping
//! ```

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "no part of any program: panics are its findings"
)]

pub mod corpus;
pub mod http_routes;
pub mod mqtt_session;
pub mod parsers;
pub mod session;
pub mod tables;
pub mod websocket;
