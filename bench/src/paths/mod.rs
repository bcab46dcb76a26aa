//! A simulator of network paths, to judge how a session shares a line with ordinary TCP: packets,
//! a bottleneck with its queue in each direction, TCP with CUBIC or BBR, and sessions with the
//! product's own window machine. No I/O and no clock; the same seed gives the same run.

pub mod control;
pub mod packet;
mod path;
mod queue;
pub mod scenarios;
mod session;
mod simulation;
mod tcp;

pub use control::Control;
pub use packet::{MS, Nanos, SECOND, SEGMENT};
pub use path::{Flow, Jitter, Path, Report, Way};
pub use queue::Discipline;
pub use simulation::Simulation;

#[cfg(test)]
mod tests;
