use std::process::ExitCode;

use common::{command_line, descriptors, report, settings, shutdown, telemetry};
use service_proxy::cli::Cli;
use service_proxy::config;
use tokio::runtime::Builder;

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
    let mut cli: Cli = match command_line::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    descriptors::raise();
    if cli.options.config.is_none() {
        cli.options.config = config::default_file(&cli, &settings::of_process);
    }
    let is_check = cli.options.check_config;
    let sources = match config::sources(&cli.options, &settings::of_process) {
        Ok(sources) => sources,
        Err(error) => return report::usage(&error),
    };
    let _flush = match config::log_level(&cli.options, &sources) {
        Ok(level) => telemetry::init(level),
        Err(error) => return report::usage(&error),
    };
    let config = match config::resolve(cli, &sources) {
        Ok(config) => config,
        Err(error) => return report::usage(&error),
    };
    if is_check {
        return match config.check() {
            Ok(()) => report::valid(),
            Err(error) => report::usage(&error),
        };
    }
    // One thread: a connection's task and its session's wake each other for every chunk.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    let running = shutdown::with_signals(|stop| service_proxy::run(config, stop));
    let result = runtime.block_on(running);
    // A thread may still wait for stdin; it is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => match error.silent_exit_code() {
            Some(code) => code.into(),
            None if error.is_usage() => report::usage(&error),
            None => {
                let failure = report::failure(&error);
                error.exit_code().map_or(failure, ExitCode::from)
            }
        },
        Err(interrupted) => interrupted.into(),
    }
}
