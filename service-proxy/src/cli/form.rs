//! How the rows of a command are printed: its options only.

use clap::Args;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Args)]
pub struct FormArgs {
    /// Print one JSON array.
    #[arg(long)]
    pub json: bool,

    /// Print one JSON object per line.
    #[arg(long, conflicts_with = "json")]
    pub json_lines: bool,
}
