//! Tools to test and measure the programs; not part of them.
//!
//! [`link`] is a link of known delay and rate that can be frozen and cut, for kernels without
//! netem; the binary `stream-link` puts it between two network namespaces. [`load`] is the load for
//! a chain of programs, and the daemon behind it; the binary is `stream-load`, and `bench/compare`
//! runs it.

pub mod link;
pub mod load;
pub mod paths;
