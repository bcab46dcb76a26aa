use std::process::ExitCode;

use common::reload::Reloads;
use common::{command_line, descriptors, output, report, settings, shutdown, telemetry};
use service_proxy::Followed;
use service_proxy::cli::{Cli, Command, DoctorArgs};
use service_proxy::config::{self, ConfigError, Reader};
use service_proxy::doctor;
use service_proxy::oidc;
use tokio::runtime::Builder;
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
    if cli.options.config.is_none() {
        cli.options.config = config::default_file(&cli, &settings::of_process);
    }
    let examined = match &cli.command {
        Some(Command::Doctor(args)) => {
            // The report says it all, unless somebody wants more.
            cli.options.log_level = cli.options.log_level.or(Some(LevelFilter::OFF));
            Some(args.clone())
        }
        _ => None,
    };
    let is_check = cli.options.check_config;
    let sources = match config::sources(&cli.options, &settings::of_process) {
        Ok(sources) => sources,
        Err(error) => return unusable(&error, examined.as_ref()),
    };
    let _flush = match config::log_level(&cli.options, &sources)
        .and_then(|level| Ok((level, config::log_format(&cli.options, &sources)?)))
    {
        Ok((level, form)) => telemetry::init(level, form),
        Err(error) => return report::usage(&error),
    };
    let status = match config::status_place(&cli.options, &sources) {
        Ok(status) => status,
        Err(error) => return report::usage(&error),
    };
    let read = Reader::new(cli, &sources).and_then(|reader| {
        let (current, files) = reader.read(&settings::of_process)?;
        Ok((reader, current, files))
    });
    let (reader, current, files) = match read {
        Ok(read) => read,
        Err(error) => return unusable(&error, examined.as_ref()),
    };
    if is_check {
        return match current.config.check() {
            Ok(()) => report::valid(),
            Err(error) => report::usage(&error),
        };
    }
    // One thread: a connection's task and its session's wake each other for every chunk.
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    let followed = Followed {
        current,
        reader,
        reloads: Reloads::new(files),
        status,
    };
    let running = shutdown::with_signals(|stop| async move {
        let result = service_proxy::run_following(followed, stop).await;
        oidc::finish().await;
        result
    });
    #[cfg(feature = "otel")]
    let running = async {
        if let Err(error) = common::otel::start("service-proxy", env!("CARGO_PKG_VERSION")) {
            tracing::error!("{}", report::chain(&error));
        }
        let result = running.await;
        common::otel::finish().await;
        result
    };
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

/// The end of a program whose configuration cannot be used: an error, or for an examination its first
/// finding.
fn unusable(error: &ConfigError, examined: Option<&DoctorArgs>) -> ExitCode {
    let Some(args) = examined else {
        return report::usage(error);
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    let result = runtime.block_on(doctor::run_unconfigured(error, args));
    runtime.shutdown_background();
    output::finish();
    match result {
        Err(error @ doctor::DoctorError::Bundle(..)) => report::failure(&error),
        _ => ExitCode::FAILURE,
    }
}
