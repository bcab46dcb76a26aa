//! The load for a chain of programs, and the daemon behind it; see `bench::load`.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::load::bulk::Direction;
use bench::load::hub::{Hub, HubArguments, device, streams};
use bench::load::{LoadError, bulk, echo, hold, raise_descriptor_limit, serve, within};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Measures the path between itself and its own daemon, and checks every byte.
///
/// The result is one JSON object on standard output. Commands that hold something, or serve, print
/// a first line of JSON when they are ready, and end when standard input ends.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Limit of the whole measurement, in seconds.
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The daemon at the far end: echoes, receives or sends bytes, as requested.
    Serve {
        /// Where to listen; port 0 picks one.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Throughput in one direction.
    Bulk {
        /// Address of the chain.
        #[arg(long)]
        to: SocketAddr,
        /// To the daemon, or from it.
        #[arg(long)]
        direction: Direction,
        /// Connections that share the bytes.
        #[arg(long, default_value_t = 1)]
        connections: u32,
        /// Total bytes.
        #[arg(long)]
        bytes: u64,
    },
    /// Round trips on one connection.
    Ping {
        /// Address of the chain.
        #[arg(long)]
        to: SocketAddr,
        /// Bytes of each message.
        #[arg(long, default_value_t = 1)]
        size: u32,
        /// Round trips.
        #[arg(long, default_value_t = 10_000)]
        count: u64,
    },
    /// Time from the connect to the first echo, one connection after the other.
    Open {
        /// Address of the chain.
        #[arg(long)]
        to: SocketAddr,
        /// Connections.
        #[arg(long, default_value_t = 500)]
        count: u64,
    },
    /// Connections opened per second, each with an echo.
    Opens {
        /// Address of the chain.
        #[arg(long)]
        to: SocketAddr,
        /// How many at a time.
        #[arg(long, default_value_t = 32)]
        concurrency: u32,
        /// Duration.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// The most connections.
        #[arg(long, default_value_t = u64::MAX)]
        count: u64,
    },
    /// Idle connections, each with an echo at its beginning and its end.
    Hold {
        /// Address of the chain.
        #[arg(long)]
        to: SocketAddr,
        /// Connections.
        #[arg(long, default_value_t = 1000)]
        connections: usize,
    },
    /// Devices, each with its own MQTT session; idle, unless they report or answer.
    Devices {
        #[command(flatten)]
        hub: HubArguments,
        /// Number of the first device.
        #[arg(long, default_value_t = 0)]
        first: u32,
        /// Devices.
        #[arg(long, default_value_t = 10_000)]
        count: u32,
        /// How many connect at the same time.
        #[arg(long, default_value_t = 32)]
        concurrency: usize,
        /// Each reports a property in its twin so often, in seconds.
        #[arg(long, value_parser = seconds)]
        report_every: Option<Duration>,
        /// Each answers direct methods, with 200 and a small object.
        #[arg(long)]
        answer_methods: bool,
    },
    /// Stream initiations per second, each accepted by the device.
    Initiations {
        #[command(flatten)]
        hub: HubArguments,
        /// A file with a service's connection string.
        #[arg(long)]
        service_string_file: PathBuf,
        /// How many at a time.
        #[arg(long, default_value_t = 8)]
        concurrency: u32,
        /// Duration.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
    /// Idle streams at the hub: both legs, no proxies.
    Streams {
        #[command(flatten)]
        hub: HubArguments,
        /// A file with a service's connection string.
        #[arg(long)]
        service_string_file: PathBuf,
        /// Streams.
        #[arg(long, default_value_t = 1000)]
        count: usize,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("stream-load: the system gives no event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("stream-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<Value, LoadError> {
    let limit = Duration::from_secs(cli.timeout);
    match cli.command {
        Command::Serve { listen } => {
            let refused = |source| LoadError::Listen { at: listen, source };
            let listener = TcpListener::bind(listen).await.map_err(refused)?;
            let address = listener.local_addr().map_err(refused)?;
            print_ready(&json!({ "listening": address.to_string() }));
            serve::run(listener, end_of_input()).await;
            Ok(json!({}))
        }
        Command::Bulk {
            to,
            direction,
            connections,
            bytes,
        } => {
            let work = bulk::run(to, direction, connections, bytes);
            within(limit, "the bulk transfer", work).await
        }
        Command::Ping { to, size, count } => {
            within(limit, "the pings", echo::ping(to, size, count)).await
        }
        Command::Open { to, count } => within(limit, "the openings", echo::open(to, count)).await,
        Command::Opens {
            to,
            concurrency,
            seconds,
            count,
        } => {
            let work = echo::opens(to, concurrency, seconds, count);
            within(limit, "the openings", work).await
        }
        Command::Hold { to, connections } => {
            let ready = || print_ready(&json!({ "ready": connections }));
            let work = hold::run(to, connections, ready, end_of_input());
            within(limit, "opening and holding", work).await
        }
        Command::Devices {
            hub,
            first,
            count,
            concurrency,
            report_every,
            answer_methods,
        } => {
            let hub = Hub::new(&hub)?;
            let held = device::Held {
                first,
                count,
                concurrency,
                report_every,
                answers: answer_methods,
            };
            let work = device::hold(hub, held, print_ready, end_of_input());
            within(limit, "connecting and holding", work).await
        }
        Command::Initiations {
            hub,
            service_string_file,
            concurrency,
            seconds,
        } => {
            let hub = Hub::new(&hub)?;
            let work = streams::initiations(hub, &service_string_file, concurrency, seconds);
            within(limit, "the initiations", work).await
        }
        Command::Streams {
            hub,
            service_string_file,
            count,
        } => {
            let hub = Hub::new(&hub)?;
            let work = streams::hold(
                hub,
                &service_string_file,
                count,
                print_ready,
                end_of_input(),
            );
            within(limit, "opening and holding", work).await
        }
    }
}

/// A number of seconds above 0.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds")?;
    let time = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if time.is_zero() {
        return Err("expected a number above 0".to_owned());
    }
    Ok(time)
}

/// Prints the first line, when everything is ready.
fn print_ready(result: &Value) {
    println!("{result}");
}

/// Waits for the end of standard input.
async fn end_of_input() {
    let (sender, over) = oneshot::channel::<()>();
    // Tokio's own standard input would prevent the program from ending.
    std::thread::spawn(move || {
        let mut discarded = [0; 256];
        while matches!(std::io::stdin().read(&mut discarded), Ok(1..)) {}
        drop(sender);
    });
    let _ = over.await;
}
