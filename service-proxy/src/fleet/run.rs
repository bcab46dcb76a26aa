//! `run`: one command on many devices, over ssh.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::identity::{DeviceId, StreamName};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::print::Printer;
use super::{Fleet, FleetError};
use crate::cli::RunArgs;
use crate::config::ServiceConnection;
use crate::exit_code;
use crate::host_names::host_of;
use crate::hub_api::select;
use crate::limits;
use crate::openssh::proxy_command;

/// On how many devices at once, by default.
const PARALLEL: u16 = 10;
/// Lines that wait to be printed; the programs wait then, too.
const LINES: usize = 64;
/// Failed devices that the error names.
const NAMED: usize = 10;
/// The exit code of a command that took too long, as `timeout` has it.
const TOOK_TOO_LONG: u8 = 124;
/// The exit code where there is no ssh, as shells have it.
const NOT_FOUND: u8 = 127;

/// A line of a device's output.
struct Line {
    device: DeviceId,
    is_error: bool,
    text: String,
}

impl Fleet {
    pub(super) async fn run(
        &self,
        args: RunArgs,
        target: &StreamName,
        connection: &ServiceConnection,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let devices = self.matching(&args.condition).await?;
        let program = std::env::current_exe().map_err(FleetError::OwnFile)?;
        let limit = args.max_seconds.map(Duration::from_secs);
        let parallel = usize::from(args.parallel.unwrap_or(PARALLEL));
        let mut err = Printer::new(tokio::io::stderr());
        let (sender, mut lines) = channel(LINES);
        let mut waiting = devices.iter();
        // Dropped, it ends all of them.
        let mut running = JoinSet::new();
        let mut failed = Vec::new();
        loop {
            while running.len() < parallel
                && let Some(device) = waiting.next()
            {
                let command = command(&args, &program, connection, device, target);
                running.spawn(perform(device.clone(), command, limit, sender.clone()));
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                // A device's lines come before its end.
                biased;
                Some(line) = lines.recv() => print(&line, out, &mut err).await?,
                Some(ended) = running.join_next() => {
                    let (device, code) = ended.map_err(|_| FleetError::Stopped)?;
                    if code != 0 {
                        failed.push((device, code));
                    }
                }
            }
        }
        while let Ok(line) = lines.try_recv() {
            print(&line, out, &mut err).await?;
        }
        out.flush().await?;
        result(failed, devices.len())
    }

    /// The ids of all devices that match; at least one.
    async fn matching(&self, condition: &str) -> Result<Vec<DeviceId>, FleetError> {
        let text = select::devices("deviceId", Some(condition));
        let mut query = self.api.query(&text);
        let mut devices = Vec::new();
        while let Some(page) = query
            .next_page()
            .await
            .map_err(self.failed(format!("find the devices with `{text}`")))?
        {
            let ids = page.iter().filter_map(|row| row.get("deviceId"));
            devices.extend(
                ids.filter_map(Value::as_str)
                    .filter_map(|id| DeviceId::parse(id).ok()),
            );
        }
        if devices.is_empty() {
            return Err(FleetError::NoDevice {
                hub: self.hub().clone(),
                condition: condition.to_owned(),
            });
        }
        Ok(devices)
    }
}

/// ssh for one device.
fn command(
    args: &RunArgs,
    program: &Path,
    connection: &ServiceConnection,
    device: &DeviceId,
    target: &StreamName,
) -> Command {
    let ours = proxy_command::options(program, connection, device, target);
    let mut command = Command::new("ssh");
    for option in ours.iter().chain(&args.ssh_options) {
        command.args(["-o", option]);
    }
    if let Some(user) = &args.ssh.user {
        command.args(["-l", user]);
    }
    command.args(["--", &host_of(device)]).args(&args.command);
    for (variable, secret) in &connection.secrets {
        command.env(variable, secret.expose());
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs the command to its end. Dropping the future ends it.
async fn perform(
    device: DeviceId,
    mut command: Command,
    limit: Option<Duration>,
    lines: Sender<Line>,
) -> (DeviceId, u8) {
    let say = async |text: String| {
        let line = Line {
            device: device.clone(),
            is_error: true,
            text,
        };
        // It is lost only when all ends.
        let _ = lines.send(line).await;
    };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            say(format!("ssh cannot be started: {error}")).await;
            return (device, NOT_FOUND);
        }
    };
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let work = async {
        tokio::join!(
            pass_on(output, &device, false, &lines),
            pass_on(errors, &device, true, &lines),
        );
        child.wait().await
    };
    let status = match limit {
        None => Ok(work.await),
        Some(limit) => timeout(limit, work).await,
    };
    let code = match status {
        Ok(Ok(status)) => exit_code::of(status),
        Ok(Err(error)) => {
            say(format!("ssh is lost: {error}")).await;
            1
        }
        Err(_) => {
            let seconds = limit.unwrap_or_default().as_secs();
            say(format!("ended: it took longer than {seconds} s")).await;
            TOOK_TOO_LONG
        }
    };
    (device, code)
}

/// Sends a program's output line by line, very long lines in pieces.
async fn pass_on(
    output: Option<impl AsyncRead + Unpin>,
    device: &DeviceId,
    is_error: bool,
    lines: &Sender<Line>,
) {
    let Some(output) = output else { return };
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        let (used, is_end) = match reader.fill_buf().await {
            Ok([]) | Err(_) => (0, true),
            Ok(bytes) => {
                let room = limits::OUTPUT_LINE.saturating_sub(line.len());
                let bytes = bytes.get(..room.min(bytes.len())).unwrap_or(bytes);
                match bytes.split_inclusive(|b| *b == b'\n').next() {
                    Some(part) => {
                        line.extend_from_slice(part);
                        (part.len(), false)
                    }
                    None => (0, false),
                }
            }
        };
        reader.consume(used);
        let is_whole = line.ends_with(b"\n") || line.len() >= limits::OUTPUT_LINE;
        if is_whole || (is_end && !line.is_empty()) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']).to_owned();
            let device = device.clone();
            let sent = lines.send(Line {
                device,
                is_error,
                text,
            });
            if sent.await.is_err() {
                return;
            }
            line.clear();
        }
        if is_end {
            return;
        }
    }
}

async fn print(line: &Line, out: &mut Printer, err: &mut Printer) -> Result<(), FleetError> {
    let printer = if line.is_error { err } else { out };
    printer
        .line(&format!("{}: {}", line.device, line.text))
        .await?;
    printer.flush().await
}

fn result(failed: Vec<(DeviceId, u8)>, devices: usize) -> Result<(), FleetError> {
    let Some(worst) = failed.iter().map(|(_, code)| *code).max() else {
        return Ok(());
    };
    let named = failed.iter().take(NAMED);
    let mut which: Vec<String> = named
        .map(|(device, code)| format!("{device} (exit code {code})"))
        .collect();
    if failed.len() > NAMED {
        which.push(format!("and {} more", failed.len() - NAMED));
    }
    Err(FleetError::Commands {
        failed: failed.len(),
        devices,
        which: which.join(", "),
        worst,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> DeviceId {
        DeviceId::parse(id).unwrap()
    }

    #[tokio::test]
    async fn output_is_passed_on_in_lines() {
        let long = "x".repeat(limits::OUTPUT_LINE + 3);
        let text = format!("one\r\n\n{long}\nlast");
        let (sender, mut lines) = channel(LINES);
        pass_on(Some(text.as_bytes()), &device("d"), false, &sender).await;
        drop(sender);
        let mut all = Vec::new();
        while let Some(line) = lines.recv().await {
            all.push(line.text);
        }
        let (start, rest) = long.split_at(limits::OUTPUT_LINE);
        assert_eq!(all, ["one", "", start, rest, "last"]);
    }

    #[test]
    fn the_worst_exit_code_counts() {
        assert!(result(Vec::new(), 2).is_ok());
        let failed = vec![(device("a"), 3), (device("b"), 255)];
        let error = result(failed, 5).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the command failed on 2 of 5 devices: a (exit code 3), b (exit code 255)"
        );
        assert!(matches!(error, FleetError::Commands { worst: 255, .. }));
    }
}
