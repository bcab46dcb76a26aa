//! The rules of a device's owner: what is reached is what is configured, at an address that is
//! allowed, as often, as fast and as long as the rules say, and after somebody has agreed.

use std::path::PathBuf;

use common::wire::initiation::InitiationResult;
use tests::echo::{connect, echoes, is_echoed};
use tests::program_hub::ProgramHub;
use tests::programs::Program;
use tests::target::Behaviour;
use tests::{RawService, Target, TestDevice, TestHub, hours, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A device-proxy with a configuration file, in front of an echo.
struct Device {
    folder: tempfile::TempDir,
    fixed: String,
    program: Program,
    target: Target,
}

impl Device {
    async fn start(hub: &ProgramHub, rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = hub.admin(&["device", "create", "MyDevice"]);
        let target = Target::start(Behaviour::Echo).await;
        let fixed = format!(
            "connection-string = {connection:?}\nca-file = {:?}\ntarget = \"ssh={}\"\n",
            hub.ca_file(),
            target.address
        );
        let file = folder.path().join("device-proxy.toml");
        std::fs::write(&file, format!("{fixed}{rules}")).unwrap();
        let arguments = ["--config", file.to_str().unwrap()];
        let program = Program::start("device-proxy", &arguments, &[]);
        program.line("connected; streams reach").await;
        Self {
            folder,
            fixed,
            program,
            target,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Other rules, which take effect without a signal.
    async fn change(&self, rules: &str) {
        let line = "configuration changed by ";
        let before = self.program.count(line);
        let new = self.path("new");
        std::fs::write(&new, format!("{}{rules}", self.fixed)).unwrap();
        std::fs::rename(new, self.path("device-proxy.toml")).unwrap();
        wait(line, || self.program.count(line) > before).await;
    }
}

/// Ports of a service-proxy in front of `ssh`: in sessions and in plain streams.
async fn ports(hub: &ProgramHub) -> [(Program, u16); 2] {
    [
        hub.service(&["--session", "always", "MyDevice", "0:ssh"])
            .await,
        hub.service(&["--session", "never", "MyDevice", "0:ssh"])
            .await,
    ]
}

/// A connection through a port to the echo. What ended just before may count for a moment still.
async fn opened(port: u16) -> TcpStream {
    soon("an echo", async {
        loop {
            let mut socket = connect(port).await;
            if is_echoed(&mut socket).await {
                return socket;
            }
        }
    })
    .await
}

#[tokio::test]
async fn nothing_in_a_stream_s_name_leads_anywhere() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let target = Target::start(Behaviour::Echo).await;
    let other = Target::start(Behaviour::Echo).await;
    let option = format!("ssh={}", target.address);
    let device = TestDevice::start(&hub, &connection, &["--target", &option]).await;
    let service = RawService::new(&hub).await;
    let names = [
        other.address.to_string(),
        format!("ssh={}", other.address),
        format!("{}%2F", other.address),
        format!("http:%2F%2F{}%2F", other.address),
        format!("..%2F{}", other.address.port()),
        other.address.port().to_string(),
        "unix:%2Frun%2Fdocker.sock".to_owned(),
        "SSH".to_owned(),
        "ssh%20".to_owned(),
        "ssh%00".to_owned(),
        "*".to_owned(),
        "echo".to_owned(),
        "_session.rdp".to_owned(),
        "_session.*".to_owned(),
    ];
    let is_accepted = async |name: &str| {
        let answer = service.initiate("d", name, 0.0, 20.0).await;
        answer.status() == 200
            && matches!(
                InitiationResult::from_headers(answer.headers()).unwrap(),
                InitiationResult::Accepted { .. }
            )
    };
    for name in &names {
        assert!(!is_accepted(name).await, "{name}");
    }
    assert!(is_accepted("ssh").await);
    assert_eq!(target.counters.connections(), 1);
    device.shut_down().await.unwrap();

    // With a target for all other names, that is where all other names lead.
    let option = target.address.to_string();
    let _device = TestDevice::start(&hub, &connection, &["--target", &option]).await;
    for name in names.iter().take(6) {
        is_accepted(name).await;
    }
    assert!(is_accepted("anything").await);
    assert_eq!(other.counters.connections(), 0);
}

#[tokio::test]
async fn a_name_that_leads_to_another_address_is_not_dialled() {
    let hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let option = format!("ssh=localhost:{}", target.address.port());
    let arguments = |list: &str| {
        let (ca_file, option, list) = (hub.ca_file(), option.clone(), list.to_owned());
        [
            "--ca-file".to_owned(),
            ca_file,
            "--target".to_owned(),
            option,
        ]
        .into_iter()
        .chain(["--allow-addresses".to_owned(), list])
        .collect::<Vec<_>>()
    };
    let start = |list: &str| {
        let arguments = arguments(list);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let environment = [("IOTHUB_DEVICE_CONNECTION_STRING", &*connection)];
        Program::start("device-proxy", &arguments, &environment)
    };
    let mut device = start("10.9.9.9");
    device.line("connected; streams reach").await;
    let ports = ports(&hub).await;
    for (_, port) in &ports {
        assert!(!echoes(*port).await);
    }
    let why = "which the device's configuration does not permit for it (allow-addresses)";
    device.line(why).await;
    // The one in a session is named to the operator, too.
    ports[0].0.line(why).await;
    assert_eq!(target.counters.connections(), 0);
    device.kill().await;
    let device = start("127.0.0.0/8");
    drop(device.line("connected; streams reach").await);
    for (_, port) in &ports {
        // The session of the device-proxy that was killed ends first.
        opened(*port).await;
    }
}

#[tokio::test]
async fn a_target_has_its_own_limits_and_they_change_while_it_runs() {
    let hub = ProgramHub::start().await;
    let device = Device::start(&hub, "[targets.ssh]\nconnections = 1\n").await;
    let ports = ports(&hub).await;
    let limit = "targets.ssh.connections allows 1 at once";
    for (service, port) in &ports {
        let mut first = opened(*port).await;
        let before = device.program.count(limit);
        // The limit is that of the target, whatever a connection travels in.
        for (_, other) in &ports {
            assert!(!echoes(*other).await);
        }
        assert!(is_echoed(&mut first).await);
        wait("two refusals", || device.program.count(limit) >= before + 2).await;
        service.line("tunnel").await;
        drop(first);
        wait("its end", || device.target.counters.connections() == 0).await;
    }
    ports[0].0.line(limit).await;
    device.change("[targets.ssh]\nconnections = 2\n").await;
    let mut both = [opened(ports[0].1).await, opened(ports[1].1).await];
    device.change("[limits]\nnew-per-second = 1\n").await;
    let mut refused = false;
    for _ in 0..20 {
        refused |= !echoes(ports[0].1).await;
    }
    assert!(refused);
    device
        .program
        .line("limits.new-per-second allows 1 new")
        .await;
    for socket in &mut both {
        assert!(is_echoed(socket).await, "what is open goes on");
    }
}

#[tokio::test]
async fn bytes_are_as_many_as_the_rules_say() {
    let hub = ProgramHub::start().await;
    let device = Device::start(&hub, "[targets.ssh]\nbytes-per-second = 20000\n").await;
    for (_service, port) in ports(&hub).await {
        let mut socket = connect(port).await;
        let sent: Vec<u8> = (0..60_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let begun = Instant::now();
        socket.write_all(&sent).await.unwrap();
        let mut received = vec![0; sent.len()];
        soon("the bytes", socket.read_exact(&mut received))
            .await
            .unwrap();
        assert_eq!(received, sent);
        // A second's worth is free.
        assert!(begun.elapsed().as_secs_f32() > 1.5, "{:?}", begun.elapsed());
    }
    device.change("").await;
}

#[tokio::test]
async fn outside_of_the_hours_nothing_opens_and_what_is_open_stays_or_ends() {
    let hub = ProgramHub::start().await;
    let [over, open] = hours::over_and_open();
    let device = Device::start(&hub, &format!("[targets.ssh]\nhours = {open:?}\n")).await;
    let ports = ports(&hub).await;
    let mut sockets = [connect(ports[0].1).await, connect(ports[1].1).await];
    for socket in &mut sockets {
        assert!(is_echoed(socket).await);
    }
    device
        .change(&format!("[access]\nhours = [{over:?}]\n"))
        .await;
    for (_, port) in &ports {
        assert!(!echoes(*port).await);
    }
    ports[0].0.line("access.hours allows it only at ").await;
    for socket in &mut sockets {
        assert!(is_echoed(socket).await, "it stays");
    }
    let close = format!("[access]\nhours = [{over:?}]\nat-end-of-hours = \"close\"\n");
    device.change(&close).await;
    for socket in &mut sockets {
        let mut rest = Vec::new();
        let _ = soon("the end", socket.read_to_end(&mut rest)).await;
    }
    let line = "ended because the hours of the target are over";
    wait(line, || device.program.count(line) == 2).await;
    wait("the ends", || device.target.counters.connections() == 0).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_local_command_is_asked_for_each_connection_in_a_session_too() {
    let hub = ProgramHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (asked, yes) = (path("asked"), path("yes"));
    let script = format!(
        "echo \"$DEVICE_STREAMS_DEVICE $DEVICE_STREAMS_NAME $DEVICE_STREAMS_POLICY $DEVICE_STREAMS_IP\" >> {asked}; test -e {yes} || {{ echo nobody is in; exit 1; }}"
    );
    let command = format!("approve-command = [\"/bin/sh\", \"-c\", {script:?}]\n");
    let device = Device::start(&hub, &format!("[access]\n{command}")).await;
    let ports = ports(&hub).await;
    let times = || {
        std::fs::read_to_string(&asked)
            .unwrap_or_default()
            .lines()
            .count()
    };
    for (_, port) in &ports {
        assert!(!echoes(*port).await);
    }
    assert_eq!(times(), 2);
    let denied = "the approval command has denied it: nobody is in";
    wait(denied, || device.program.count(denied) == 2).await;
    ports[0].0.line(denied).await;
    assert_eq!(device.target.counters.connections(), 0);
    std::fs::write(&yes, "").unwrap();
    for (_, port) in &ports {
        for _ in 0..2 {
            assert!(echoes(*port).await);
        }
    }
    assert_eq!(times(), 6, "each is asked for");
    let lines = std::fs::read_to_string(&asked).unwrap();
    for line in lines.lines() {
        assert_eq!(line, "MyDevice ssh service 127.0.0.1");
    }
    // The yes of one is good for the next for a while.
    device
        .change(&format!("[access]\n{command}approve-for = 3600\n"))
        .await;
    for (_, port) in &ports {
        for _ in 0..2 {
            assert!(echoes(*port).await);
        }
    }
    assert_eq!(times(), 7);
}
