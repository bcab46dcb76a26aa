//! Measures WebSocket engines: alone, and in the relay that the hub is. See README.md.

mod allocations;
mod fake;
mod hand;
mod measure;
mod socket;
mod tls;

use hand::{Bare, COMPACT, COPY, Hand, VECTORED};
use measure::{Case, Codec, case};
use socket::{Fast, TokioWebSockets, Tungstenite};
use tls::{Ends, Tls};

const K: usize = 1 << 10;
/// Frame sizes, and MiB carried by one relay run of each.
const FRAMES: [(usize, usize); 4] = [(64 * K, 1024), (16 * K, 1024), (K, 256), (64, 32)];
/// rustls' own limit; one for a whole batch; large reads below; buffers of our own.
const LIMIT: Tls = Tls::Buffered(64 * K);
const LARGE: Tls = Tls::Buffered(256 * K);
const AHEAD: Tls = Tls::ReadAhead(64 * K);
const UNBUFFERED: Tls = Tls::Unbuffered;

fn cases() -> Vec<Case> {
    vec![
        case::<Tungstenite<{ 16 * K }>>("tokio-tungstenite, 16 KiB reads", LIMIT),
        case::<Tungstenite<{ 128 * K }>>("tokio-tungstenite, 128 KiB reads", LIMIT),
        case::<Fast<0>>("fastwebsockets", LIMIT),
        case::<Fast<{ 64 * K }>>("fastwebsockets over BufWriter", LIMIT),
        case::<TokioWebSockets>("tokio-websockets", LIMIT),
        case::<Hand<{ 64 * K }, COPY>>("hand, copy, 64 KiB reads", LIMIT),
        case::<Hand<{ 256 * K }, COPY>>("hand, copy, 256 KiB reads", LIMIT),
        case::<Hand<{ 64 * K }, COMPACT>>("hand, in place, 64 KiB reads", LIMIT),
        case::<Hand<{ 128 * K }, COMPACT>>("hand, in place, 128 KiB reads", LIMIT),
        case::<Hand<{ 256 * K }, COMPACT>>("hand, in place, 256 KiB reads", LIMIT),
        case::<Hand<{ 256 * K }, VECTORED>>("hand, vectored, 256 KiB reads", LIMIT),
        case::<Bare<{ 256 * K }>>("no WebSocket", LIMIT),
        // What lies below, changed under the same engines.
        case::<Tungstenite<{ 16 * K }>>("tls: tokio-tungstenite, as it is", LIMIT),
        case::<Tungstenite<{ 16 * K }>>("tls: tokio-tungstenite, rustls limit 256 KiB", LARGE),
        case::<Tungstenite<{ 16 * K }>>("tls: tokio-tungstenite, read-ahead 64 KiB", AHEAD),
        case::<Tungstenite<{ 16 * K }>>("tls: tokio-tungstenite, unbuffered", UNBUFFERED),
        case::<Hand<{ 256 * K }, COMPACT>>("tls: hand, in place, as it is", LIMIT),
        case::<Hand<{ 256 * K }, COMPACT>>("tls: hand, in place, rustls limit 256 KiB", LARGE),
        case::<Hand<{ 256 * K }, COMPACT>>("tls: hand, in place, read-ahead 64 KiB", AHEAD),
        case::<Hand<{ 256 * K }, COMPACT>>("tls: hand, in place, unbuffered", UNBUFFERED),
        case::<Bare<{ 256 * K }>>("tls: no WebSocket, as it is", LIMIT),
        case::<Bare<{ 256 * K }>>("tls: no WebSocket, unbuffered", UNBUFFERED),
    ]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let rounds = args.next().map_or(Ok(3), |rounds| rounds.parse())?;
    let name = args.next().unwrap_or_default();
    let only: Option<usize> = args.next().map(|frame| frame.parse()).transpose()?;
    let mut cases = cases();
    cases.retain(|case| case.name.contains(&name));
    let frames = FRAMES
        .iter()
        .filter(|(frame, _)| only.is_none_or(|only| only == *frame));
    let ends = std::sync::Arc::new(Ends::new()?);
    for &(frame, mib) in frames {
        if only.is_none() {
            for client in [true, false] {
                codec_table(&cases, frame, client, rounds)?;
            }
        }
        println!("\n| relay, {frame} B frames | MiB/s (spread) | CPU s/GiB |\n| --- | --- | --- |");
        let mut runs: Vec<Vec<measure::Run>> = cases.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (case, runs) in cases.iter().zip(&mut runs) {
                runs.push((case.relay)(&ends, case.tls, frame, mib << 20)?);
            }
        }
        for (case, runs) in cases.iter().zip(&runs) {
            let rate: Vec<f64> = runs.iter().map(|run| run.rate).collect();
            let (low, high) = measure::spread(&rate);
            let rate = measure::median(rate);
            let cpu = measure::median(runs.iter().map(|run| run.cpu).collect());
            println!(
                "| {} | {rate:.0} ({low:.0}-{high:.0}) | {cpu:.2} |",
                case.name
            );
        }
    }
    Ok(())
}

/// One direction of the engines alone; those that differ only in the relay or in TLS once.
fn codec_table(cases: &[Case], frame: usize, client: bool, rounds: usize) -> std::io::Result<()> {
    let way = if client {
        "client to server"
    } else {
        "server to client"
    };
    println!(
        "\n| engine alone, {frame} B frames, {way} | encode GiB/s | decode GiB/s | both | allocations a message |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let alone = |case: &&Case| {
        let name = case.name;
        !(name.starts_with("tls")
            || name.contains("place")
            || name.contains("vectored")
            || name.contains("no WebSocket"))
    };
    let cases: Vec<&Case> = cases.iter().filter(alone).collect();
    let mut runs: Vec<Vec<Codec>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (case, runs) in cases.iter().zip(&mut runs) {
            runs.push((case.codec)(frame, client)?);
        }
    }
    for (case, runs) in cases.iter().zip(&runs) {
        let encode = measure::median(runs.iter().map(|run| run.encode).collect());
        let decode = measure::median(runs.iter().map(|run| run.decode).collect());
        let both = 1.0 / (1.0 / encode + 1.0 / decode);
        let allocations = measure::median(runs.iter().map(|run| run.allocations).collect());
        println!(
            "| {} | {encode:.1} | {decode:.1} | {both:.1} | {allocations:.2} |",
            case.name
        );
    }
    Ok(())
}
