//! A link of known delay and rate between two TUN interfaces; see `bench::link`.

use std::process::ExitCode;
use std::time::Duration;

use bench::link::command::{parse_delay, parse_rate};
use clap::Parser;

/// Forwards IP packets between two new TUN interfaces with a delay and a rate, or drops them.
///
/// Move the interfaces into two network namespaces once `ready` is printed. Commands are lines on
/// standard input, and each is answered with one line: freeze, thaw (packets are dropped, or pass
/// again), cut, mend (TCP connections are reset and refused, or pass again), delay 25ms, rate
/// 100mbit, rate none, stats. The end of standard input ends the program and its interfaces.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Name of the first interface.
    first: String,
    /// Name of the second interface.
    second: String,
    /// One-way delay.
    #[arg(long, default_value = "0ms", value_parser = parse_delay)]
    delay: Duration,
    /// Rate in each direction, such as 100mbit, or none.
    #[arg(long, default_value = "none")]
    rate: String,
    /// Bytes that may wait in each direction when there is a rate; the default is rate times round
    /// trip, at least 64 KiB.
    #[arg(long)]
    queue: Option<usize>,
    /// Largest IP packet in bytes.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u16).range(576..))]
    mtu: u16,
    /// Packets that the kernel queues for this program, for each interface.
    #[arg(long, default_value_t = 10_000)]
    tx_queue: u32,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let rate = match parse_rate(&cli.rate) {
        Ok(rate) => rate,
        Err(error) => {
            eprintln!("stream-link: {error}");
            return ExitCode::from(2);
        }
    };
    run(cli, rate)
}

#[cfg(target_os = "linux")]
fn run(cli: Cli, rate: Option<u64>) -> ExitCode {
    let settings = bench::link::forward::Settings {
        names: [cli.first, cli.second],
        delay: cli.delay,
        rate,
        queue: cli.queue,
        mtu: cli.mtu,
        tx_queue: cli.tx_queue,
    };
    match bench::link::forward::run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stream-link: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn run(_: Cli, _: Option<u64>) -> ExitCode {
    eprintln!("stream-link: this needs Linux, for its TUN interfaces");
    ExitCode::from(2)
}
