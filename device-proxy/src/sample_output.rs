//! The official samples' lines on stdout, for scripts that watch them.

use common::sample_output::traffic_lines;
use common::tunnel::Traffic;

/// A request has come (C sample).
pub fn request(name: &str) {
    println!("Received stream request ({name})");
}

/// Data went through the echo target (C# sample).
pub fn echoed(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    println!("Received stream data: {text}");
    println!("Sent stream data: {text}");
}

/// Runs a tunnel between the samples' lines, with the traffic counts of the C sample.
pub async fn around<T>(traffic: &Traffic, tunnel: impl Future<Output = T>) -> T {
    println!("Starting streaming");
    let outcome = tokio::select! {
        outcome = tunnel => outcome,
        () = traffic_lines(traffic, |line| println!("{line}")) => std::future::pending().await,
    };
    println!("Done streaming");
    outcome
}
