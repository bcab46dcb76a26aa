//! The official samples' lines, for scripts that wait for them (`docs/protocol.md`, "The official
//! samples' lines"): those of the C# samples, and the C sample's traffic counts.

use std::convert::Infallible;

use common::identity::StreamName;
use common::output;
use common::sample_output::{shown, traffic_lines};
use common::tunnel::Traffic;

/// Whether and where the samples' lines are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SampleOutput {
    /// Nowhere: our own lines instead.
    #[default]
    Off,
    /// On stdout.
    Stdout,
    /// On stderr, when stdout is the tunnel's.
    Stderr,
}

impl SampleOutput {
    /// On stdout, if at all.
    pub fn on_stdout(wanted: bool) -> Self {
        if wanted { Self::Stdout } else { Self::Off }
    }

    /// On stderr, if at all.
    pub fn on_stderr(wanted: bool) -> Self {
        if wanted { Self::Stderr } else { Self::Off }
    }

    /// Whether our own lines are wanted.
    pub fn is_off(self) -> bool {
        self == Self::Off
    }

    /// The hub has passed on the device's answer.
    pub fn response(self, name: &StreamName, accepted: bool) {
        let accepted = if accepted { "True" } else { "False" };
        self.print(&format!(
            "Stream response received: Name={name} IsAccepted={accepted}"
        ));
    }

    /// The stream is open.
    pub fn starting(self) {
        self.print("Starting streaming");
    }

    /// The stream has ended.
    pub fn done(self) {
        self.print("Done streaming");
    }

    /// An echo test has sent this.
    pub fn sent_data(self, bytes: &[u8]) {
        if !self.is_off() {
            self.print(&format!("Sent stream data: {}", shown(bytes)));
        }
    }

    /// An echo test has received this.
    pub fn received_data(self, bytes: &[u8]) {
        if !self.is_off() {
            self.print(&format!("Received stream data: {}", shown(bytes)));
        }
    }

    /// Prints a tunnel's traffic again and again; never ends. Drop the future when the tunnel has
    /// ended.
    pub async fn count(self, traffic: &Traffic) -> Infallible {
        if self.is_off() {
            return std::future::pending().await;
        }
        traffic_lines(traffic, |line| self.print(line)).await
    }

    fn print(self, line: &str) {
        match self {
            Self::Off => {}
            Self::Stdout => output::stdout().line(line),
            Self::Stderr => output::stderr().line(line),
        }
    }
}
