//! A tunnel: a local socket at one of the proxies, and the stream behind it.

mod backlog;
mod local;
mod outcome;
mod pump;

pub use backlog::{Backlog, Delivery};
pub use device_stream_session::{ConnectionSocket, Traffic};
pub use local::{LocalSocket, Pipes};
pub use outcome::{End, Outcome};
pub use pump::{pump, stopped};
