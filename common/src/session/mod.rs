//! Session mode: many TCP connections in one device stream, and all of them outlive it.
//! `docs/session-protocol.md` tells the protocol; its machine knows neither sockets nor
//! clocks, and is driven by the tasks further down.
//!
//! ```text
//! proof       who may begin a session or go on with it: ids, secrets, proofs
//! frame       what a carrier says: greeting … data, acknowledgement, end
//! inner       what is sent inside the session's byte stream: open, data, credit, FIN, RST
//! machine     Session: one end, through any number of carriers
//!   replay       what was sent and not yet acknowledged
//!   window       how much may be on its way
//!   scheduler    whose bytes go next
//!   connection   one inner connection
//!   chunk        bytes with room for headers
//! handshake   the first frames on a carrier
//! shared      a session that its carrier's and its connections' tasks share
//! carry       drives it over one carrier
//! pipe        one connection: local socket ⇄ session
//! memory      what all sessions of a program may hold together
//! budget      which detached sessions must go
//! fuzzing     all of it under events of any kind; for tests only
//! ```

pub mod budget;
mod carry;
mod chunk;
mod codes;
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
pub mod memory;
mod pipe;
pub mod proof;
mod replay;
mod scheduler;
mod shared;
pub mod window;

pub use carry::{CarrierEnd, carry};
pub use chunk::Chunk;
pub use connection::Inbound;
pub use frame::Code;
pub use inner::{ConnectionId, RefusedCode};
pub use machine::{CarrierId, Heard, Over, Role, Session, Violation};
pub use pipe::{ConnectionEnd, RunningConnection, pipe};
pub use proof::{STREAM_PREFIX, SessionId, target_of};
pub use shared::{AttachError, Frozen, SharedSession};
