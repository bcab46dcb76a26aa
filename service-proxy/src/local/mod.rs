//! Where local connections come from: TCP ports, Unix sockets, clients of a proxy port, or
//! standard input and output.

mod accept;
mod bound;
pub mod listener;
pub mod running;
pub mod socks;
pub mod stdio;
#[cfg(unix)]
mod unix;
