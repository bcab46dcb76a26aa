//! The device's hub session: connect, stay connected, take stream requests, send answers; and what
//! is exchanged beside streams, so that the device can be managed.
//!
//! ```text
//! supervise → connect → session ─┬─► streams
//!                                └─► management ─┬─► twin (the session report), reported ─► status
//!                                                ├─► desired ─► policy
//!                                                └─► methods
//! ```

mod causes;
mod connect;
mod desired;
mod document;
mod management;
mod methods;
mod reported;
mod session;
mod status;
mod supervise;
mod twin;

pub use causes::Causes;
pub use connect::{ConnectError, Connected, connect};
pub use management::Management;
pub use session::SessionEnd;
pub use supervise::{Fatal, Supervisor};
