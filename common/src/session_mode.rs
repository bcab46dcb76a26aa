//! Whether session mode is used: the value of `--session`.

use std::fmt;

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

impl fmt::Display for SessionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        })
    }
}
