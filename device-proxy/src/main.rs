use std::process::ExitCode;

use common::{command_line, descriptors, report, settings, shutdown, telemetry};
use device_proxy::cli::Cli;
use device_proxy::config::{self, Config};
use tokio_util::sync::CancellationToken;

// Gives freed memory back to the system by itself; the C library's keeps it (docs/performance.md).
#[cfg(all(
    feature = "jemalloc",
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "aarch64", target_arch = "x86_64")
))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

// Devices are small: one thread serves all streams. "local" is "current_thread" without the
// code of the scheduler of many threads, which hub and service-proxy have built in.
#[tokio::main(flavor = "local")]
async fn main() -> ExitCode {
    let cli: Cli = command_line::parse();
    descriptors::raise();
    let is_check = cli.check_config;
    let sources = match config::sources(&cli, &settings::of_process) {
        Ok(sources) => sources,
        Err(error) => return report::usage(&error),
    };
    let _flush = match config::log_level(&cli, &sources) {
        Ok(level) => telemetry::init(level),
        Err(error) => return report::usage(&error),
    };
    let config = match Config::resolve(cli, &sources) {
        Ok(config) => config,
        Err(error) => return report::usage(&error),
    };
    if is_check {
        return report::valid();
    }
    let stop = CancellationToken::new();
    tokio::spawn(shutdown::on_signal(stop.clone()));
    match device_proxy::run(config, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::failure(&error),
    }
}
