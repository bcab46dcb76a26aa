//! The official samples' lines on stdout, for scripts that watch them.

use common::output;
use common::sample_output::{shown, traffic_lines};
use common::tunnel::Traffic;

fn print(line: &str) {
    output::stdout().line(line);
}

/// A request has come (C sample).
pub fn request(name: &str) {
    print(&format!("Received stream request ({name})"));
}

/// Data went through the echo target (C# sample).
pub fn echoed(bytes: &[u8]) {
    let text = shown(bytes);
    print(&format!("Received stream data: {text}"));
    print(&format!("Sent stream data: {text}"));
}

/// Runs a tunnel between the samples' lines, with the traffic counts of the C sample. Dropping the
/// future drops the tunnel.
pub async fn around<T>(traffic: &Traffic, tunnel: impl Future<Output = T>) -> T {
    print("Starting streaming");
    let outcome = tokio::select! {
        outcome = tunnel => outcome,
        never = traffic_lines(traffic, print) => match never {},
    };
    print("Done streaming");
    outcome
}
