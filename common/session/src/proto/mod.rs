//! The protocol, without I/O and clocks.
//!
//! ```text
//! proof         who may begin a session or go on with it: ids, secrets, proofs
//! boot_id       one run of a device's program
//! frame         what a carrier transports: greeting … data, acknowledgement, end
//! inner         what is sent inside the session's byte stream: open, data, credit, FIN, RST
//! codes         reasons, on the wire and for people
//! machine       Session: one end, through any number of carriers
//!   replay        what was sent and not yet acknowledged
//!   window        how much may be on its way
//!   scheduler     whose bytes go next
//!   connection    one inner connection
//!   chunk         bytes with room for headers
//!   memory        what all sessions of a program may hold together
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
