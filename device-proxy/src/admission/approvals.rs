//! A local command is asked whether a connection may open. It has what it needs to know in its
//! environment, and nothing else of ours: that may hold secrets. Exit code 0 is a yes.

use std::collections::HashMap;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::identity::DeviceIdentity;
use common::locks::lock;
use common::outside::printable;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Denied, Request};
use crate::limits;
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

/// Asks, a few at a time, and remembers a yes for as long as it holds.
pub(super) struct Approvals {
    device: DeviceIdentity,
    running: Semaphore,
    remembered: Mutex<HashMap<Question, Arc<Answer>>>,
}

/// Who wants what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    command: Vec<String>,
    target: String,
    policy: String,
    ip: String,
}

/// Until when it is a yes. Those who ask the same wait for one command.
type Answer = tokio::sync::Mutex<Option<Instant>>;

impl Approvals {
    pub(super) fn new(device: &DeviceIdentity) -> Self {
        Self {
            device: device.clone(),
            running: Semaphore::new(limits::APPROVALS),
            remembered: Mutex::default(),
        }
    }

    /// Asks. May be dropped: the command is then killed.
    ///
    /// # Errors
    /// [`Denied`], within the time that the command has.
    pub(super) async fn ask(
        &self,
        approval: &Approval,
        request: &Request<'_>,
    ) -> Result<(), Denied> {
        if approval.holds.is_zero() {
            return self.run(approval, request).await;
        }
        let answer = self.remembered(approval, request);
        let deadline = Instant::now() + approval.limit;
        let Ok(mut until) = timeout_at(deadline, answer.lock()).await else {
            return Err(Denied::NoAnswer(approval.limit));
        };
        if until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        *until = None;
        self.run(approval, request).await?;
        *until = Some(Instant::now() + approval.holds);
        Ok(())
    }

    fn remembered(&self, approval: &Approval, request: &Request<'_>) -> Arc<Answer> {
        let (policy, ip) = request.caller();
        let question = Question {
            command: approval.command.clone(),
            target: request.name.to_owned(),
            policy,
            ip,
        };
        let mut all = lock(&self.remembered);
        let now = Instant::now();
        // What nobody waits for, and is no yes any more.
        all.retain(|_, answer| {
            let is_needed = || match answer.try_lock() {
                Ok(until) => until.is_some_and(|until| now < until),
                Err(_) => true,
            };
            Arc::strong_count(answer) > 1 || is_needed()
        });
        if all.len() >= limits::APPROVALS_REMEMBERED
            && !all.contains_key(&question)
            && let Some(other) = all.keys().next().cloned()
        {
            all.remove(&other);
        }
        Arc::clone(all.entry(question).or_default())
    }

    async fn run(&self, approval: &Approval, request: &Request<'_>) -> Result<(), Denied> {
        let Ok(_running) = self.running.try_acquire() else {
            return Err(Denied::TooManyApprovals);
        };
        let Some((program, arguments)) = approval.command.split_first() else {
            return Err(Denied::NotApproved(String::new()));
        };
        let (policy, ip) = request.caller();
        let module = self.device.module.as_ref().map(|module| module.as_str());
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(
                KEPT.iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("DEVICE_STREAMS_DEVICE", self.device.device.as_str())
            .env("DEVICE_STREAMS_MODULE", module.unwrap_or_default())
            .env("DEVICE_STREAMS_NAME", request.name)
            .env("DEVICE_STREAMS_TARGET", request.target.to_string())
            .env("DEVICE_STREAMS_POLICY", policy)
            .env("DEVICE_STREAMS_IP", ip)
            .env(
                "DEVICE_STREAMS_SECONDS",
                approval.limit.as_secs().to_string(),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(Denied::NoCommand)?;
        let output = child.stdout.take();
        let mut said = Vec::new();
        let answered = async {
            let mut reading = pin!(read(output, &mut said));
            tokio::select! {
                // Its output may be open after its end, where it has children.
                status = child.wait() => {
                    let _ = timeout(LAST_WORDS, reading).await;
                    status
                }
                () = &mut reading => child.wait().await,
            }
        };
        match timeout(approval.limit, answered).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(Denied::NotApproved(reason(&said, status))),
            Ok(Err(error)) => Err(Denied::NoCommand(error)),
            Err(_) => Err(Denied::NoAnswer(approval.limit)),
        }
    }
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

    fn shell(script: &str, seconds: u64, holds: u64) -> Approval {
        Approval {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            limit: Duration::from_secs(seconds),
            holds: Duration::from_secs(holds),
        }
    }

    fn request<'a>(target: &'a Target, caller: Option<&'a Initiator>) -> Request<'a> {
        Request {
            name: "ssh",
            target,
            caller,
        }
    }

    fn approvals() -> Approvals {
        let module = ModuleId::parse("m").unwrap();
        let device = DeviceId::parse("MyDevice").unwrap();
        Approvals::new(&DeviceIdentity::of_module(device, module))
    }

    #[tokio::test]
    async fn the_command_learns_who_wants_what_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("environment");
        let approval = shell(&format!("env > {}", file.display()), 20, 0);
        let target = Target::tcp("localhost", "22").unwrap();
        let caller = Initiator {
            ip: "192.0.2.7".parse().unwrap(),
            policy: "ada $(reboot); x".to_owned(),
        };
        let asked = approvals();
        asked
            .ask(&approval, &request(&target, Some(&caller)))
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
        let asked = approvals();
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
            let denied = asked.ask(&shell(script, 1, 0), &request).await.unwrap_err();
            // A busy machine may take longer than a second for any of them.
            let shown = [shown, "the approval command has not answered within 1 s"];
            assert!(shown.contains(&&*denied.to_string()), "{script}: {denied}");
        }
        let nothing = Approval {
            command: vec!["/nonexistent/ask".to_owned()],
            ..shell("", 1, 0)
        };
        let denied = asked.ask(&nothing, &request).await.unwrap_err();
        assert!(matches!(denied, Denied::NoCommand(_)), "{denied}");
    }

    #[tokio::test]
    async fn a_yes_holds_for_the_same_caller_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("asked");
        let approval = shell(&format!("echo x >> {}", file.display()), 20, 3600);
        let target = Target::tcp("localhost", "22").unwrap();
        let caller = |policy: &str| Initiator {
            ip: "192.0.2.7".parse().unwrap(),
            policy: policy.to_owned(),
        };
        let (ada, eve) = (caller("ada"), caller("eve"));
        let asked = approvals();
        let all = [&ada, &ada, &eve, &ada].map(|caller| request(&target, Some(caller)));
        let all = all.each_ref().map(|request| asked.ask(&approval, request));
        for answer in futures_join(all).await {
            answer.unwrap();
        }
        let times = std::fs::read_to_string(&file).unwrap().lines().count();
        assert_eq!(times, 2);
    }

    async fn futures_join<T>(all: [impl Future<Output = T>; 4]) -> [T; 4] {
        let [a, b, c, d] = all;
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        [a, b, c, d]
    }
}
