use std::io;
use std::process::ExitCode;

use common::{command_line, descriptors, output, report, shutdown, telemetry};
use hub::cli::{Cli, Command};
use hub::commands;
use hub::config::ServeConfig;
use hub::server::{ServeError, Server};
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
    let _flush = telemetry::init(cli.log_level);
    match cli.command {
        Command::Serve(args) => match serve(args.into_config(cli.data_dir)).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => report::failure(&error),
        },
        Command::Admin(command) => {
            let (mut out, mut talk) = (io::stdout(), io::stderr());
            match commands::run(&cli.data_dir, command, &mut out, &mut talk).await {
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
