use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use common::{command_line, descriptors, report, settings, shutdown, telemetry};
use common::{output, shutdown::Interrupted};
use device_proxy::cli::{Cli, Command, EnrolArgs};
use device_proxy::config::{self, Config};
use device_proxy::enrol::{self, Start};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tracing::level_filters::LevelFilter;

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
    let mut flush = None;
    match cli.command.take() {
        Some(Command::Enrol(args)) => {
            flush = Some(telemetry::init(args.log_level.unwrap_or(LevelFilter::INFO)));
            cli.log_level = args.log_level;
            match enrol(args) {
                Ok(Some(config)) => cli.config = Some(config),
                Ok(None) => return ExitCode::SUCCESS,
                Err(code) => return code,
            }
        }
        None if cli.config.is_none() => {
            cli.config = config::default_file(&cli, &settings::of_process);
        }
        None => {}
    }
    let is_check = cli.check_config;
    let sources = match config::sources(&cli, &settings::of_process) {
        Ok(sources) => sources,
        Err(error) => return report::usage(&error),
    };
    let _flush = match (flush, config::log_level(&cli, &sources)) {
        (Some(flush), Ok(_)) => flush,
        (None, Ok(level)) => telemetry::init(level),
        (_, Err(error)) => return report::usage(&error),
    };
    let config = match Config::resolve(cli, &sources) {
        Ok(config) => config,
        Err(error) => return report::usage(&error),
    };
    if is_check {
        return report::valid();
    }
    let runtime = match runtime() {
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

/// Devices are small: one thread serves all streams. "local" is "current_thread" without the code
/// of the scheduler of many threads, which hub and service-proxy have built in.
fn runtime() -> io::Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build_local(LocalOptions::default())
}

/// Enrols this device. With the configuration file to go on with in this process, if it does.
fn enrol(args: EnrolArgs) -> Result<Option<PathBuf>, ExitCode> {
    let runtime = runtime().map_err(|error| report::failure(&error))?;
    let enrolling = shutdown::with_signals(|_| enrol::enrol(args));
    let result = runtime.block_on(enrolling);
    runtime.shutdown_background();
    let enrolment = result
        .map_err(|interrupted: Interrupted| ExitCode::from(interrupted))?
        .map_err(|error| match error.is_usage() {
            true => report::usage(&error),
            false => report::failure(&error),
        })?;
    let (device, hub) = (&enrolment.device, &enrolment.hub);
    let config = enrolment.config.display();
    let next = match enrolment.start {
        Start::Service => "the service device-proxy was started".to_owned(),
        Start::Here => "starting; Ctrl-C ends it".to_owned(),
        Start::Not => format!("now: device-proxy --config {config}"),
    };
    output::stdout().text(&format!(
        "enrolled as {device} at {hub}; wrote {config}\n{next}\n"
    ));
    output::finish();
    Ok((enrolment.start == Start::Here).then_some(enrolment.config))
}
