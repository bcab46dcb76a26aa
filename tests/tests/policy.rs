//! The policy of a running device-proxy: its configuration file is changed, and SIGHUP sent.

#![cfg(unix)]

use std::path::PathBuf;

use tests::echo::{connect, echoes, is_echoed};
use tests::program_hub::ProgramHub;
use tests::programs::{Program, ignores_hangups};
use tests::target::Behaviour;
use tests::{Target, wait};

/// A device-proxy with a configuration file.
struct Device {
    folder: tempfile::TempDir,
    fixed: String,
    program: Program,
}

impl Device {
    async fn start(hub: &ProgramHub, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = hub.admin(&["device", "create", "MyDevice"]);
        let fixed = format!(
            "connection-string = {connection:?}\nca-file = {:?}\n",
            hub.ca_file()
        );
        let file = folder.path().join("device-proxy.toml");
        std::fs::write(&file, format!("{fixed}{settings}")).unwrap();
        let program = Program::start("device-proxy", &["--config", file.to_str().unwrap()], &[]);
        program.line("connected; streams reach").await;
        Self {
            folder,
            fixed,
            program,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("device-proxy.toml")
    }

    /// Has it read other settings, and waits for its line on them.
    async fn change(&mut self, settings: &str, line: &str) -> String {
        std::fs::write(self.file(), format!("{}{settings}", self.fixed)).unwrap();
        self.read_again(line).await
    }

    async fn read_again(&mut self, line: &str) -> String {
        let before = self.program.count(line);
        let _open = self.program.hang_up();
        wait(line, || self.program.count(line) > before).await;
        self.program.line(line).await
    }
}

#[tokio::test]
async fn a_withdrawn_target_ends_its_connections_and_no_others() {
    if ignores_hangups() {
        return println!("skipped: this process was started with SIGHUP ignored");
    }
    let hub = ProgramHub::start().await;
    let ssh = Target::start(Behaviour::Echo).await;
    let web = Target::start(Behaviour::Echo).await;
    let both = format!(r#"target = ["ssh={}", "web={}"]"#, ssh.address, web.address);
    let mut device = Device::start(&hub, &both).await;
    let options = |session, forward| ["--session", session, "MyDevice", forward];
    let (_one, session) = hub.service(&options("always", "0:ssh")).await;
    let (_two, plain) = hub.service(&options("never", "0:ssh")).await;
    let (_three, other) = hub.service(&options("auto", "0:web")).await;
    let mut withdrawn = [connect(session).await, connect(plain).await];
    let mut kept = [connect(other).await];
    for socket in withdrawn.iter_mut().chain(&mut kept) {
        assert!(is_echoed(socket).await);
    }

    let only_web = format!("sample-output = true\ntarget = \"web={}\"", web.address);
    let line = device.change(&only_web, "policy changed by ").await;
    assert!(
        line.contains(&format!("streams reach web -> {};", web.address)),
        "{line}"
    );
    let line = device.program.line(" also changes ").await;
    assert!(
        line.contains("also changes sample-output: device-proxy has to be started again"),
        "{line}"
    );
    for socket in &mut withdrawn {
        assert!(!is_echoed(socket).await);
    }
    wait("the end at the target", || ssh.counters.connections() == 0).await;
    device
        .program
        .line("session ended: the device does not offer this target any more")
        .await;
    device
        .program
        .line("stream broken: ended because the target was withdrawn")
        .await;
    for port in [session, plain] {
        assert!(!echoes(port).await);
    }
    assert!(is_echoed(&mut kept[0]).await);

    // Offered again.
    device.change(&both, "policy changed by ").await;
    for port in [session, plain] {
        assert!(echoes(port).await);
    }
    assert!(is_echoed(&mut kept[0]).await);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing() {
    if ignores_hangups() {
        return println!("skipped: this process was started with SIGHUP ignored");
    }
    let hub = ProgramHub::start().await;
    let target = Target::start(Behaviour::Echo).await;
    let settings = format!(r#"target = "{}""#, target.address);
    let mut device = Device::start(&hub, &settings).await;
    let (_service, port) = hub.service(&["--session", "auto", "MyDevice", "0"]).await;
    let mut socket = connect(port).await;
    assert!(is_echoed(&mut socket).await);

    let unusable = "the configuration is unchanged, since ";
    let line = device
        .change("echo = true\nmax-streams = 0", unusable)
        .await;
    assert!(line.contains("line 4: max-streams: "), "{line}");
    device.change("", unusable).await;
    device.program.line("give a target").await;
    std::fs::remove_file(device.file()).unwrap();
    device.read_again(unusable).await;
    device
        .change(&settings, " again: nothing has changed")
        .await;
    assert!(is_echoed(&mut socket).await);
    assert!(echoes(port).await);

    // A service that comes now gets a stream of its own; the session there is goes on.
    let plain_only = format!("session = \"never\"\n{settings}");
    device.change(&plain_only, "session mode never").await;
    assert!(is_echoed(&mut socket).await);
    hub.program
        .line("reported properties device=MyDevice version=3")
        .await;
    let (_later, port) = hub.service(&["--session", "auto", "MyDevice", "0"]).await;
    assert!(echoes(port).await);
    device.program.line(" stream opened ").await;
}
