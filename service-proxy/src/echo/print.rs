//! Echo tests for a person: lines as `ping` prints them, a progress bar, a summary.

use std::fmt::Write as _;
use std::time::Duration;

use common::identity::{DeviceIdentity, StreamName};
use common::output;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{EchoError, EchoEvent, EchoPlan, EchoReport, run};
use crate::config::EchoConfig;
use crate::sample_output::SampleOutput;
use crate::stream::StreamOpener;

/// Runs the test of a command line: replies and summary on stdout, the progress bar on
/// stderr. Dropping the future cuts the stream.
///
/// # Errors
/// [`EchoError`], unless every byte came back right.
pub async fn run_and_print(config: EchoConfig, stop: &CancellationToken) -> Result<(), EchoError> {
    let EchoConfig {
        hub,
        identity,
        name,
        plan,
        sample_output,
    } = config;
    let opener = StreamOpener::new(&hub, sample_output)?;
    let bar = progress_bar(&plan);
    let observer = |event: EchoEvent<'_>| match event {
        EchoEvent::Opened => sample_output.starting(),
        EchoEvent::Sent { bytes } => sample_output.sent_data(bytes),
        EchoEvent::Progress { received } => bar.set_position(received),
        EchoEvent::Reply { bytes, .. } if !sample_output.is_off() => {
            sample_output.received_data(bytes);
        }
        EchoEvent::Reply { seq, bytes, time } => {
            print(&reply_line(&identity, &name, seq, bytes.len(), time));
        }
    };
    let report = run(&opener, &identity, &name, &plan, stop, observer).await;
    bar.finish_and_clear();
    let report = report?;
    finish(&report, &plan, &identity, &name, sample_output);
    match report.failure {
        None => Ok(()),
        Some(failure) => Err(EchoError::Failed(failure)),
    }
}

fn finish(
    report: &EchoReport,
    plan: &EchoPlan,
    identity: &DeviceIdentity,
    name: &StreamName,
    sample_output: SampleOutput,
) {
    if sample_output.is_off() {
        print(&summary(report, plan, identity, name));
    } else {
        sample_output.done();
    }
}

/// If standard output has no reader any more, the exit code still gives the result.
fn print(line: &str) {
    output::stdout().line(line);
}

/// Hidden when stderr is no terminal.
fn progress_bar(plan: &EchoPlan) -> ProgressBar {
    let EchoPlan::Throughput { total } = plan else {
        return ProgressBar::hidden();
    };
    let style = ProgressStyle::with_template(
        "{bar:40} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(*total).with_style(style)
}

fn reply_line(
    identity: &DeviceIdentity,
    name: &StreamName,
    seq: u64,
    bytes: usize,
    time: Duration,
) -> String {
    format!(
        "{bytes} bytes from {identity} ({name}): seq={seq} time={:.2} ms",
        time.as_secs_f64() * 1e3
    )
}

/// The last lines of a test.
fn summary(
    report: &EchoReport,
    plan: &EchoPlan,
    identity: &DeviceIdentity,
    name: &StreamName,
) -> String {
    match plan {
        EchoPlan::Pings { .. } => {
            let mut text = format!(
                "--- {identity} ({name}) ---\n{} sent, {} received",
                report.sent, report.received
            );
            if report.received > 0 {
                let _ = write!(text, ", round trip {}", report.times);
            }
            text
        }
        EchoPlan::Throughput { total } => format!(
            "--- {identity} ({name}) ---\n{} of {total} bytes came back right in {:.2} s: {:.1} MiB/s each way",
            report.bytes_received,
            report.duration.as_secs_f64(),
            report.throughput(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use common::identity::DeviceId;

    use super::*;

    #[test]
    fn lines_as_ping_prints_them() {
        let identity = DeviceIdentity::of_device(DeviceId::parse("MyDevice").unwrap());
        let name = StreamName::parse("echo").unwrap();
        assert_eq!(
            reply_line(&identity, &name, 1, 64, Duration::from_micros(420)),
            "64 bytes from MyDevice (echo): seq=1 time=0.42 ms"
        );
        let mut report = EchoReport {
            sent: 2,
            received: 2,
            ..EchoReport::default()
        };
        report.times.add(Duration::from_millis(1));
        report.times.add(Duration::from_millis(4));
        let plan = EchoPlan::Pings {
            count: Some(2),
            payload: super::super::Payload::Pattern(64),
            interval: Duration::ZERO,
        };
        assert_eq!(
            summary(&report, &plan, &identity, &name),
            "--- MyDevice (echo) ---\n2 sent, 2 received, round trip min/avg/max = 1.00/2.50/4.00 ms"
        );
    }
}
