//! A link between two TUN interfaces.
//!
//! [`direction`] is one of its two directions: a queue, a rate, and a delay. [`flows`] tracks the
//! TCP connections that cross the link, so that a cut can end them with the [`segment`]s that a
//! refusing host would send. [`command`] parses the commands of a script. All these have no I/O;
//! `forward` is the loop that moves packets, on Linux.

pub mod command;
pub mod direction;
pub mod flows;
#[cfg(target_os = "linux")]
pub mod forward;
pub mod segment;

/// An end of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The interface that was named first.
    First,
    /// The interface that was named second.
    Second,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}
