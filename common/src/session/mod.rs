//! Session mode: many TCP connections in one device stream, and all of them outlive it.
//! `docs/session-protocol.md` tells the protocol; here is its machine, which knows
//! neither sockets nor clocks.
//!
//! ```text
//! handshake   who may begin a session or go on with it: ids, secrets, proofs
//! frame       what a carrier says: greeting … data, acknowledgement, end
//! inner       what is said inside the session's byte stream: open, data, credit, FIN, RST
//! machine     Session: one end, through any number of carriers
//!   replay       what was said and not yet acknowledged
//!   window       how much may be on its way
//!   scheduler    whose bytes go next
//!   connection   one inner connection
//!   chunk        bytes with room for headers
//! fuzzing     all of it under events of any kind; for tests only
//! ```

mod chunk;
mod collect;
mod connection;
pub mod frame;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "no part of any program: panics are its findings"
)]
pub mod fuzzing;
pub mod handshake;
pub mod inner;
mod machine;
mod replay;
mod scheduler;
pub mod window;

pub use chunk::Chunk;
pub use connection::Inbound;
pub use frame::Code;
pub use handshake::{STREAM_PREFIX, SessionId, target_of};
pub use inner::{ConnectionId, RefusedCode};
pub use machine::{CarrierId, Heard, Over, Role, Session, Violation};
