//! The device's hub session: connect, stay connected, take stream requests, send
//! answers.

mod causes;
mod connect;
mod session;
mod supervise;
mod twin;

pub use causes::Causes;
pub use connect::ConnectError;
pub use session::SessionEnd;
pub use supervise::{Fatal, Supervisor};
