//! What the three programs agree on in TLS, and what they refuse.

use std::sync::Arc;

use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use common::secret::SharedKey;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::{CryptoProvider, aws_lc_rs::kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig,
    SupportedProtocolVersion, version,
};
use tempfile::TempDir;
use tests::programs::{Program, binary};
use tests::{TestHub, soon};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const HYBRID: NamedGroup = NamedGroup::X25519MLKEM768;

/// What a client of these key exchanges and versions agrees on with the hub.
async fn agreed(
    hub: &TestHub,
    port: u16,
    groups: &[&'static dyn rustls::crypto::SupportedKxGroup],
    versions: &[&'static SupportedProtocolVersion],
) -> (ProtocolVersion, NamedGroup) {
    let provider = CryptoProvider {
        kx_groups: groups.to_vec(),
        ..rustls::crypto::aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    for root in common::tls::certificates(&hub.ca_file()).unwrap() {
        roots.add(root).unwrap();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, socket);
    let stream = soon("a handshake", connecting).await.unwrap();
    let connection = stream.get_ref().1;
    (
        connection.protocol_version().unwrap(),
        connection.negotiated_key_exchange_group().unwrap().name(),
    )
}

#[tokio::test]
async fn the_hub_prefers_hybrid_key_exchange_and_takes_clients_without_it() {
    let hub = TestHub::start().await;
    let all = [&version::TLS13, &version::TLS12];
    use ProtocolVersion::{TLSv1_2, TLSv1_3};
    for port in [hub.https.port(), hub.mqtts.port(), hub.amqps.port()] {
        for (groups, versions, expected) in [
            (
                &[kx_group::X25519MLKEM768, kx_group::X25519][..],
                &all[..],
                (TLSv1_3, HYBRID),
            ),
            (&[kx_group::X25519MLKEM768], &all, (TLSv1_3, HYBRID)),
            (&[kx_group::X25519], &all, (TLSv1_3, NamedGroup::X25519)),
            (
                &[kx_group::SECP256R1],
                &all,
                (TLSv1_3, NamedGroup::secp256r1),
            ),
            (
                &[kx_group::SECP384R1],
                &all,
                (TLSv1_3, NamedGroup::secp384r1),
            ),
            (
                &[kx_group::X25519],
                &all[1..],
                (TLSv1_2, NamedGroup::X25519),
            ),
            (
                &[kx_group::SECP256R1],
                &all[1..],
                (TLSv1_2, NamedGroup::secp256r1),
            ),
        ] {
            assert_eq!(agreed(&hub, port, groups, versions).await, expected);
        }
    }
}

/// A server of TLS with a CA of its own, and a certificate for one name.
struct Server {
    folder: TempDir,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    authority: CertificateDer<'static>,
}

impl Server {
    async fn named(name: &str) -> Self {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "The right CA");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &ca).unwrap();
        let config = ServerConfig::builder_with_provider(common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone(), ca.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        Self {
            folder,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            authority: ca.der().clone(),
        }
    }

    fn ca_file(&self) -> String {
        let path = self.folder.path().join("ca.pem");
        path.to_str().unwrap().to_owned()
    }

    /// Where it listens, by the name that its certificate may have or not.
    fn host(&self) -> String {
        format!("localhost:{}", self.listener.local_addr().unwrap().port())
    }

    /// The next client's connection, if the client believes the certificate.
    async fn client(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let (socket, _) = soon("a client", self.listener.accept()).await.unwrap();
        self.acceptor.accept(socket).await
    }

    /// The program's command lines that lead to this server, each with one of the options that say
    /// which certificate is trusted, and what belongs into its environment.
    fn clients(&self) -> Vec<Start> {
        let (host, ca) = (self.host(), self.ca_file());
        let key = SharedKey::random().to_base64();
        let key = key.expose();
        let device = format!("HostName={host};DeviceId=d;SharedAccessKey={key}");
        let service = format!("HostName={host};SharedAccessKeyName=service;SharedAccessKey={key}");
        assert!(DeviceConnectionString::parse(&device).is_ok());
        assert!(ServiceConnectionString::parse(&service).is_ok());
        let port = self.listener.local_addr().unwrap().port().to_string();
        let anchor = common::tls::Fingerprint::of(&self.authority);
        let invitation = common::enrolment::Invitation {
            code: common::enrolment::Code::random(anchor),
            hub: common::hub_address::HubAddress::parse(&host).unwrap(),
        }
        .to_text();
        let code = invitation.expose();
        let home = self.folder.path().join("home");
        let home = home.to_str().unwrap().to_owned();
        let data = self.folder.path().join("data");
        let data = data.to_str().unwrap().to_owned();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let start = |program, line: String, name, value: &str| Start {
            program,
            arguments: words(&line),
            environment: (name, value.to_owned()),
        };
        let of_device = "IOTHUB_DEVICE_CONNECTION_STRING";
        vec![
            start(
                "device-proxy",
                format!("--echo --transport mqtt --mqtts-port {port} --ca-file {ca}"),
                of_device,
                &device,
            ),
            start(
                "device-proxy",
                format!("--echo --transport mqtt-ws --ca-file {ca}"),
                of_device,
                &device,
            ),
            start(
                "device-proxy",
                format!("enrol {code} --dir {home}"),
                "HOME",
                &home,
            ),
            start(
                "service-proxy",
                format!("--ca-file {ca} echo d --count 1"),
                "IOTHUB_CONNECTION_STRING",
                &service,
            ),
            start("service-proxy", format!("login {code}"), "HOME", &home),
            start(
                "stream-hub",
                format!(
                    "serve --data-dir {data} --hostname hub.example.com --https 127.0.0.1:0 --mqtts off --acme --acme-directory https://{host}/dir --acme-ca-file {ca}"
                ),
                "HOME",
                &home,
            ),
        ]
    }
}

/// How a program is started.
struct Start {
    program: &'static str,
    arguments: Vec<String>,
    environment: (&'static str, String),
}

impl Start {
    fn start(&self) -> Program {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let (name, value) = &self.environment;
        Program::start(self.program, &arguments, &[(name, value)])
    }
}

#[tokio::test]
async fn every_program_prefers_hybrid_key_exchange() {
    let server = Server::named("localhost").await;
    for client in server.clients() {
        let _running = client.start();
        let stream = server.client().await.unwrap();
        let connection = stream.get_ref().1;
        let group = connection.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, HYBRID, "{:?}", client.arguments);
    }
}

#[tokio::test]
async fn the_right_ca_with_another_name_is_refused_whatever_option_trusts_it() {
    let server = Server::named("other.example.com").await;
    for client in server.clients() {
        let running = client.start();
        // Of TLS 1.3 the server's side may end its handshake before it reads that it is refused;
        // what counts is that no credential follows.
        let received = match server.client().await {
            Err(_) => Vec::new(),
            Ok(mut stream) => {
                let mut received = Vec::new();
                let _ = soon("its end", stream.read_to_end(&mut received)).await;
                received
            }
        };
        assert_eq!(received, b"", "{:?}", client.arguments);
        running.line("another host name").await;
    }
}

/// No option, in whatever spelling, switches verification off: the options are as they are listed
/// here for those that are about TLS.
#[test]
fn there_is_no_option_that_switches_verification_off() {
    for (program, pages) in [
        ("device-proxy", &[&["--help"][..], &["enrol", "--help"]][..]),
        ("service-proxy", &[&["--help"], &["login", "--help"]]),
        ("stream-hub", &[&["--help"], &["serve", "--help"]]),
    ] {
        for page in pages {
            let output = std::process::Command::new(binary(program))
                .args(*page)
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap().to_lowercase();
            assert!(text.contains("usage:"), "{program} {page:?}");
            for word in [
                "insecure",
                "no-verify",
                "skip-verify",
                "no-check",
                "accept-invalid",
                "allow-invalid",
                "plaintext",
                "no-tls",
            ] {
                assert!(!text.contains(word), "{program} {page:?} has {word}");
            }
        }
    }
}
