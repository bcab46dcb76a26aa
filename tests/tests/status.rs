//! `status`: a running program says what it carries, to its own user.

#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use tests::echo::{connect, is_echoed};
use tests::program_hub::ProgramHub;
use tests::programs::{Program, run};
use tests::target::Behaviour;
use tests::{Target, wait};

/// The document of the program with this socket.
fn document(program: &str, socket: &Path) -> Value {
    let arguments = ["status", "--json", "--socket", socket.to_str().unwrap()];
    let (is_success, out, err) = run(program, &arguments);
    assert!(is_success, "{err}");
    let documents: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(documents.as_array().unwrap().len(), 1);
    documents[0].clone()
}

/// The session with this target.
fn session(document: &Value, target: &str) -> Value {
    let mut sessions = document["sessions"].as_array().unwrap().iter();
    let found = sessions.find(|it| it["target"] == target);
    found.unwrap_or(&Value::Null).clone()
}

#[tokio::test]
async fn sessions_are_up_then_interrupted_then_resumed() {
    let mut hub = ProgramHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let sockets = ["device.sock", "service.sock"].map(|name| folder.path().join(name));
    let [of_device, of_service] = &sockets;
    let options = ["ssh", "web"].map(|name| format!("{name}={}", target.address));
    let ca_file = hub.ca_file();
    let mut arguments = vec!["--ca-file", &ca_file];
    arguments.extend(options.iter().flat_map(|option| ["--target", option]));
    arguments.extend(["--status-socket", of_device.to_str().unwrap()]);
    let environment = [("IOTHUB_DEVICE_CONNECTION_STRING", &*connection)];
    let device = Program::start("device-proxy", &arguments, &environment);
    device.line("connected; streams reach").await;
    let service_socket = of_service.to_str().unwrap();
    let listen = [
        "listen",
        "--status-socket",
        service_socket,
        "MyDevice",
        "0:ssh",
        "0:web",
    ];
    let (service, port) = hub.service(&listen).await;
    let mut shell = connect(port).await;
    assert!(is_echoed(&mut shell).await);
    let other = service.line("(web)").await;
    let other = other.split(' ').nth(2).unwrap().rsplit(':').next().unwrap();
    let mut web = connect(other.parse().unwrap()).await;
    for _ in 0..3 {
        assert!(is_echoed(&mut web).await);
    }

    let both = || {
        [
            document("device-proxy", of_device),
            document("service-proxy", of_service),
        ]
    };
    for status in both() {
        for (target, bytes) in [("ssh", 1), ("web", 3)] {
            let session = session(&status, target);
            assert_eq!(session["state"], "up", "{status:#}");
            assert_eq!(session["connections"], 1, "{status:#}");
            assert_eq!(session["sent"], bytes, "{status:#}");
            assert_eq!(session["received"], bytes, "{status:#}");
            assert_eq!(session["resumes"], 0);
        }
        assert_eq!(status["totals"]["open"], 2);
        assert_eq!(
            (&status["totals"]["sent"], &status["totals"]["received"]),
            (&4.into(), &4.into())
        );
        assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    }
    let [of, there] = both();
    assert_eq!(of["hubs"][0]["state"], "connected");
    assert_eq!(of["hubs"][0]["device"], "MyDevice");
    let ids = [session(&of, "ssh"), session(&there, "ssh")].map(|it| it["id"].clone());
    assert_eq!(ids[0], ids[1], "both name it alike");
    let shown = format!("{of}{there}");
    for secret in ["SharedAccessKey", "SharedAccessSignature"] {
        assert!(!shown.contains(secret));
    }

    hub.program.kill().await;
    let is_interrupted = |status: &Value| {
        ["ssh", "web"].iter().all(|target| {
            let session = session(status, target);
            session["state"] == "interrupted" && session["interruptedSeconds"].is_f64()
        })
    };
    wait("the interruption", || both().iter().all(is_interrupted)).await;
    wait("a reason", || {
        let trouble = session(&document("service-proxy", of_service), "ssh")["trouble"].clone();
        trouble
            .as_str()
            .is_some_and(|it| it.contains("cannot be reached"))
    })
    .await;
    wait("the lost hub session", || {
        document("device-proxy", of_device)["hubs"][0]["state"] == "connecting"
    })
    .await;
    let (_, table, _) = run("service-proxy", &["status", "--socket", service_socket]);
    assert!(table.contains("interrupted for "), "{table}");
    hub.start_again().await;
    for socket in [&mut shell, &mut web] {
        assert!(is_echoed(socket).await);
    }
    wait("the resumption", || {
        both().iter().all(|status| {
            let session = session(status, "ssh");
            session["state"] == "up" && session["resumes"].as_u64() >= Some(1)
        })
    })
    .await;
    let trip = || session(&document("service-proxy", of_service), "ssh")["roundTripMs"].as_f64();
    wait("a round trip", || trip().is_some()).await;
    drop((shell, web));
    wait("the ends", || {
        both().iter().all(|it| it["totals"]["open"] == 0)
    })
    .await;
    for status in both() {
        assert_eq!(status["totals"]["opened"], 2);
        assert_eq!(status["totals"]["sent"], 6, "what has ended counts");
    }
}

#[tokio::test]
async fn only_the_own_user_finds_and_reads_it() {
    let hub = ProgramHub::start().await;
    let runtime = tempfile::tempdir().unwrap();
    let folder = runtime.path().join("device-streams");
    let path = runtime.path().to_str().unwrap();
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let ca_file = hub.ca_file();
    let arguments = ["--ca-file", &ca_file, "--echo"];
    let environment = [
        ("IOTHUB_DEVICE_CONNECTION_STRING", &*connection),
        ("XDG_RUNTIME_DIR", path),
        ("DEVICE_PROXY_STATUS_SOCKET", ""),
    ];
    // One that was killed has left this.
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    let stale = folder.join("device-proxy-1.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let mut device = Program::start("device-proxy", &arguments, &environment);
    device.line("connected; streams reach").await;
    assert!(!stale.exists());
    let socket = folder.join(format!("device-proxy-{}.sock", device.id()));
    for (path, mode) in [(&folder, 0o700), (&socket, 0o600)] {
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!(
            metadata.permissions().mode() & 0o777,
            mode,
            "{}",
            path.display()
        );
    }
    let ask = || {
        let asked = std::process::Command::new(tests::programs::binary("device-proxy"))
            .arg("status")
            .env("XDG_RUNTIME_DIR", path)
            .output()
            .unwrap();
        let shown = [asked.stdout, asked.stderr].map(|it| String::from_utf8(it).unwrap());
        (asked.status.success(), shown.concat())
    };
    let (is_success, shown) = ask();
    assert!(is_success, "{shown}");
    assert!(
        shown.contains(&format!(", process {}, up ", device.id())),
        "{shown}"
    );
    assert!(shown.contains("as MyDevice, connected for "), "{shown}");
    assert!(shown.contains("echo -> built-in echo"), "{shown}");
    // Another user is sent away, also where the access rights would let it in.
    if rustix::process::geteuid().is_root() {
        for (path, mode) in [(runtime.path(), 0o755), (&folder, 0o755), (&socket, 0o666)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let program = tests::programs::binary("device-proxy");
        let asked = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["status", "--socket", socket.to_str().unwrap()])
            .output();
        // The other user may not reach the program, or there is no setpriv.
        if let Ok(asked) = asked
            && ![Some(126), Some(127)].contains(&asked.status.code())
        {
            let shown = String::from_utf8(asked.stderr).unwrap();
            assert!(shown.contains("no answer from "), "{shown}");
            assert!(asked.stdout.is_empty());
        }
    }
    let process = format!(", process {}, ", device.id());
    device.terminate();
    let _ = device.exit_code().await;
    assert!(!socket.exists());
    let (is_success, shown) = ask();
    assert!(!shown.contains(&process), "{shown}");
    // Root may have others, which do not belong to this test.
    assert!(
        is_success || shown.contains("no device-proxy of this user runs here"),
        "{shown}"
    );
}
