use std::io;
use std::process::ExitCode;

use common::{command_line, descriptors, output, report, settings, shutdown, telemetry};
use hub::cli::{Cli, Command};
use hub::config::ServeConfig;
use hub::server::{ServeError, Server};
use hub::{commands, config};
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

#[tokio::main]
async fn main() -> ExitCode {
    let cli: Cli = command_line::parse();
    descriptors::raise();
    let sources = match config::sources(&cli, &settings::of_process) {
        Ok(sources) => sources,
        Err(error) => return report::usage(&error),
    };
    let _flush = match config::log_level(&cli, &sources) {
        Ok(level) => telemetry::init(level),
        Err(error) => return report::usage(&error),
    };
    let data_dir = match config::data_dir(&cli, &sources) {
        Ok(data_dir) => data_dir,
        Err(error) => return report::usage(&error),
    };
    match cli.command {
        Command::Serve(args) => {
            let is_check = args.check_config;
            let config = match config::serve(args, data_dir, &sources) {
                Ok(config) => config,
                Err(error) => return report::usage(&error),
            };
            if is_check {
                return match config.check() {
                    Ok(()) => report::valid(),
                    Err(error) => report::usage(&error),
                };
            }
            match serve(config).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => report::failure(&error),
            }
        }
        Command::Admin(command) => {
            let command = match config::admin(command, &sources) {
                Ok(command) => command,
                Err(error) => return report::usage(&error),
            };
            let (mut out, mut talk) = (io::stdout(), io::stderr());
            match commands::run(&data_dir, command, &mut out, &mut talk).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if error.is_usage() => report::usage(&error),
                Err(error) => report::failure(&error),
            }
        }
    }
}

async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    let server = Server::bind(config).await?;
    let stop = CancellationToken::new();
    tokio::spawn(shutdown::on_signal(stop.clone()));
    // The program that started us reads these lines: they do not depend on the log level.
    output::stderr().text(&server.announcement());
    server.run(stop).await;
    Ok(())
}
