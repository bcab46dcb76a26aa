//! Devices and operators that begin with a one-time code, with the real programs.

use std::path::Path;

use common::enrolment::{Code, Invitation, RedeemError, Repeats, Wanted, redeem};
use common::identity::DeviceId;
use common::net::Dialer;
use common::tls::{Fingerprint, pinned_config};
use rustls::pki_types::CertificateDer;
use tests::program_hub::ProgramHub;
use tests::programs::{Program, run};

/// A user with a home of their own.
struct User {
    home: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// Their configuration folder.
    fn folder(&self) -> std::path::PathBuf {
        self.home.path().join("device-streams")
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Program {
        let home = self.home.path().to_str().unwrap();
        let environment = [("HOME", home), ("XDG_CONFIG_HOME", home), ("APPDATA", home)];
        Program::start(program, arguments, &environment)
    }

    /// `device-proxy enrol` into their folder, which goes on and takes streams.
    fn enrol(&self, arguments: &[&str]) -> Program {
        let folder = self.folder();
        let place = ["enrol", "--dir", folder.to_str().unwrap()];
        self.start("device-proxy", &[&place, arguments].concat())
    }

    async fn fails(&self, program: &str, arguments: &[&str], exit_code: i32) -> String {
        let mut program = self.start(program, arguments);
        let code = program.exit_code().await;
        let (_, output) = program.ended().await;
        assert_eq!(code, Some(exit_code), "{output}");
        output
    }
}

fn mode(path: &Path) -> u32 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        0o600
    }
}

#[tokio::test]
async fn a_code_makes_a_device_and_another_makes_an_operator() {
    let hub = ProgramHub::start().await;
    let (device, operator) = (User::new(), User::new());
    let code = hub.admin(&["enrol", "--device", "MyDevice"]);
    assert!(
        code.ends_with(&format!("@localhost:{}", hub.https)),
        "{code}"
    );
    let enrolled = device.enrol(&[&code, "--target", "ssh=127.0.0.1:9"]);
    enrolled.line("enrolled as MyDevice").await;
    enrolled.line("connected").await;
    let key = device.folder().join("device.key");
    assert_eq!(mode(&key), 0o600);
    let shown = hub.admin(&["device", "show", "MyDevice"]);
    assert!(shown.contains("selfSigned"), "{shown}");

    let code = hub.admin(&["enrol", "--operator"]);
    let mut login = operator.start("service-proxy", &["login", &code]);
    let (ok, output) = login.ended().await;
    assert!(ok, "{output}");
    assert!(output.contains("with the policy service"), "{output}");
    assert_eq!(mode(&operator.folder().join("hub.cs")), 0o600);
    // Nothing else is given: the files that were written are found.
    let mut echo = operator.start("service-proxy", &["echo", "MyDevice", "--count", "1"]);
    let (ok, output) = echo.ended().await;
    assert!(ok && output.contains("1 sent, 1 received"), "{output}");
    // A code that is not taken leaves what is there.
    let arguments = ["login", "--force", &code];
    let output = operator.fails("service-proxy", &arguments, 1).await;
    assert!(output.contains("was used or has expired"), "{output}");
    let kept = std::fs::read_to_string(operator.folder().join("hub.cs")).unwrap();
    assert!(kept.contains("SharedAccessKeyName=service"));
    // A connection string that is given is used instead.
    let arguments = ["echo", "MyDevice", "--connection-string", "HostName=h"];
    let output = operator.fails("service-proxy", &arguments, 2).await;
    assert!(output.contains("into quotes"), "{output}");

    for secret in ["SharedAccessKey=", &code[..16]] {
        assert!(!hub.program.output().contains(secret));
        assert!(!login.output().contains(secret));
    }
    // A device that starts again has what it needs.
    drop(enrolled);
    let config = device.folder().join("device-proxy.toml");
    let again = device.start("device-proxy", &["--config", config.to_str().unwrap()]);
    again.line("connected").await;
}

#[tokio::test]
async fn the_hubs_own_machine_is_logged_in_with_the_first_code() {
    let hub = ProgramHub::start().await;
    let operator = User::new();
    let data_dir = hub.data_dir();
    let arguments = ["enrol", "--device", "MyDevice", "--login"];
    let arguments = [&arguments[..], &["--data-dir", &data_dir]].concat();
    let mut enrol = operator.start("stream-hub", &arguments);
    let (ok, output) = enrol.ended().await;
    assert!(ok, "{output}");
    assert!(output.contains("logged in at localhost"), "{output}");
    assert_eq!(enrol.count("@localhost"), 1, "{output}");
    let mut devices = operator.start("service-proxy", &["devices"]);
    assert!(devices.ended().await.0, "{}", devices.output());
    // What is there is kept, and no code is made for nothing.
    let output = operator.fails("stream-hub", &arguments, 1).await;
    assert!(output.contains("is there already"), "{output}");
    assert!(!output.contains("@localhost"), "{output}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_signal_ends_the_wait_for_a_code() {
    let user = User::new();
    let folder = user.folder();
    let enrol = ["enrol", "-", "--dir", folder.to_str().unwrap()];
    for (name, arguments) in [
        ("service-proxy", &["login", "-"][..]),
        ("device-proxy", &enrol),
    ] {
        let mut program = user.start(name, arguments);
        let _stdin = program.take_stdin();
        // Its signal handlers come before it reads.
        tests::wait("the signal handlers", || {
            let status = format!("/proc/{}/status", program.id());
            let status = std::fs::read_to_string(status).unwrap_or_default();
            let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
            caught.is_some_and(|bits| bits & (1 << 14) != 0)
        })
        .await;
        program.terminate();
        assert_eq!(program.exit_code().await, Some(130), "{name}");
    }
}

#[tokio::test]
async fn a_code_works_once_and_for_one_key() {
    let hub = ProgramHub::start().await;
    let (first, second) = (User::new(), User::new());
    let code = hub.admin(&["enrol", "--ttl", "1h"]);
    let mut enrolled = first.enrol(&[&code, "--device", "one", "--no-start"]);
    assert!(enrolled.ended().await.0, "{}", enrolled.output());
    // The answer may have been lost: the same key gets it again.
    let mut again = first.enrol(&[&code, "--device", "one", "--no-start", "--force"]);
    assert!(again.ended().await.0, "{}", again.output());
    let folder = second.folder();
    let place = ["enrol", "--no-start", "--dir", folder.to_str().unwrap()];
    let arguments = [&place[..], &[&code]].concat();
    let output = second.fails("device-proxy", &arguments, 1).await;
    assert!(output.contains("was used or has expired"), "{output}");
    assert!(!folder.join("device-proxy.toml").exists());
    let devices = hub.admin(&["device", "list"]);
    assert_eq!(devices.lines().count(), 2, "{devices}");

    // A file that is there is not overwritten, and no code is used up for it.
    let code = hub.admin(&["enrol", "--device", "two"]);
    let output = first.enrol(&[&code]).ended().await;
    assert!(!output.0 && output.1.contains("--force"), "{}", output.1);
    let mut two = second.enrol(&[&code, "--no-start"]);
    assert!(two.ended().await.0, "{}", two.output());

    // An existing device is only replaced by a code that names it.
    let third = User::new();
    let code = hub.admin(&["enrol"]);
    let output = third.enrol(&[&code, "--device", "two"]).ended().await;
    assert!(
        !output.0 && output.1.contains("two already exists"),
        "{}",
        output.1
    );
    let named = hub.admin(&["enrol", "--device", "two"]);
    let output = third.enrol(&[&named, "--device", "three"]).ended().await;
    assert!(
        !output.0 && output.1.contains("another device"),
        "{}",
        output.1
    );
    let mut replaced = third.enrol(&[&named, "--no-start"]);
    assert!(replaced.ended().await.0, "{}", replaced.output());
    let config = folder.join("device-proxy.toml");
    let old = second.start("device-proxy", &["--config", config.to_str().unwrap()]);
    old.line("refused two").await;

    // Revoked codes are as good as none.
    let code = hub.admin(&["enrol"]);
    hub.admin(&["enrol", "--revoke"]);
    let output = User::new().enrol(&[&code]).ended().await;
    assert!(!output.0 && output.1.contains("is unknown"), "{}", output.1);
}

#[tokio::test]
async fn codes_are_for_their_own_kind_and_their_own_hub() {
    let hub = ProgramHub::start().await;
    let other = ProgramHub::start().await;
    let user = User::new();
    let operators = hub.admin(&["enrol", "--operator"]);
    let output = user.enrol(&[&operators]).ended().await;
    assert!(
        !output.0 && output.1.contains("service-proxy login"),
        "{}",
        output.1
    );
    let devices = hub.admin(&["enrol"]);
    let output = user.fails("service-proxy", &["login", &devices], 1).await;
    assert!(output.contains("device-proxy enrol"), "{output}");
    // Both are still good.
    let mut login = user.start("service-proxy", &["login", &operators]);
    assert!(login.ended().await.0, "{}", login.output());

    // Somebody in between, or another hub: the code does not go there.
    let (code, _) = devices.split_once('@').unwrap();
    let wrong = format!("{code}@localhost:{}", other.https);
    let output = User::new().enrol(&[&wrong]).ended().await;
    assert!(!output.0, "{}", output.1);
    assert!(
        output.1.contains("does not show the certificate"),
        "{}",
        output.1
    );
    assert!(!other.program.output().contains("enrolment refused"));

    for (arguments, says) in [
        (&["enrol"][..], "DEVICE_PROXY_ENROLMENT"),
        (&["enrol", "nonsense"], "CODE@HUB"),
        (&["enrol", "abc@localhost"], "was it cut?"),
        (&["enrol", &*devices, "--target", "x=y"], "[NAME=]HOST:PORT"),
    ] {
        let output = user.fails("device-proxy", arguments, 2).await;
        assert!(output.contains(says), "{output}");
    }
    let (ok, _, talk) = run("stream-hub", &["enrol", "--ttl", "5s"]);
    assert!(!ok && talk.contains("from 1m to 30d"), "{talk}");
    let empty = tempfile::tempdir().unwrap();
    let data_dir = empty.path().join("new");
    let data_dir = data_dir.to_str().unwrap();
    run(
        "stream-hub",
        &["device", "create", "d", "--data-dir", data_dir],
    );
    let (ok, _, talk) = run("stream-hub", &["enrol", "--data-dir", data_dir]);
    assert!(!ok && talk.contains("stream-hub serve"), "{talk}");
}

#[tokio::test]
async fn guesses_are_throttled_and_bad_requests_are_answered() {
    let hub = ProgramHub::start_quiet().await;
    let ca = common::tls::certificates(hub.ca_file().as_ref()).unwrap();
    let fingerprint = Fingerprint::of(&ca[0]);
    let address = format!("localhost:{}", hub.https);
    let dialer = Dialer::new(&pinned_config(fingerprint, None).unwrap());
    let begun = tokio::time::Instant::now();
    for _ in 0..110 {
        let guess = Invitation {
            code: Code::random(fingerprint),
            hub: common::hub_address::HubAddress::parse(&address).unwrap(),
        };
        let id = DeviceId::parse("d").unwrap();
        let refused = redeem(
            &guess,
            Wanted {
                device: Some(&id),
                suggested: None,
            },
            &dialer,
            Repeats::Unsent,
        )
        .await
        .unwrap_err();
        let RedeemError::Refused { status, .. } = refused else {
            panic!("{refused}");
        };
        assert_eq!(status, 401);
    }
    // A hundred are free, then two a second.
    assert!(begun.elapsed() > std::time::Duration::from_secs(2));
    let wrong = Fingerprint::of(&CertificateDer::from(b"another".to_vec()));
    let dialer = Dialer::new(&pinned_config(wrong, None).unwrap());
    let guess = Invitation {
        code: Code::random(wrong),
        hub: common::hub_address::HubAddress::parse(&address).unwrap(),
    };
    let refused = redeem(&guess, Wanted::default(), &dialer, Repeats::Unsent)
        .await
        .unwrap_err();
    assert!(matches!(refused, RedeemError::OtherHub { .. }), "{refused}");

    let client = reqwest::Client::builder()
        .tls_backend_preconfigured((*hub.tls()).clone())
        .no_proxy()
        .build()
        .unwrap();
    let url = format!("https://{address}{}", common::enrolment::PATH);
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("{}", 400),
        ("{\"code\":1}", 400),
        ("[]", 400),
    ] {
        let answer = client.post(&url).body(body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{body}");
    }
    let answer = client.get(&url).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 405);
}
