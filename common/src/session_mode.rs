//! Whether session mode is used, as an operator chooses it.

use clap::ValueEnum;

/// Whether connections may outlive the streams that carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SessionMode {
    /// With peers that can.
    Auto,
    /// Never in a plain stream.
    Always,
    /// In plain streams only.
    Never,
}
