//! The real binaries, for tests that kill a process. They are built if need be, and found beside
//! the test's own executable.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::Child;
#[cfg(unix)]
use tokio::process::ChildStdin;

use crate::wait;

/// The folder of the binaries.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let mut folder = std::env::current_exe().unwrap();
        // …/target/PROFILE/deps/test-0123 → …/target/PROFILE
        folder.pop();
        folder.pop();
        let is_release = folder.ends_with("release");
        // Always built, so that no test runs outdated binaries. For the whole workspace, as the tests
        // are: with the features of fewer packages, every dependency would be compiled again.
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--workspace", "--bins"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if is_release {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().unwrap().success(),
            "the programs cannot be built"
        );
        folder
    })
}

/// Path of one of our programs.
pub fn binary(name: &str) -> PathBuf {
    folder().join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// A running program; dropped, it is killed.
pub struct Program {
    name: String,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
}

/// Prints the output of the program when its test fails.
impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(lines) = self.output.lock()
        {
            eprintln!("--- output of {}:\n{}", self.name, lines.join("\n"));
        }
    }
}

/// Whoever runs the tests may be behind a proxy; nothing here is.
pub const DIRECT: [(&str, &str); 2] = [("no_proxy", "*"), ("NO_PROXY", "*")];

/// No status sockets in the folders of who runs the tests.
const QUIET: [(&str, &str); 2] = [
    ("DEVICE_PROXY_STATUS_SOCKET", "off"),
    ("SERVICE_PROXY_STATUS_SOCKET", "off"),
];

impl Program {
    /// Starts a program with arguments and environment, and records its output.
    pub fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_command(
            name,
            tokio::process::Command::new(binary(name)),
            arguments,
            environment,
        )
    }

    /// As [`Program::start`], with a limit of descriptors.
    #[cfg(unix)]
    pub fn start_limited(
        name: &str,
        descriptors: u32,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = tokio::process::Command::new("sh");
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(binary(name));
        Self::start_command(name, command, arguments, environment)
    }

    /// As [`Program::start`], and only its standard error is recorded.
    pub fn start_into(name: &str, stdout: Stdio, arguments: &[&str]) -> Self {
        let command = tokio::process::Command::new(binary(name));
        Self::spawn(name, command, stdout, arguments, &[])
    }

    fn start_command(
        name: &str,
        command: tokio::process::Command,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        Self::spawn(name, command, Stdio::piped(), arguments, environment)
    }

    fn spawn(
        name: &str,
        mut command: tokio::process::Command,
        stdout: Stdio,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut child = command
            .args(arguments)
            .envs(DIRECT)
            .envs(QUIET)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        if let Some(out) = child.stdout.take() {
            keep(out, Arc::clone(&output));
        }
        keep(child.stderr.take().unwrap(), Arc::clone(&output));
        Self {
            name: name.to_owned(),
            child,
            output,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Everything it has printed so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().join("\n")
    }

    /// Waits for a line that contains this text, and returns it.
    pub async fn line(&self, text: &str) -> String {
        let find = || {
            let lines = self.output.lock().unwrap();
            lines.iter().find(|line| line.contains(text)).cloned()
        };
        wait(&format!("{:?} from {}", text, self.name), || {
            find().is_some()
        })
        .await;
        find().unwrap()
    }

    /// How many lines contain this text.
    pub fn count(&self, text: &str) -> usize {
        let lines = self.output.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Writes to its stdin, which is open and empty otherwise.
    pub async fn write(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends SIGHUP, as when its terminal is closed. Returns its stdin for the caller to keep open:
    /// waiting for the program's end would close it, and the end of the input is another event.
    #[cfg(unix)]
    #[must_use]
    pub fn hang_up(&mut self) -> Option<ChildStdin> {
        signal(&self.child, rustix::process::Signal::HUP);
        self.child.stdin.take()
    }

    /// Sends SIGTERM.
    #[cfg(unix)]
    pub fn terminate(&self) {
        signal(&self.child, rustix::process::Signal::TERM);
    }

    /// Its stdin, for the caller to keep open: waiting for the program's end would close it.
    #[cfg(unix)]
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Sends SIGUSR1: it shall end when nothing is open.
    #[cfg(unix)]
    pub fn retire(&self) {
        signal(&self.child, rustix::process::Signal::USR1);
    }

    /// Sends SIGKILL: the program ends without a Close.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end: its exit code, or none when a signal has ended it.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let ended = crate::soon("the program's end", self.child.wait()).await;
        ended.unwrap().code()
    }

    /// Waits for its end: whether it succeeded, and its last line.
    pub async fn ended(&mut self) -> (bool, String) {
        let status = crate::soon("the program's end", self.child.wait())
            .await
            .unwrap();
        // Its last output may still be in the pipes.
        let mut length = 0;
        wait("the rest of its output", || {
            let now = self.output().len();
            now > 0 && std::mem::replace(&mut length, now) == now
        })
        .await;
        (status.success(), self.output())
    }
}

/// Records lines as they arrive, without their line ends.
fn keep(from: impl AsyncRead + Send + Unpin + 'static, output: Arc<Mutex<Vec<String>>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = String::from_utf8_lossy(&line).into_owned();
            output.lock().unwrap().push(line);
        }
    });
}

/// Whether this process ignores SIGHUP, as under nohup: programs that it starts then do so, too.
#[cfg(unix)]
pub fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.map(|bits| u64::from_str_radix(bits.trim(), 16).unwrap());
    ignored.unwrap_or_default() & 1 != 0
}

/// Sends a signal to a program.
#[cfg(unix)]
pub fn signal(program: &Child, signal: rustix::process::Signal) {
    let id = program.id().and_then(|id| i32::try_from(id).ok());
    let id = id.and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

/// Runs a program to its end: whether it succeeded, its stdout and its stderr.
pub fn run(name: &str, arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(binary(name))
        .args(arguments)
        .envs(DIRECT)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}
