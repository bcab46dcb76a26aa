//! What the fuzz targets (`fuzz/`) do with their input, on the public items of the crates they are
//! for. The tests here play the same from seeds and corpora. No part of any program.
//!
//! ```text
//! websocket     the WebSocket decoder on any bytes
//! corpus        what fuzzing has found worth keeping
//! ```

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "no part of any program: panics are its findings"
)]

pub mod corpus;
pub mod websocket;
