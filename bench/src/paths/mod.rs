//! A simulator of network paths, to judge how a session shares a line with ordinary TCP: packets,
//! a bottleneck with its queue in each direction, TCP with CUBIC or BBR, and sessions with the
//! product's own window machine. No I/O and no clock; the same seed gives the same run.

pub mod control;
pub mod packet;
mod queue;
pub mod scenarios;
mod session;
mod simulation;
mod tcp;

pub use control::Control;
pub use packet::{MS, Nanos, SECOND, SEGMENT};
pub use queue::Discipline;
pub use simulation::{Flow, Jitter, Path, Report, Simulation, Way};

#[cfg(test)]
mod tests;
