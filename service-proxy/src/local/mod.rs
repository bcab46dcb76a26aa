//! Where local connections come from: a TCP port, or standard input and output.

pub mod stdio;
pub mod tcp;
