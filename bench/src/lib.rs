//! What the programs are tested and measured with, and that is no part of them.
//!
//! [`link`] is a line of known delay and rate that can be frozen and cut, for kernels
//! without netem; the binary `stream-link` puts it between two network namespaces.

pub mod link;
