//! Hub, device-proxy and service-proxy in one process on loopback, for a first look:
//! `cargo run --release -p quickstart`, then `ssh` to a local port.

/// Prints a line on stdout; a reader that is slow or gone does not matter.
macro_rules! say {
    ($($text:tt)*) => { common::output::stdout().line(&format!($($text)*)) };
}

mod cli;
mod parts;

use std::process::ExitCode;

use common::identity::StreamName;
use common::{command_line, descriptors, limits, report, shutdown, telemetry};
use device_proxy::target::Targets;
use service_proxy::echo::{self, EchoEvent, EchoPlan, Payload};
use tokio::runtime::Runtime;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::Cli;
use crate::parts::{QuickstartError, ended_early};

fn main() -> ExitCode {
    let cli: Cli = match command_line::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    descriptors::raise();
    let _flush = telemetry::init(cli.log_level, telemetry::LogFormat::Text);
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return report::failure(&error),
    };
    let result = runtime.block_on(shutdown::with_signals(|stop| run(&cli, stop)));
    // Lets the hub's database finish its writes, unless a second signal has come.
    match result {
        Ok(_) => runtime.shutdown_timeout(limits::DRAIN),
        Err(_) => runtime.shutdown_background(),
    }
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => report::failure(&error),
        Err(interrupted) => interrupted.into(),
    }
}

async fn run(cli: &Cli, stop: CancellationToken) -> Result<(), QuickstartError> {
    // An invalid target is reported before anything is started.
    Targets::parse(std::slice::from_ref(&cli.target), true)?;
    let tasks = TaskTracker::new();
    let stop_hub = CancellationToken::new();

    let server = parts::hub(&cli.data_dir).await?;
    say!(
        "hub            https://{}, MQTT over TLS on {}",
        server.address(),
        parts::mqtts(&server)
    );
    say!(
        "               folder {}, CA {}",
        cli.data_dir.display(),
        parts::ca_file(&server).display()
    );
    let connection = parts::device(&server, &cli.device).await?;
    let service = parts::service(&server).await?;
    let ca_file = parts::ca_file(&server);
    let presence = server.state().presence.clone();
    tasks.spawn(server.run(stop_hub.clone()));

    let target = cli.target.clone();
    let has_target = is_listening(&target).await;
    let device = parts::device_config(connection, &ca_file, has_target.then_some(target.as_str()))?;
    let identity = device.connection.identity.clone();
    let reach = device.targets.summary();
    let mut device_run = tasks.spawn(device_proxy::run(device, stop.clone()));
    let connected = async {
        while !presence.is_subscribed(&identity) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        ended = &mut device_run => return ended_early(ended),
        () = connected => {}
    }
    say!("device-proxy   connected as {identity}; streams reach {reach}");

    let stream = parts::name(if has_target { "TestStream" } else { "echo" })?;
    let listener = parts::listener(&service, &ca_file, &identity, stream, cli.port).await?;
    let port = listener
        .addresses()
        .find_map(|at| at.address.port())
        .unwrap_or(cli.port);
    for at in listener.addresses() {
        say!("service-proxy  {} -> {identity} ({})", at.address, at.name);
    }
    let listener = tasks.spawn(listener.run(stop.clone()));

    let opener = parts::opener(&service, &ca_file)?;
    say!("\necho test over a stream to {identity}:");
    echo_test(&opener, &identity, &stop).await?;

    say!("");
    if has_target {
        let user = ["USER", "USERNAME"]
            .iter()
            .find_map(|name| std::env::var(name).ok());
        // Without it ssh uses the name of the current user.
        let user = user.map(|name| name + "@").unwrap_or_default();
        say!("Now type, in another terminal:\n");
        say!(
            "    ssh -p {port} -o HostKeyAlias={} {user}localhost\n",
            identity.device
        );
    } else {
        say!(
            "Nothing listens on {target}, so there is no SSH server to reach: install or start one,"
        );
        say!("or name another target with --target HOST:PORT. Until then port {port} leads to the");
        say!("device's built-in echo; what you type comes back:\n");
        say!("    nc localhost {port}\n");
    }
    say!("Ctrl-C ends everything.");

    tokio::select! {
        // A stop ends the device-proxy too, and its handle may be awaited only once: below.
        biased;
        () = stop.cancelled() => {}
        ended = &mut device_run => return ended_early(ended),
    }
    say!("\nstopping");
    stop.cancel();
    // The hub stops last, so that the proxies can close their streams in order.
    let _ = tokio::join!(listener, device_run);
    stop_hub.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Whether a TCP service answers there.
async fn is_listening(target: &str) -> bool {
    let Some((host, port)) = target.rsplit_once(':') else {
        return false;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(port) = port.parse::<u16>() else {
        return false;
    };
    let limit = Duration::from_secs(2);
    let connecting = tokio::net::TcpStream::connect((host, port));
    matches!(tokio::time::timeout(limit, connecting).await, Ok(Ok(_)))
}

async fn echo_test(
    opener: &service_proxy::stream::StreamOpener,
    identity: &common::identity::DeviceIdentity,
    stop: &CancellationToken,
) -> Result<(), QuickstartError> {
    let plan = EchoPlan::Pings {
        count: Some(5),
        payload: Payload::Pattern(64),
        interval: Duration::from_millis(200),
    };
    let name: StreamName = parts::name("echo")?;
    let report = echo::run(opener, identity, &name, &plan, stop, |event| {
        if let EchoEvent::Reply { seq, bytes, time } = event {
            let (size, time) = (bytes.len(), time.as_secs_f64() * 1e3);
            say!("    {size} bytes from {identity}: seq={seq} time={time:.2} ms");
        }
    })
    .await?;
    let (sent, received, times) = (report.sent, report.received, report.times);
    say!("    {sent} sent, {received} received, round trip {times}");
    match report.failure {
        Some(failure) if !stop.is_cancelled() => Err(failure.into()),
        _ => Ok(()),
    }
}
