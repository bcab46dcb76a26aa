//! The protocol, without I/O and clocks.
//!
//! ```text
//! proof         who may resume a session: ids, secrets, proofs
//! boot_id       the id of one run of a device's program
//! frame         the frames of a carrier: greeting … data, acknowledgement, end
//! inner         the frames in the session's byte stream: open, data, credit, FIN, RST
//! codes         reasons, on the wire and for people
//! machine       Session: one end, through any number of carriers
//!   replay        bytes that were sent and not yet acknowledged
//!   window        how many bytes may be in flight
//!   scheduler     which connection sends next
//!   connection    one inner connection
//!   chunk         bytes with room for headers
//!   memory        the memory of all sessions of a program
//! ```

pub mod boot_id;
pub mod chunk;
pub mod codes;
mod collect;
pub mod connection;
pub mod frame;
pub mod inner;
pub mod machine;
pub mod memory;
pub mod proof;
mod replay;
mod scheduler;
pub mod window;
