//! Configurations that change while the programs run, by their files alone: no signal, and no stream
//! that is not concerned.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tests::echo::{connect, echoes, is_echoed};
use tests::program_hub::{ProgramHub, free_port};
use tests::programs::Program;
use tests::target::Behaviour;
use tests::{Target, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Files of a configuration.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces a file by renaming another one, as editors and certbot do.
    fn replace(&self, name: &str, text: &str) -> PathBuf {
        let (new, path) = (self.path("new"), self.path(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }
}

fn start(name: &str, config: &Path) -> Program {
    Program::start(name, &["--config", config.to_str().unwrap()], &[])
}

/// What reaches a hub as its service policy.
fn of_hub(hub: &ProgramHub) -> String {
    let string = hub.admin(&["policy", "connection-string", "service"]);
    format!(
        "connection-string = {string:?}\nca-file = {:?}\n",
        hub.ca_file()
    )
}

#[tokio::test]
async fn a_removed_forward_ends_its_own_connections_only() {
    let hub = ProgramHub::start_quiet().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let _device = hub.device(&connection, &format!("ssh={}", target.address));
    let [removed, kept, plain, added] = [
        free_port().await,
        free_port().await,
        free_port().await,
        free_port().await,
    ];
    let folder = Folder::new();
    let write = |forwards: &[String]| {
        let text = format!(
            "{}device = \"MyDevice\"\nforward = {forwards:?}\n",
            of_hub(&hub)
        );
        folder.replace("service-proxy.toml", &text)
    };
    let [gone, stays, other, new] = [removed, kept, plain, added].map(|port| format!("{port}:ssh"));
    let config = write(&[gone, stays.clone(), other.clone()]);
    let service = start("service-proxy", &config);
    service
        .line(&format!("listening on 127.0.0.1:{plain} "))
        .await;
    let mut ends = connect(removed).await;
    let mut goes_on = [connect(kept).await, connect(plain).await];
    for socket in goes_on.iter_mut().chain([&mut ends]) {
        assert!(is_echoed(socket).await);
    }

    // One goes, one comes, and one cannot: another program has its port.
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let held = format!("{}:ssh", holder.local_addr().unwrap());
    write(&[stays.clone(), other.clone(), held, new.clone()]);
    let line = service
        .line(&format!(
            "forward removed: 127.0.0.1:{removed} -> MyDevice (ssh)"
        ))
        .await;
    assert!(line.contains("connections=1"), "{line}");
    let changed = service.line("configuration changed by ").await;
    assert!(changed.ends_with(": forward"), "{changed}");
    service
        .line("tunnel closed: its forward was removed from the configuration")
        .await;
    assert!(!is_echoed(&mut ends).await);
    let refused = service.line("no forward to MyDevice (ssh): ").await;
    assert!(
        refused.contains("another program listens there"),
        "{refused}"
    );
    service
        .line(&format!("listening on 127.0.0.1:{added} -> MyDevice (ssh)"))
        .await;
    assert!(echoes(added).await);
    assert!(TcpStream::connect(("127.0.0.1", removed)).await.is_err());

    // A mistake changes nothing.
    write(&[stays, "2222:ssh:x".to_owned()]);
    let line = service.line("the configuration is unchanged, since ").await;
    assert!(line.contains("line 4: forward: "), "{line}");
    for socket in &mut goes_on {
        assert!(is_echoed(socket).await);
    }
    // The same port may lead elsewhere from now on.
    write(&[format!("{kept}:echo"), other, new]);
    service
        .line(&format!(
            "forward added: 127.0.0.1:{kept} -> MyDevice (echo)"
        ))
        .await;
    assert!(!is_echoed(&mut goes_on[0]).await);
    assert!(is_echoed(&mut goes_on[1]).await);
    assert!(echoes(kept).await);
}

#[tokio::test]
async fn one_program_serves_two_hubs() {
    let hubs = [
        ProgramHub::start_quiet().await,
        ProgramHub::start_quiet().await,
    ];
    let targets = [
        Target::start(Behaviour::Echo).await,
        Target::start(Behaviour::Echo).await,
    ];
    // The same name at both.
    let _devices: Vec<_> = hubs
        .iter()
        .zip(&targets)
        .map(|(hub, target)| {
            let connection = hub.admin(&["device", "create", "Robot"]);
            hub.device(&connection, &format!("ssh={}", target.address))
        })
        .collect();
    let ports = [free_port().await, free_port().await];
    let table = |name: &str, place: usize| {
        format!(
            "[hubs.{name}]\n{}device = \"Robot\"\nforward = \"{}:ssh\"\n",
            of_hub(&hubs[place]),
            ports[place]
        )
    };
    let folder = Folder::new();
    let both = table("acme", 0) + &table("globex", 1);
    let config = folder.replace("service-proxy.toml", &both);
    let service = start("service-proxy", &config);
    for (name, port) in ["acme", "globex"].iter().zip(ports) {
        let line = format!("listening on 127.0.0.1:{port} -> Robot (ssh) at {name}");
        service.line(&line).await;
    }
    let mut sockets = [connect(ports[0]).await, connect(ports[1]).await];
    for (socket, target) in sockets.iter_mut().zip(&targets) {
        assert!(is_echoed(socket).await);
        assert_eq!(target.counters.connections(), 1, "its own device's");
    }

    // One customer less.
    folder.replace("service-proxy.toml", &table("globex", 1));
    service.line("forward removed: ").await;
    assert!(!is_echoed(&mut sockets[0]).await);
    assert!(is_echoed(&mut sockets[1]).await);
    wait("the end at the target", || {
        targets[0].counters.connections() == 0
    })
    .await;
    // And back.
    folder.replace("service-proxy.toml", &both);
    service.line("forward added: ").await;
    assert!(echoes(ports[0]).await);
    assert!(is_echoed(&mut sockets[1]).await);

    // Other commands name the hub.
    let config = config.to_str().unwrap();
    let words = ["--config", config, "--hub", "globex", "echo", "Robot"];
    let mut echo = Program::start(
        "service-proxy",
        &[&words[..], &["--count", "1"]].concat(),
        &[],
    );
    let (is_good, _) = echo.ended().await;
    assert!(is_good);
}

#[tokio::test]
async fn new_credentials_are_used_and_streams_go_on() {
    let hub = ProgramHub::start_quiet().await;
    let folder = Folder::new();
    let string = hub.admin(&["device", "create", "MyDevice"]);
    let key = folder.replace("device.cs", &string);
    let target = Target::start(Behaviour::Echo).await;
    let text = format!(
        "connection-string-file = {key:?}\nca-file = {:?}\ntarget = \"{}\"\n",
        hub.ca_file(),
        target.address
    );
    let device = start("device-proxy", &folder.replace("device-proxy.toml", &text));
    device.line("connected; streams reach").await;
    let service_key = hub.admin(&["policy", "connection-string", "service"]);
    let service_key = folder.replace("service.cs", &service_key);
    let text = format!(
        "connection-string-file = {service_key:?}\nca-file = {:?}\ndevice = \"MyDevice\"\nforward = [\"0:a\", \"0:b\"]\n",
        hub.ca_file()
    );
    let service = start(
        "service-proxy",
        &folder.replace("service-proxy.toml", &text),
    );
    let line = service.line("listening on 127.0.0.1:").await;
    let port = line.split("127.0.0.1:").nth(1).unwrap();
    let port: u16 = port.split(' ').next().unwrap().parse().unwrap();
    let mut socket = connect(port).await;
    assert!(is_echoed(&mut socket).await);

    let second = hub.admin(&["device", "connection-string", "MyDevice", "--secondary"]);
    assert_ne!(second, string);
    folder.replace("device.cs", &second);
    device
        .line("connecting again, with the changed configuration")
        .await;
    wait("the hub session", || {
        device.count("connected; streams reach") == 2
    })
    .await;
    assert!(device.output().contains("device.cs"));
    assert!(!device.output().contains("SharedAccessKey="));
    assert!(is_echoed(&mut socket).await);

    let second = hub.admin(&["policy", "connection-string", "service", "--secondary"]);
    folder.replace("service.cs", &second);
    let line = service.line("configuration changed by ").await;
    assert!(line.ends_with("service.cs"), "{line}");
    assert!(is_echoed(&mut socket).await);
    assert!(echoes(port).await);

    // Another device is another program's matter.
    let other = hub.admin(&["device", "create", "Other"]);
    folder.replace("device.cs", &other);
    let line = device.line(" also changes the device: ").await;
    assert!(
        line.contains("device-proxy has to be started again"),
        "{line}"
    );
    assert!(is_echoed(&mut socket).await);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_is_swapped_brings_other_targets() {
    let hub = ProgramHub::start_quiet().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let folder = Folder::new();
    // As Kubernetes mounts a ConfigMap.
    let version = |name: &str, settings: &str| {
        std::fs::create_dir(folder.path(name)).unwrap();
        let text = format!(
            "connection-string = {connection:?}\nca-file = {:?}\n{settings}\n",
            hub.ca_file()
        );
        std::fs::write(folder.path(name).join("device-proxy.toml"), text).unwrap();
        let new = folder.path("..data_tmp");
        std::os::unix::fs::symlink(name, &new).unwrap();
        std::fs::rename(new, folder.path("..data")).unwrap();
    };
    version("..1", &format!("target = \"ssh={}\"", target.address));
    let config = folder.path("device-proxy.toml");
    std::os::unix::fs::symlink("..data/device-proxy.toml", &config).unwrap();
    let device = start("device-proxy", &config);
    device.line("connected; streams reach ssh").await;
    let (_service, ssh) = hub
        .service(&["--session", "auto", "MyDevice", "0:ssh"])
        .await;
    let (_service, web) = hub
        .service(&["--session", "auto", "MyDevice", "0:web"])
        .await;
    let mut socket = connect(ssh).await;
    assert!(is_echoed(&mut socket).await);
    assert!(!echoes(web).await);

    let both = format!(
        "target = [\"ssh={0}\", \"web={0}\"]\nlog-level = \"debug\"",
        target.address
    );
    version("..2", &both);
    let line = device.line("policy changed by ").await;
    assert!(line.contains("web -> "), "{line}");
    let line = device.line("configuration changed by ").await;
    assert!(
        line.ends_with(": log-level, target") || line.ends_with(": target, log-level"),
        "{line}"
    );
    assert!(echoes(web).await);
    assert!(is_echoed(&mut socket).await);
    std::fs::remove_dir_all(folder.path("..1")).unwrap();
    version("..3", &format!("target = \"web={}\"", target.address));
    wait("the second change", || {
        device.count("policy changed by ") == 2
    })
    .await;
    assert!(!is_echoed(&mut socket).await);
    assert_eq!(device.count("connected; streams reach"), 1);
}

/// What a proxy port answers to a request for the device's SSH.
async fn asked(port: u16) -> (TcpStream, String) {
    let mut socket = connect(port).await;
    let request = b"CONNECT MyDevice.device:22 HTTP/1.1\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = soon("an answer", socket.read_u8()).await.unwrap();
        head.push(byte);
    }
    (socket, String::from_utf8(head).unwrap())
}

#[tokio::test]
async fn a_proxy_port_follows_its_files() {
    let hub = ProgramHub::start_quiet().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let _device = hub.device(&connection, &format!("ssh={}", target.address));
    let folder = Folder::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let other_ca = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    let ca = folder.replace("ca.pem", &other_ca.pem());
    let string = hub.admin(&["policy", "connection-string", "service"]);
    let port = free_port().await;
    let text = format!(
        "connection-string = {string:?}\nca-file = {ca:?}\n[socks]\nlisten = \"127.0.0.1:{port}\"\n"
    );
    let config = folder.replace("service-proxy.toml", &text);
    let words = ["socks", "--config", config.to_str().unwrap()];
    let service = Program::start("service-proxy", &words, &[]);
    service.line("listening on 127.0.0.1:").await;
    let (_, answer) = asked(port).await;
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");

    folder.replace("ca.pem", &std::fs::read_to_string(hub.ca_file()).unwrap());
    let line = service.line("configuration changed by ").await;
    assert!(line.ends_with("ca.pem"), "{line}");
    let (mut socket, answer) = asked(port).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(is_echoed(&mut socket).await);

    let elsewhere = text.replace(&port.to_string(), "1");
    folder.replace("service-proxy.toml", &elsewhere);
    let line = service.line(" also changes ").await;
    assert!(
        line.contains("socks.listen: service-proxy has to"),
        "{line}"
    );
    assert!(is_echoed(&mut socket).await);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_program_ends_with_its_terminal() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use tests::programs::{DIRECT, binary, ignores_hangups};
    if ignores_hangups() {
        return println!("skipped: this process was started with SIGHUP ignored");
    }
    let hub = ProgramHub::start_quiet().await;
    let folder = Folder::new();
    let port = free_port().await;
    let text = format!("{}device = \"d\"\nforward = \"{port}\"\n", of_hub(&hub));
    let config = folder.replace("service-proxy.toml", &text);
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let inside = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let program = tokio::process::Command::new("setsid")
        .arg("--ctty")
        .arg(binary("service-proxy"))
        .args(["--config".as_ref(), config.as_os_str()])
        .envs(DIRECT)
        .stdin(inside)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut program) = program else {
        return println!("skipped: there is no setsid");
    };
    wait("the port", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    // While the terminal is there, the signal asks for the configuration.
    let mut log = tokio::io::BufReader::new(program.stderr.take().unwrap());
    tests::programs::signal(&program, rustix::process::Signal::HUP);
    let mut seen = String::new();
    while !seen.contains("again: nothing has changed") {
        let line = tokio::io::AsyncBufReadExt::read_line(&mut log, &mut seen);
        assert_ne!(soon("its line", line).await.unwrap(), 0, "{seen}");
    }
    drop(terminal);
    let status = soon("its end", program.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}
