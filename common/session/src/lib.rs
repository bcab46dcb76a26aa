//! Session mode: many TCP connections in one device stream, which outlive it.
//! `docs/session-protocol.md` describes the protocol.
//!
//! ```text
//! proto         the protocol, without I/O and clocks: the time is an argument
//!   machine       Session: one end, through any number of carriers
//! drive         tasks that run it over WebSockets and sockets
//!   shared        a session that the tasks of its carrier and its connections share
//!   handshake     the first frames on a carrier
//!   carrier       the task of one carrier
//!   connection    one connection: local socket ⇄ session
//! limits        sizes and times, each with its reason
//! ```

pub mod drive;
pub mod limits;
pub mod proto;

pub use drive::carrier::{CarrierEnd, drive_carrier};
pub use drive::connection::{ConnectionEnd, RunningConnection, run_connection};
pub use drive::figures::Figures;
pub use drive::new_connection::NewConnection;
pub use drive::outcome::Outcome;
pub use drive::shared::{AttachError, Frozen, SharedSession};
pub use drive::socket::ConnectionSocket;
pub use drive::traffic::Traffic;
pub use drive::{budget, handshake, memory};
pub use proto::boot_id::{BadBootId, BootId};
pub use proto::chunk::Chunk;
pub use proto::codes::{Code, RefusedCode};
pub use proto::connection::Inbound;
pub use proto::inner::ConnectionId;
pub use proto::machine::{CarrierId, CarrierState, Kept, Over, Role, Session, Violation};
pub use proto::proof::{STREAM_PREFIX, SessionId, target_of};
pub use proto::{frame, inner, proof, window};
