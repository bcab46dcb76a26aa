//! A hub whose configuration changes while it runs: limits, the log, the certificate and the access
//! file, and proxies that follow to another CA. Nothing that is open ends.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tests::echo::{connect, is_echoed};
use tests::program_hub::free_port;
use tests::programs::{Program, run};
use tests::target::Behaviour;
use tests::{Target, soon, wait};
use tokio::net::TcpStream;

/// A hub with a configuration file, and everything in one folder.
struct Setup {
    folder: TempDir,
    https: u16,
    fixed: String,
    hub: Option<Program>,
}

impl Setup {
    /// Writes the files of a hub on free ports.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let https = free_port().await;
        let path = |name: &str| folder.path().join(name);
        let fixed = format!(
            "data-dir = {:?}\nhostname = \"localhost\"\nhttps = \"127.0.0.1:{https}\"\n\
             mqtts = \"127.0.0.1:{}\"\ntls-cert = {:?}\ntls-key = {:?}\n",
            path("data"),
            free_port().await,
            path("hub.pem"),
            path("hub.key"),
        );
        let setup = Self {
            https,
            folder,
            fixed,
            hub: None,
        };
        setup.certify();
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn replace(&self, name: &str, text: &str) {
        let new = self.path("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    /// A new CA in `next-ca.pem`, and the hub's certificate of it.
    fn certify(&self) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        self.replace("next-ca.pem", &ca.pem());
        self.replace("hub.pem", &certificate.pem());
        self.replace("hub.key", &key.serialize_pem());
    }

    /// The proxies trust the newest CA.
    fn trust(&self) {
        let ca = std::fs::read_to_string(self.path("next-ca.pem")).unwrap();
        self.replace("ca.pem", &ca);
    }

    fn configure(&self, settings: &str) {
        self.replace("stream-hub.toml", &format!("{}{settings}", self.fixed));
    }

    async fn start(&mut self) {
        let config = self.path("stream-hub.toml");
        let words = ["serve", "--config", config.to_str().unwrap()];
        let program = Program::start("stream-hub", &words, &[]);
        program.line("ready").await;
        self.hub = Some(program);
    }

    fn hub(&self) -> &Program {
        self.hub.as_ref().unwrap()
    }

    fn admin(&self, words: &[&str]) -> String {
        let config = self.path("stream-hub.toml");
        let words = [words, &["--config", config.to_str().unwrap()]].concat();
        let (ok, out, talk) = run("stream-hub", &words);
        assert!(ok, "{talk}");
        out.trim_end().to_owned()
    }

    /// The certificate that the hub shows.
    async fn shown(&self) -> CertificateDer<'static> {
        let ca = self.path("next-ca.pem");
        let tls = common::tls::client_config(Some(&ca), None).unwrap();
        let socket = TcpStream::connect(("127.0.0.1", self.https)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls));
        let stream = soon("TLS", connector.connect(name, socket)).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        shown[0].clone().into_owned()
    }

    async fn service(&self, mode: &str) -> (Program, u16) {
        let connection = self.admin(&["policy", "connection-string", "service"]);
        let ca = self.path("ca.pem");
        let words = ["--session", mode, "--ca-file", ca.to_str().unwrap()];
        let words = [&words[..], &["MyDevice", "0"]].concat();
        let variables = [("IOTHUB_CONNECTION_STRING", connection.as_str())];
        let program = Program::start("service-proxy", &words, &variables);
        let line = program.line("listening on 127.0.0.1:").await;
        let port = line.split("127.0.0.1:").nth(1).unwrap();
        let port = port.split(' ').next().unwrap().parse().unwrap();
        (program, port)
    }
}

#[tokio::test]
async fn limits_log_and_certificate_change_and_streams_go_on() {
    let mut setup = Setup::new().await;
    setup.trust();
    setup.configure("");
    setup.start().await;
    let connection = setup.admin(&["device", "create", "MyDevice"]);
    let target = Target::start(Behaviour::Echo).await;
    let ca = setup.path("ca.pem");
    let address = target.address.to_string();
    let words = ["--target", &address, "--ca-file", ca.to_str().unwrap()];
    let device = Program::start(
        "device-proxy",
        &words,
        &[("IOTHUB_DEVICE_CONNECTION_STRING", &connection)],
    );
    device.line("connected; streams reach").await;
    let (_sessions, port) = setup.service("always").await;
    let (plain, plain_port) = setup.service("never").await;
    let mut socket = connect(port).await;
    assert!(is_echoed(&mut socket).await);

    // There is one stream, and no more than one may be.
    assert_eq!(setup.hub().count(" DEBUG "), 0);
    setup.configure("log-level = \"debug\"\n[limits]\nstreams = 1\n");
    let line = setup.hub().line("configuration changed by ").await;
    assert!(line.ends_with(": limits.streams, log-level"), "{line}");
    let mut second = connect(plain_port).await;
    plain
        .line("the hub throttles (429: the hub's limit streams is reached")
        .await;
    setup.hub().line("DEBUG").await;
    // The attempt goes on, and succeeds when there is room.
    setup.configure("log-level = \"debug\"\n[limits]\nstreams = 9\n");
    assert!(is_echoed(&mut second).await);

    // A certificate of another CA.
    let before = setup.shown().await;
    setup.certify();
    setup.hub().line("the TLS certificate was read again").await;
    let now = setup.shown().await;
    assert_ne!(now, before);
    for socket in [&mut socket, &mut second] {
        assert!(is_echoed(socket).await);
    }
    setup.trust();
    device
        .line("connecting again, with the changed configuration")
        .await;
    wait("the hub session", || {
        device.count("connected; streams reach") == 2
    })
    .await;
    plain.line("configuration changed by ").await;
    for socket in [&mut socket, &mut second, &mut connect(plain_port).await] {
        assert!(is_echoed(socket).await);
    }

    // Mistakes, and what cannot change.
    setup.configure("[limits]\nstreams = 0\n");
    let line = setup
        .hub()
        .line("the configuration is unchanged, since ")
        .await;
    assert!(line.contains("line 8: limits.streams: "), "{line}");
    setup.configure("amqps = \"127.0.0.1:0\"\n");
    let line = setup.hub().line(" also changes ").await;
    assert!(
        line.contains("also changes amqps: stream-hub has to be started again for that"),
        "{line}"
    );
    assert!(is_echoed(&mut socket).await);
}

#[tokio::test]
async fn a_policy_that_is_governed_no_more_is_warned_of() {
    let rule = "[[allow]]\npolicies = ['guests']\ndevices = ['*']\ntargets = ['ssh']\n";
    let mut setup = Setup::new().await;
    setup.replace("access.toml", rule);
    let file = format!("[access]\nfile = {:?}\n", setup.path("access.toml"));
    setup.configure(&file);
    setup.start().await;
    // Governed by name, the policy needs no rule.
    setup.replace("access.toml", "govern = ['guests']\n");
    setup.hub().line("the access file is in force").await;
    let freed = "no longer governs shared access policies that it governed: guests;";
    assert_eq!(setup.hub().count(freed), 0);
    setup.replace("access.toml", "");
    setup.hub().line(freed).await;

    // A setting that is lost opens nothing.
    setup.replace("access.toml", rule);
    wait("the rule", || {
        setup.hub().count("the access file is in force") >= 3
    })
    .await;
    setup.configure("");
    let line = setup.hub().line(" also changes ").await;
    assert!(line.contains("also changes access.file: "), "{line}");
    assert_eq!(setup.hub().count(freed), 1);
}
