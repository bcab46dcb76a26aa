//! `stream-paths`: the simulated paths of bench/paths, a line of JSON for each run.

use std::process::ExitCode;

use bench::paths::scenarios::{self, Kind};
use clap::Parser;

/// Simulates sessions and plain TCP on network paths.
#[derive(Parser)]
struct Cli {
    /// Only these kinds; all without.
    #[arg(value_enum)]
    kinds: Vec<Kind>,

    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,

    /// How many random paths.
    #[arg(long, default_value_t = 1000)]
    random: u64,

    /// Of what is random on a path, such as when keys are pressed.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Also print what happened in each tenth of a second, for plots.
    #[arg(long)]
    series: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut all = scenarios::all(cli.random, cli.seed);
    all.retain(|one| {
        (cli.kinds.is_empty() || cli.kinds.contains(&one.kind)) && one.name.contains(&cli.only)
    });
    if all.is_empty() {
        eprintln!("no scenario has such a name");
        return ExitCode::from(2);
    }
    let mut failed = 0;
    for outcome in scenarios::run(&all, cli.series) {
        failed += u32::from(!outcome.is_good);
        println!("{}", outcome.to_json());
    }
    eprintln!("{} scenarios, {failed} below their goal", all.len());
    ExitCode::SUCCESS
}
