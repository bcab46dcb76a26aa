use std::process::ExitCode;

use common::{command_line, descriptors, report, settings, shutdown, telemetry};
use device_proxy::cli::Cli;
use device_proxy::config::{self, Config};
use tokio::runtime::{Builder, LocalOptions};

// Gives freed memory back to the system by itself; the C library's keeps it (docs/performance.md).
#[cfg(all(
    feature = "jemalloc",
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "aarch64", target_arch = "x86_64")
))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli: Cli = match command_line::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
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
    // Devices are small: one thread serves all streams. "local" is "current_thread" without the
    // code of the scheduler of many threads, which hub and service-proxy have built in.
    let mut builder = Builder::new_current_thread();
    let runtime = match builder.enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    let running = shutdown::with_signals(|stop| device_proxy::run(config, stop));
    let result = runtime.block_on(running);
    // A thread may still wait for a name's addresses; it is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => report::failure(&error),
        Err(interrupted) => interrupted.into(),
    }
}
