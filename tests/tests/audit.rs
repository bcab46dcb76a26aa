//! The audit log of a hub, with the real programs: what is in it, that it survives a kill, and what
//! happens when it cannot be written.

use std::path::PathBuf;
use std::process::Stdio;

use common::clock::unix_now;
use common::connection_string::DeviceConnectionString;
use common::wire::report::{self, ConnectionReport, Phase, Report};
use serde_json::Value;
use tempfile::TempDir;
use tests::admin::ask;
use tests::echo::{connect, echoes, is_echoed};
use tests::program_hub::free_port;
use tests::programs::{Program, run};
use tests::raw_device::password;
use tests::target::Behaviour;
use tests::{RawDevice, Target, hours, wait};

/// A hub with a configuration file, and everything in one folder.
struct Setup {
    folder: TempDir,
    fixed: String,
    mqtts: u16,
    hub: Option<Program>,
}

impl Setup {
    async fn start(settings: &str) -> Self {
        let mut setup = Self::new(settings).await;
        setup.serve().await;
        setup
    }

    /// A hub that does not run yet.
    async fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mqtts = free_port().await;
        let fixed = format!(
            "data-dir = {:?}\nhostname = \"localhost\"\nhttps = \"127.0.0.1:{}\"\n\
             mqtts = \"127.0.0.1:{mqtts}\"\n",
            folder.path().join("data"),
            free_port().await,
        );
        let setup = Self {
            folder,
            fixed,
            mqtts,
            hub: None,
        };
        setup.configure(settings);
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, settings: &str) {
        let settings = settings.replace("FOLDER", self.folder.path().to_str().unwrap());
        let new = self.path("new");
        std::fs::write(&new, format!("{}{settings}", self.fixed)).unwrap();
        std::fs::rename(new, self.path("hub.toml")).unwrap();
    }

    async fn serve(&mut self) {
        self.serve_into(None).await;
    }

    /// The same with a standard output of its own.
    async fn serve_into(&mut self, stdout: Option<Stdio>) {
        let config = self.path("hub.toml");
        let words = ["serve", "--config", config.to_str().unwrap()];
        let program = match stdout {
            None => Program::start("stream-hub", &words, &[]),
            Some(stdout) => Program::start_into("stream-hub", stdout, &words),
        };
        program.line("ready").await;
        self.hub = Some(program);
    }

    fn hub(&mut self) -> &mut Program {
        self.hub.as_mut().unwrap()
    }

    /// Runs a command: whether it succeeds, and both outputs.
    fn run(&self, words: &[&str]) -> (bool, String, String) {
        let config = self.path("hub.toml");
        let words = [words, &["--config", config.to_str().unwrap()]].concat();
        run("stream-hub", &words)
    }

    fn admin(&self, words: &[&str]) -> String {
        let (ok, out, talk) = self.run(words);
        assert!(ok, "{words:?}: {talk}");
        out.trim_end().to_owned()
    }

    fn device(&self, connection: &str, target: &str) -> Program {
        let ca = self.path("data/tls/ca.pem");
        let words = ["--target", target, "--ca-file", ca.to_str().unwrap()];
        let variables = [("IOTHUB_DEVICE_CONNECTION_STRING", connection)];
        Program::start("device-proxy", &words, &variables)
    }

    async fn service(&self, options: &[&str]) -> (Program, u16) {
        let connection = self.admin(&["policy", "connection-string", "service"]);
        let ca = self.path("data/tls/ca.pem");
        let words = [
            options,
            &["--ca-file", ca.to_str().unwrap()],
            &["listen", "MyDevice", "0:ssh"],
        ]
        .concat();
        let variables = [("IOTHUB_CONNECTION_STRING", connection.as_str())];
        let program = Program::start("service-proxy", &words, &variables);
        let line = program.line("listening on 127.0.0.1:").await;
        let port = line.split("127.0.0.1:").nth(1).unwrap();
        let port = port.split(' ').next().unwrap().parse().unwrap();
        (program, port)
    }

    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("audit.log")).unwrap_or_default();
        // The last line may be on its way.
        let lines = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The first record of this operation that has all these fields.
    fn find(&self, operation: &str, fields: &[(&str, &str)]) -> Option<Value> {
        self.records().into_iter().find(|record| {
            record["operationName"] == operation
                && fields.iter().all(|(name, value)| record[*name] == *value)
        })
    }

    async fn recorded(&self, operation: &str, fields: &[(&str, &str)]) -> Value {
        wait(operation, || self.find(operation, fields).is_some()).await;
        self.find(operation, fields).unwrap()
    }
}

const LOGGED: &str = "audit-log = [\"FOLDER/audit.log\"]\n";

#[tokio::test]
async fn a_stream_s_life_is_recorded_and_survives_a_kill() {
    let mut setup = Setup::start(LOGGED).await;
    let echo = Target::start(Behaviour::Echo).await;
    let connection = setup.admin(&["device", "create", "MyDevice"]);
    let created = setup.recorded("create", &[("deviceId", "MyDevice")]).await;
    assert_eq!(created["by"]["command"], "device create");
    let target = format!("ssh={}", echo.address);
    let device = setup.device(&connection, &target);
    setup
        .recorded("deviceConnect", &[("resultType", "success")])
        .await;

    // In a stream of its own.
    let (service, port) = setup.service(&["--session", "never"]).await;
    let mut socket = connect(port).await;
    assert!(is_echoed(&mut socket).await);
    let requested = setup
        .recorded("StreamRequested", &[("streamName", "ssh")])
        .await;
    assert_eq!(requested["category"], "DeviceStreams");
    assert_eq!(requested["policy"], "service");
    assert!(
        requested["callerAddress"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    let stream = [("streamId", requested["streamId"].as_str().unwrap())];
    setup.recorded("StreamEstablished", &stream).await;
    drop(socket);
    let ended = setup.recorded("StreamEnded", &stream).await;
    assert_eq!(ended["bytesToDevice"], 1);
    assert_eq!(ended["bytesToService"], 1);
    assert!(ended["durationMs"].is_u64());
    assert_eq!(ended["policy"], "service");
    assert!(
        ["service", "device"].contains(&ended["endedBy"].as_str().unwrap()),
        "{ended}"
    );
    drop(service);

    // As a connection of a session, which the hub cannot see: the device reports it.
    let (_service, port) = setup.service(&["--session", "always"]).await;
    let mut socket = connect(port).await;
    assert!(is_echoed(&mut socket).await);
    let fields = [("deviceId", "MyDevice"), ("target", "ssh")];
    let opened = setup.recorded("ConnectionOpened", &fields).await;
    assert_eq!(opened["reportedBy"], "device");
    let session = setup
        .recorded("StreamEstablished", &[("streamName", "_session.ssh")])
        .await;
    assert_eq!(opened["streamId"], session["streamId"]);
    drop(socket);
    let ended = setup.recorded("ConnectionEnded", &fields).await;
    assert_eq!(ended["sessionId"], opened["sessionId"]);
    assert_eq!(
        (&ended["bytesToDevice"], &ended["bytesToService"]),
        (&1.into(), &1.into())
    );

    // What others change, beside the hub and while there is none.
    setup.admin(&["policy", "create", "ada"]);
    setup.admin(&["policy", "regenerate-key", "ada"]);
    let fields = [("policy", "ada"), ("changed", "primary")];
    let changed = setup.recorded("KeyChanged", &fields).await;
    assert_eq!(changed["by"]["command"], "policy regenerate-key");
    setup.hub().kill().await;
    setup.admin(&["device", "disable", "MyDevice"]);
    setup.serve().await;
    let fields = [("deviceId", "MyDevice"), ("changed", "disabled")];
    setup.recorded("update", &fields).await;
    // Who is refused compares its clock with the hub's, by a request without a credential.
    let is_disabled = |record: &Value| {
        record["operationName"] == "AuthenticationRefused"
            && record["resultDescription"]
                .as_str()
                .is_some_and(|text| text.contains("disabled"))
    };
    wait("the device is refused", || {
        setup.records().iter().any(is_disabled)
    })
    .await;
    setup.configure(&format!("{LOGGED}log-level = \"warn\"\n"));
    let changed = setup.recorded("ConfigurationChanged", &[]).await;
    assert_eq!(changed["settings"][0], "log-level");
    drop(device);

    setup.hub().terminate();
    assert_eq!(setup.hub().exit_code().await, Some(0));
    let (ok, out, talk) = setup.run(&["audit", "verify", "--json"]);
    assert!(ok, "{talk}");
    let verified: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(verified["records"], setup.records().len());
    assert_eq!(verified["afterLastHead"], 0);
    let tail = setup.admin(&["audit", "tail", "--device", "MyDevice", "-n", "1"]);
    assert!(tail.contains("MyDevice"), "{tail}");

    // No secret is in it.
    let text = std::fs::read_to_string(setup.path("audit.log")).unwrap();
    let key = connection.split("SharedAccessKey=").nth(1).unwrap();
    assert!(!text.contains(key) && !text.contains("SharedAccess"));
}

#[tokio::test]
async fn what_the_rules_of_a_device_end_is_not_an_operator_s() {
    let setup = Setup::start(LOGGED).await;
    let echo = Target::start(Behaviour::Echo).await;
    let connection = setup.admin(&["device", "create", "MyDevice"]);
    let configure = |rules: &str| {
        let (ca, new) = (setup.path("data/tls/ca.pem"), setup.path("new"));
        let fixed = format!("connection-string = {connection:?}\nca-file = {ca:?}\n");
        let target = format!("target = \"ssh={}\"\n", echo.address);
        std::fs::write(&new, format!("{fixed}{target}{rules}")).unwrap();
        std::fs::rename(new, setup.path("device.toml")).unwrap();
    };
    configure("");
    let file = setup.path("device.toml");
    let device = Program::start("device-proxy", &["--config", file.to_str().unwrap()], &[]);
    device.line("connected").await;
    let (_service, port) = setup.service(&["--session", "always"]).await;
    let mut socket = connect(port).await;
    assert!(is_echoed(&mut socket).await);
    let fields = [("deviceId", "MyDevice"), ("target", "ssh")];
    setup.recorded("ConnectionOpened", &fields).await;
    let [over, _] = hours::over_and_open();
    configure(&format!(
        "[access]\nhours = [{over:?}]\nat-end-of-hours = \"close\"\n"
    ));
    let ended = setup.recorded("ConnectionEnded", &fields).await;
    assert_eq!(ended["endedBy"], "device", "{ended}");
}

#[tokio::test]
async fn what_was_changed_is_named() {
    let mut setup = Setup::start(LOGGED).await;
    setup.admin(&["device", "create", "MyDevice"]);
    setup.recorded("create", &[("deviceId", "MyDevice")]).await;
    setup.hub().terminate();
    setup.hub().exit_code().await;
    let key = setup.admin(&["audit", "key"]);
    std::fs::write(setup.path("key.pem"), &key).unwrap();
    let (log, key) = (setup.path("audit.log"), setup.path("key.pem"));
    let whole = std::fs::read_to_string(&log).unwrap();

    let changed = whole.replace("\"deviceId\":\"MyDevice\"", "\"deviceId\":\"YrDevice\"");
    assert_ne!(changed, whole);
    std::fs::write(&log, changed).unwrap();
    let (ok, _, talk) = setup.run(&["audit", "verify"]);
    assert!(
        !ok && talk.contains("audit.log:") && talk.contains("was changed"),
        "{talk}"
    );
    // The same with nothing but the key.
    let files = [log.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let (ok, _, talk) = setup.run(&[&["audit", "verify"], &files[..]].concat());
    assert!(!ok && talk.contains("was changed"), "{talk}");

    let lines: Vec<_> = whole.split_inclusive('\n').collect();
    std::fs::write(&log, lines[..lines.len() - 1].concat()).unwrap();
    let (ok, _, talk) = setup.run(&["audit", "verify"]);
    assert!(!ok && talk.contains("the end was cut off"), "{talk}");
    std::fs::write(&log, &whole).unwrap();
    setup.admin(&["audit", "verify"]);
}

#[tokio::test]
async fn files_are_rotated_while_the_hub_runs() {
    let settings = format!("{LOGGED}[audit]\nrotate-bytes = 65536\nkeep-files = 2\n");
    let mut setup = Setup::start(&settings).await;
    let aside = |setup: &Setup| {
        let files = std::fs::read_dir(setup.folder.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("audit.log.")).count()
    };
    let mut number = 0;
    while aside(&setup) < 2 {
        assert!(number < 1_000);
        setup.admin(&["policy", "create", &format!("{}{number}", "p".repeat(50))]);
        number += 1;
        if number % 20 == 0 {
            let policy = format!("{}{}", "p".repeat(50), number - 1);
            wait("the record", || {
                let files = std::fs::read_dir(setup.folder.path()).unwrap();
                files.flatten().any(|file| {
                    let name = file.file_name().into_string().unwrap();
                    name.starts_with("audit.log")
                        && std::fs::read_to_string(file.path())
                            .is_ok_and(|text| text.contains(&policy))
                })
            })
            .await;
        }
    }
    setup.admin(&["audit", "verify"]);
    setup.hub().terminate();
    setup.hub().exit_code().await;
    setup.admin(&["audit", "verify"]);
}

/// A device, and a service whose stream to it was refused for want of the log.
#[cfg(unix)]
struct Refused {
    port: u16,
    _running: (Target, Program, Program),
}

#[cfg(unix)]
impl Refused {
    async fn stream(setup: &Setup) -> Self {
        let echo = Target::start(Behaviour::Echo).await;
        let connection = setup.admin(&["device", "create", "MyDevice"]);
        let device = setup.device(&connection, &format!("ssh={}", echo.address));
        device.line("connected").await;
        let (service, port) = setup.service(&["--session", "never"]).await;
        assert!(!echoes(port).await);
        service.line("audit log cannot be written").await;
        Self {
            port,
            _running: (echo, device, service),
        }
    }

    async fn is_open_now(&self) -> bool {
        echoes(self.port).await
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_stops_new_streams_or_not_as_configured() {
    let admin = ([127, 0, 0, 1], free_port().await).into();
    let full = format!("audit-log = [\"/dev/full\"]\nadmin = \"{admin}\"\n");
    let setup = Setup::start(&full).await;
    let hub = setup.hub.as_ref().unwrap();
    hub.line("THE AUDIT LOG CANNOT BE WRITTEN, and new streams are refused")
        .await;
    let refused = Refused::stream(&setup).await;
    // Who looks at the hub from outside sees it as well.
    let (status, text) = ask(admin, "/readyz").await;
    assert_eq!(
        (status, &*text),
        (503, "not ready: the audit log cannot be written\n")
    );
    let (_, metrics) = ask(admin, "/metrics").await;
    for series in [
        "stream_hub_audit_writable 0",
        "stream_hub_audit_records_lost_total 0",
        "stream_hub_faults_total{kind=\"audit\"} 1",
    ] {
        assert!(metrics.contains(series), "{series} in {metrics}");
    }
    let counted = "stream_hub_stream_requests_total{outcome=\"audit\"} ";
    let counted = metrics.lines().find_map(|line| line.strip_prefix(counted));
    assert!(counted.is_some_and(|count| count != "0"), "{metrics}");

    setup.configure(&format!("{full}audit-full = \"continue\"\n"));
    hub.line("configuration changed").await;
    wait("a stream", || hub.output().contains("audit-full")).await;
    assert!(refused.is_open_now().await);
    assert_eq!(ask(admin, "/readyz").await.0, 200);
    let (_, metrics) = ask(admin, "/metrics").await;
    assert!(metrics.contains("stream_hub_audit_writable 0"), "{metrics}");
}

#[cfg(unix)]
#[tokio::test]
async fn who_does_not_read_the_log_is_noticed() {
    use std::io::{Read as _, Write as _};

    // A pipe that is full, as a log's reader that hangs leaves it.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let stdout = writer.try_clone().unwrap();
    let filling = std::thread::spawn(move || writer.write_all(&[b' '; 1 << 20]));
    let mut setup = Setup::new("audit-log = [\"stdout\"]\n").await;
    setup.serve_into(Some(stdout.into())).await;
    let hub = setup.hub.as_ref().unwrap();
    // Nobody opens a stream: it is noticed all the same.
    hub.line("THE AUDIT LOG IS NOT WRITTEN: its disk, or who reads standard output")
        .await;
    let refused = Refused::stream(&setup).await;

    // It reads again, to the end.
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    hub.line("the audit log is written again").await;
    assert!(refused.is_open_now().await);
    hub.terminate();
    setup.hub().exit_code().await;
    filling.join().unwrap().unwrap();
    let text = reading.join().unwrap().unwrap();
    assert!(
        text.contains("\"operationName\":\"deviceConnect\""),
        "{text}"
    );
}

#[tokio::test]
async fn a_device_cannot_fill_the_log_with_what_it_reports() {
    const MESSAGES: u64 = 300;
    let settings = format!("{LOGGED}[limits.each-device]\nreports-per-second = 2\n");
    let setup = Setup::start(&settings).await;
    let connection = setup.admin(&["device", "create", "MyDevice"]);
    let connection = DeviceConnectionString::parse(&connection).unwrap();
    let ca = setup.path("data/tls/ca.pem");
    let tls = common::tls::client_config(Some(&ca), None).unwrap();
    let mut device = RawDevice::at(setup.mqtts, tls).await;
    let password = password(&connection, unix_now() + 3600);
    device.hello(&connection, &password).await;
    let opened = |connection| ConnectionReport {
        target: "ssh".to_owned(),
        session: "s".to_owned(),
        stream: None,
        connection,
        time_ms: 0,
        phase: Phase::Opened,
    };
    let topic = report::topic(&connection.identity);
    for number in 0..MESSAGES {
        let report = Report {
            connections: vec![opened(number)],
            lost: 1,
        };
        device.publish(&topic, &report::write(&report)).await;
    }
    device.send(&[0xC0, 0]).await;
    assert!(device.answers_ping().await);
    drop(device);
    let counted = || {
        let records = setup.records();
        let named = |name: &str| -> Vec<Value> {
            let records = records.iter();
            let fitting = records.filter(|record| record["operationName"] == name);
            fitting.cloned().collect()
        };
        let (opened, lost) = (named("ConnectionOpened"), named("ConnectionReportsLost"));
        let sum: u64 = lost.iter().map(|it| it["count"].as_u64().unwrap()).sum();
        (opened.len() as u64, lost.len(), sum)
    };
    wait("all of them, recorded or counted", || {
        let (opened, _, sum) = counted();
        opened + sum == 2 * MESSAGES
    })
    .await;
    let (opened, lines, _) = counted();
    // Ten seconds' worth at once, and one line a second for the rest.
    assert!((20..MESSAGES / 2).contains(&opened), "{opened}");
    assert!(lines < 100, "{lines}");
}
