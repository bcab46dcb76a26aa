//! A local command is asked whether a connection may open. It has what it needs to know in its
//! environment, and nothing else of ours: that may hold secrets. Exit code 0 is a yes.

use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::identity::DeviceIdentity;
use common::outside::printable;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Denied, Request};
use crate::policy::Approval;

/// What a command may need of our environment: where programs and libraries are, who it runs as,
/// and how it talks to a person at the desktop.
const KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "DISPLAY",
    "XAUTHORITY",
    "WAYLAND_DISPLAY",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "SystemRoot",
    "SystemDrive",
    "TEMP",
    "TMP",
    "USERPROFILE",
    "PATHEXT",
];

/// Bytes of its output that are kept as the reason of a no.
const REASON: usize = 200;

/// How long its output is read after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Who wants what: all that the command is told, so that one answer is good for all who ask the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// The program and its arguments.
    command: Vec<String>,
    name: String,
    /// Where the name leads, which may change.
    target: String,
    policy: String,
    ip: String,
}

impl Question {
    /// Of this request.
    pub(super) fn of(approval: &Approval, request: &Request<'_>) -> Self {
        let (policy, ip) = request.caller();
        Self {
            command: approval.command.clone(),
            name: request.name.to_owned(),
            target: request.target.to_string(),
            policy,
            ip,
        }
    }
}

/// Asks. May be dropped: the command is then killed, and what it has started, too.
///
/// # Errors
/// [`Denied`], within the time that the command has.
pub(super) async fn ask(
    device: &DeviceIdentity,
    question: &Question,
    limit: Duration,
) -> Result<(), Denied> {
    let Some((program, arguments)) = question.command.split_first() else {
        return Err(Denied::NotApproved(String::new()));
    };
    let module = device.module.as_ref().map(|module| module.as_str());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(
            KEPT.iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .env("DEVICE_STREAMS_DEVICE", device.device.as_str())
        .env("DEVICE_STREAMS_MODULE", module.unwrap_or_default())
        .env("DEVICE_STREAMS_NAME", &question.name)
        .env("DEVICE_STREAMS_TARGET", &question.target)
        .env("DEVICE_STREAMS_POLICY", &question.policy)
        .env("DEVICE_STREAMS_IP", &question.ip)
        .env("DEVICE_STREAMS_SECONDS", limit.as_secs().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(no_command)?;
    // Dropped before it: until then nothing else can get the group's number.
    let mut group = Group::of(&child);
    let output = child.stdout.take();
    let mut said = Vec::new();
    let answered = async {
        let mut reading = pin!(read(output, &mut said));
        tokio::select! {
            // Its output may be open after its end, where it has children.
            status = child.wait() => {
                group.leave();
                let _ = timeout(LAST_WORDS, reading).await;
                status
            }
            () = &mut reading => {
                let status = child.wait().await;
                group.leave();
                status
            }
        }
    };
    match timeout(limit, answered).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Denied::NotApproved(reason(&said, status))),
        Ok(Err(error)) => Err(no_command(error)),
        Err(_) => Err(Denied::NoAnswer(limit)),
    }
}

/// The command and what it has started, which may have a question on somebody's screen: all of it is
/// killed with this, unless the command has ended by itself.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

#[cfg(unix)]
impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            leader: id.and_then(rustix::process::Pid::from_raw),
        }
    }

    /// The command has ended. From now on its number may be another's.
    fn leave(&mut self) {
        self.leader = None;
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // It fails if all of it has ended meanwhile.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(not(unix))]
impl Group {
    fn of(_: &Child) -> Self {
        Self {}
    }

    fn leave(&mut self) {}
}

fn no_command(error: io::Error) -> Denied {
    Denied::NoCommand(Arc::new(error))
}

/// Reads to the end, so that the command never waits, and keeps the beginning.
async fn read(output: Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut buffer = [0; 256];
    while let Ok(count) = output.read(&mut buffer).await
        && count > 0
    {
        let room = REASON.saturating_sub(said.len());
        said.extend(buffer.iter().take(count.min(room)));
    }
}

/// The first line that it has printed, or its exit code.
fn reason(said: &[u8], status: ExitStatus) -> String {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().next().unwrap_or_default().trim();
    match line {
        "" => status.to_string(),
        line => printable(line).into_owned(),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use common::identity::{DeviceId, ModuleId};
    use common::wire::stream::Initiator;

    use super::*;
    use crate::target::Target;

    fn shell(script: &str, seconds: u64) -> Approval {
        Approval {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            limit: Duration::from_secs(seconds),
            holds: Duration::ZERO,
        }
    }

    fn request<'a>(target: &'a Target, caller: Option<&'a Initiator>) -> Request<'a> {
        Request {
            name: "ssh",
            target,
            caller,
        }
    }

    async fn asked(approval: &Approval, request: &Request<'_>) -> Result<(), Denied> {
        let question = Question::of(approval, request);
        ask(&device(), &question, approval.limit).await
    }

    fn device() -> DeviceIdentity {
        let module = ModuleId::parse("m").unwrap();
        let device = DeviceId::parse("MyDevice").unwrap();
        DeviceIdentity::of_module(device, module)
    }

    #[tokio::test]
    async fn the_command_learns_who_wants_what_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("environment");
        let approval = shell(&format!("env > {}", file.display()), 20);
        let target = Target::tcp("localhost", "22").unwrap();
        let caller = Initiator {
            ip: "192.0.2.7".parse().unwrap(),
            policy: "ada $(reboot); x".to_owned(),
        };
        asked(&approval, &request(&target, Some(&caller)))
            .await
            .unwrap();
        let environment = std::fs::read_to_string(&file).unwrap();
        for line in [
            "DEVICE_STREAMS_DEVICE=MyDevice",
            "DEVICE_STREAMS_MODULE=m",
            "DEVICE_STREAMS_NAME=ssh",
            "DEVICE_STREAMS_TARGET=localhost:22",
            "DEVICE_STREAMS_POLICY=ada $(reboot); x",
            "DEVICE_STREAMS_IP=192.0.2.7",
            "DEVICE_STREAMS_SECONDS=20",
        ] {
            assert!(
                environment.lines().any(|it| it == line),
                "{line}\n{environment}"
            );
        }
        // Cargo sets this one for tests: it stands for all that is not on the list.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(!environment.contains("CARGO_MANIFEST_DIR"), "{environment}");
    }

    #[tokio::test]
    async fn every_other_answer_is_a_no() {
        let target = Target::tcp("localhost", "22").unwrap();
        let request = request(&target, None);
        for (script, shown) in [
            (
                "echo not today; exit 1",
                "the approval command has denied it: not today",
            ),
            (
                "exit 3",
                "the approval command has denied it: exit status: 3",
            ),
            (
                "kill -9 $$",
                "the approval command has denied it: signal: 9 (SIGKILL)",
            ),
            (
                "sleep 60",
                "the approval command has not answered within 1 s",
            ),
        ] {
            let denied = asked(&shell(script, 1), &request).await.unwrap_err();
            // A busy machine may take longer than a second for any of them.
            let shown = [shown, "the approval command has not answered within 1 s"];
            assert!(shown.contains(&&*denied.to_string()), "{script}: {denied}");
        }
        let nothing = Approval {
            command: vec!["/nonexistent/ask".to_owned()],
            ..shell("", 1)
        };
        let denied = asked(&nothing, &request).await.unwrap_err();
        assert!(matches!(denied, Denied::NoCommand(_)), "{denied}");
    }

    /// Tells when something has the pipe open, and when nothing has it open any more.
    fn watched(pipe: &std::path::Path) -> [tokio::sync::oneshot::Receiver<()>; 2] {
        use std::io::Read as _;
        let made = std::process::Command::new("mkfifo").arg(pipe).status();
        assert!(made.unwrap().success());
        let (opened, is_opened) = tokio::sync::oneshot::channel();
        let (closed, is_closed) = tokio::sync::oneshot::channel();
        let pipe = pipe.to_owned();
        std::thread::spawn(move || {
            let mut pipe = std::fs::File::open(pipe).unwrap();
            let _ = opened.send(());
            pipe.read_to_end(&mut Vec::new()).unwrap();
            let _ = closed.send(());
        });
        [is_opened, is_closed]
    }

    #[tokio::test]
    async fn the_command_s_children_end_with_it() {
        let target = Target::tcp("localhost", "22").unwrap();
        let request = request(&target, None);
        for is_dropped in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let pipe = folder.path().join("pipe");
            let [opened, closed] = watched(&pipe);
            let script = format!("sleep 600 > {} & wait", pipe.display());
            let limit = if is_dropped { 600 } else { 1 };
            let approval = shell(&script, limit);
            let asking = asked(&approval, &request);
            tokio::select! {
                answer = asking => {
                    let denied = answer.unwrap_err();
                    assert!(matches!(denied, Denied::NoAnswer(_)), "{denied}");
                }
                _ = opened, if is_dropped => {}
            }
            let ended = timeout(Duration::from_secs(20), closed).await;
            ended.expect("nothing of the command runs").unwrap();
        }
    }
}
