use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use common::reload::Reloads;
use common::status::{self, Asked};
use common::telemetry::LogFormat;
use common::{command_line, descriptors, report, settings, shutdown, telemetry};
use common::{output, shutdown::Interrupted};
use device_proxy::Followed;
#[cfg(windows)]
use device_proxy::cli::ServiceCommand;
use device_proxy::cli::{Cli, Command, DoctorArgs, EnrolArgs};
use device_proxy::config::{self, Reader};
use device_proxy::doctor;
use device_proxy::enrol::{self, Start};
#[cfg(windows)]
use device_proxy::service;
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
    match command_line::parse::<Cli>() {
        #[cfg(windows)]
        Ok(Cli {
            command: Some(Command::Service(command)),
            ..
        }) => service(command),
        Ok(cli) => start(cli),
        Err(code) => code,
    }
}

#[cfg(windows)]
fn service(command: ServiceCommand) -> ExitCode {
    let result = match command {
        ServiceCommand::Run(args) => service::run(args, start),
        command => service::carry_out(command).map(|done| {
            output::stdout().text(&done);
            output::finish();
            ExitCode::SUCCESS
        }),
    };
    result.unwrap_or_else(|error| report::failure(&error))
}

fn start(mut cli: Cli) -> ExitCode {
    descriptors::raise();
    if let Some(Command::Doctor(args)) = cli.command {
        return doctor(*args);
    }
    let mut flush = None;
    match cli.command.take() {
        Some(Command::Enrol(args)) => {
            let level = args.log_level.unwrap_or(LevelFilter::INFO);
            flush = Some(telemetry::init(level, LogFormat::Text));
            cli.options.log_level = args.log_level;
            match enrol(args) {
                Ok(Some(config)) => cli.options.config = Some(config),
                Ok(None) => return ExitCode::SUCCESS,
                Err(code) => return code,
            }
        }
        Some(Command::Status(asked)) => return ask_status(asked),
        _ if cli.options.config.is_none() => {
            cli.options.config = config::default_file(&cli.options, &settings::of_process);
        }
        _ => {}
    }
    let options = cli.options;
    let is_check = options.check_config;
    let sources = match config::sources(&options, &settings::of_process) {
        Ok(sources) => sources,
        Err(error) => return report::usage(&error),
    };
    let log = config::log_level(&options, &sources)
        .and_then(|level| Ok((level, config::log_format(&options, &sources)?)));
    let _flush = match (flush, log) {
        (Some(flush), Ok(_)) => flush,
        (None, Ok((level, form))) => telemetry::init(level, form),
        (_, Err(error)) => return report::usage(&error),
    };
    let status = match config::status_place(&options, &sources) {
        Ok(status) => status,
        Err(error) => return report::usage(&error),
    };
    let read = Reader::new(&options, &sources).and_then(|reader| {
        let (current, files) = reader.read(&settings::of_process)?;
        Ok((reader, current, files))
    });
    let (reader, current, files) = match read {
        Ok(read) => read,
        Err(error) => return report::usage(&error),
    };
    if is_check {
        return report::valid();
    }
    let followed = Followed {
        current,
        reader,
        reloads: Reloads::new(files),
        status,
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    let running = shutdown::with_signals(|stop| device_proxy::run_following(followed, stop));
    #[cfg(feature = "otel")]
    let running = async {
        if let Err(error) = common::otel::start("device-proxy", env!("CARGO_PKG_VERSION")) {
            tracing::error!("{}", report::chain(&error));
        }
        let result = running.await;
        common::otel::finish().await;
        result
    };
    let result = runtime.block_on(running);
    // A thread may still wait for a name's addresses; it is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => report::failure(&error),
        Err(interrupted) => interrupted.into(),
    }
}

/// Examines the path to the hub. What the configuration lacks is a finding, and no error.
fn doctor(mut args: DoctorArgs) -> ExitCode {
    let options = &mut args.options;
    if options.config.is_none() {
        options.config = config::default_file(options, &settings::of_process);
    }
    // The report says it all, unless somebody wants more.
    options.log_level = options.log_level.or(Some(LevelFilter::OFF));
    let level = options.log_level.unwrap_or(LevelFilter::OFF);
    let _flush = telemetry::init(level, options.log_format.unwrap_or(LogFormat::Text));
    let read = config::sources(options, &settings::of_process)
        .and_then(|sources| Reader::new(options, &sources))
        .and_then(|reader| reader.read(&settings::of_process));
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    let config = read.map(|(current, _)| current.config);
    let examining = shutdown::until_signal(doctor::run(config, &args));
    let result = runtime.block_on(examining);
    runtime.shutdown_background();
    output::finish();
    match result {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
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

/// Shows what a running device-proxy carries.
fn ask_status(asked: Asked) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    let is_watched = asked.watch;
    let asking = status::ask(env!("CARGO_PKG_NAME"), asked);
    match runtime.block_on(shutdown::until_signal(asking)) {
        Ok(Ok(())) => {
            output::finish();
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => report::failure(&error),
        // Ctrl-C is the way to end it.
        Err(_) if is_watched => ExitCode::SUCCESS,
        Err(interrupted) => interrupted.into(),
    }
}

/// Enrols this device. With the configuration file to go on with in this process, if it does.
fn enrol(args: EnrolArgs) -> Result<Option<PathBuf>, ExitCode> {
    let runtime = runtime().map_err(|error| report::failure(&error))?;
    let result = runtime.block_on(shutdown::until_signal(enrol::enrol(args)));
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
