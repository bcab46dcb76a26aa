use std::io;
use std::path::Path;
use std::process::ExitCode;

use common::reload::Reloads;
use common::settings::{self, Sources};
use common::shutdown::{self, Interrupted};
use common::{command_line, descriptors, output, report, telemetry};
use hub::Followed;
use hub::cli::{AdminCommand, Cli, Command};
use hub::config::{Reader, ServeConfig};
use hub::server::Server;
use hub::{commands, config, limits, local_login};
use tokio::runtime::{Builder, Runtime};

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
    if cli.config.is_none() {
        cli.config = config::default_file(&cli, &settings::of_process);
    }
    let sources = match config::sources(&cli, &settings::of_process) {
        Ok(sources) => sources,
        Err(error) => return report::usage(&error),
    };
    let _flush = match config::log_level(&cli, &sources)
        .and_then(|level| Ok((level, config::log_format(&cli, &sources)?)))
    {
        Ok((level, form)) => telemetry::init(level, form),
        Err(error) => return report::usage(&error),
    };
    if let Command::Admin(command) = &cli.command
        && let Ok(data_dir) = config::data_dir(&cli, &sources)
    {
        if matches!(command, AdminCommand::Enrol(args) if args.login)
            && let Err(error) = local_login::run(&data_dir)
        {
            return report::failure(&error);
        }
        #[cfg(unix)]
        become_owner(&data_dir);
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    match runtime.block_on(run(cli, &sources)) {
        Ok(code) => {
            // What the database is writing is written.
            runtime.shutdown_timeout(limits::DRAIN);
            code
        }
        Err(interrupted) => {
            runtime.shutdown_background();
            interrupted.into()
        }
    }
}

/// Threads that waited for the database end soon after a burst: each keeps freed memory for itself.
fn runtime() -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder
        .enable_all()
        .thread_keep_alive(limits::BLOCKING_KEEP_ALIVE)
        .build()
}

async fn run(cli: Cli, sources: &Sources<'_>) -> Result<ExitCode, Interrupted> {
    let data_dir = match config::data_dir(&cli, sources) {
        Ok(data_dir) => data_dir,
        Err(error) => return Ok(report::usage(&error)),
    };
    match cli.command.clone() {
        Command::Serve(args) => {
            let is_check = args.check_config;
            let read = Reader::new(cli, args, sources).and_then(|reader| {
                let (current, files) = reader.read(&settings::of_process)?;
                Ok((reader, current, files))
            });
            match read {
                Ok((_, current, _)) if is_check => Ok(check(&current.config)),
                Ok((reader, current, files)) => {
                    let reloads = Reloads::new(files);
                    serve(Followed {
                        current,
                        reader,
                        reloads,
                    })
                    .await
                }
                Err(error) => Ok(report::usage(&error)),
            }
        }
        Command::Admin(command) => Ok(match config::admin(command, sources) {
            Ok(command) => administer(&data_dir, command).await,
            Err(error) => report::usage(&error),
        }),
    }
}

fn check(config: &ServeConfig) -> ExitCode {
    match config.check() {
        Ok(()) => report::valid(),
        Err(error) => report::usage(&error),
    }
}

async fn serve(followed: Followed) -> Result<ExitCode, Interrupted> {
    let server = match Server::bind(followed.current.config.clone()).await {
        Ok(server) => server,
        Err(error) if error.is_usage() => return Ok(report::usage(&error)),
        Err(error) => return Ok(report::failure(&error)),
    };
    #[cfg(feature = "otel")]
    if let Err(error) = common::otel::start("stream-hub", env!("CARGO_PKG_VERSION")) {
        return Ok(report::usage(&error));
    }
    shutdown::with_signals(|stop| {
        // The program that started us reads these lines: they do not depend on the log level.
        output::stderr().text(&server.announcement());
        server.run_following(Some(followed), stop)
    })
    .await?;
    #[cfg(feature = "otel")]
    common::otel::finish().await;
    Ok(ExitCode::SUCCESS)
}

async fn administer(data_dir: &Path, command: AdminCommand) -> ExitCode {
    let (mut out, mut talk) = (io::stdout(), io::stderr());
    match commands::run(data_dir, command, &mut out, &mut talk).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_usage() => report::usage(&error),
        Err(error) => report::failure(&error),
    }
}

/// Root's admin commands do their work as the user that the data folder belongs to, as a service's
/// does: what they write is that user's then. Returns where there is nothing to change, or no way
/// to; the folder's owner is looked at later in any case.
#[cfg(unix)]
fn become_owner(data_dir: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::process::CommandExt as _;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let owner = std::fs::metadata(data_dir).ok();
    let owner = owner.filter(|owner| owner.uid() != 0);
    if let (Some(owner), Ok(program)) = (owner, std::env::current_exe()) {
        let mut command = std::process::Command::new(program);
        command
            .args(
                std::env::args_os()
                    .skip(1)
                    .filter(|arg| arg != local_login::OPTION),
            )
            .uid(owner.uid())
            .gid(owner.gid());
        // It comes back only with an error.
        let _ = command.exec();
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::time::{Duration, Instant};

    use super::*;

    const BURST: usize = 40;

    fn threads() -> usize {
        std::fs::read_dir("/proc/self/task").unwrap().count()
    }

    #[test]
    fn the_threads_of_a_burst_end_although_work_goes_on() {
        let runtime = runtime().unwrap();
        let before = threads();
        let barrier = Arc::new(Barrier::new(BURST + 1));
        for _ in 0..BURST {
            let barrier = Arc::clone(&barrier);
            runtime.spawn_blocking(move || barrier.wait());
        }
        // They wait for this one.
        assert!(threads() > before + BURST / 2);
        barrier.wait();
        let begun = Instant::now();
        while threads() > before + BURST / 2 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", threads());
            let work = runtime.spawn_blocking(|| ());
            runtime.block_on(work).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
