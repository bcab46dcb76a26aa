//! Whether session mode is used: the value of `--session`.

use clap::ValueEnum;

/// Whether connections use sessions, and so outlive their streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SessionMode {
    /// With peers that support it.
    Auto,
    /// Never in a plain stream.
    Always,
    /// In plain streams only.
    Never,
}
