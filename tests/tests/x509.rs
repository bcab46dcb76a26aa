//! Devices that authenticate with a TLS client certificate, by its thumbprint.

use common::clock::unix_now;
use common::connection_string::DeviceConnectionString;
use common::sas_token;
use common::secret::SharedKey;
use common::tls::ClientIdentity;
use hub::auth::fingerprints;
use hub::registry::{Authentication, Status, Thumbprint};
use rcgen::{CertificateParams, KeyPair};
use tests::device::config;
use tests::{TestDevice, TestHub, soon, wait};
use tokio_util::sync::CancellationToken;

/// A self-signed certificate in files, and its two thumbprints.
struct Certificate {
    folder: tempfile::TempDir,
    thumbprints: [Thumbprint; 2],
}

impl Certificate {
    fn make() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["device".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self {
            folder,
            thumbprints: fingerprints(certificate.der())
                .map(|hex| Thumbprint::parse(&hex).unwrap()),
        }
    }

    fn arguments(&self) -> [String; 4] {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        [
            "--cert".into(),
            path("cert.pem"),
            "--key".into(),
            path("key.pem"),
        ]
    }
}

/// The message with which a device-proxy ends at its first start.
async fn refused(
    hub: &TestHub,
    connection: &DeviceConnectionString,
    certificate: &Certificate,
) -> String {
    let arguments = certificate.arguments();
    let mut line: Vec<&str> = arguments.iter().map(String::as_str).collect();
    line.push("--echo");
    let run = device_proxy::run(config(hub, connection, &line), CancellationToken::new());
    let error = soon("a refusal", run).await.unwrap_err();
    common::report::chain(&error)
}

#[tokio::test]
async fn either_thumbprint_opens_either_transport() {
    let hub = TestHub::start().await;
    let certificate = Certificate::make();
    let arguments = certificate.arguments();
    for (number, thumbprint) in certificate.thumbprints.iter().enumerate() {
        for transport in ["mqtt", "mqtt-ws"] {
            let id = format!("{transport}-{number}");
            let proof = Authentication::SelfSigned {
                primary: None,
                secondary: Some(thumbprint.clone()),
            };
            let connection = hub.create_with(&id, proof).await;
            let mut line: Vec<&str> = arguments.iter().map(String::as_str).collect();
            line.extend(["--transport", transport, "--echo"]);
            let device = TestDevice::start(&hub, &connection, &line).await;
            assert!(
                hub.state.presence.is_connected(&connection.identity),
                "{id}"
            );
            device.shut_down().await.unwrap();
            wait("its end", || {
                !hub.state.presence.is_connected(&connection.identity)
            })
            .await;
        }
    }
}

#[tokio::test]
async fn another_certificate_or_none_of_that_kind_is_refused() {
    let hub = TestHub::start().await;
    let (own, other) = (Certificate::make(), Certificate::make());
    let proof = Authentication::SelfSigned {
        primary: Some(own.thumbprints[1].clone()),
        secondary: None,
    };
    let connection = hub.create_with("d", proof).await;
    let sentence = refused(&hub, &connection, &other).await;
    assert!(sentence.contains("thumbprint"), "{sentence}");
    // A device with keys is not admitted by a certificate.
    let mut with_keys = hub.create("keys").await;
    with_keys.credential = common::connection_string::DeviceCredential::X509;
    let sentence = refused(&hub, &with_keys, &own).await;
    assert!(sentence.contains("thumbprint"), "{sentence}");
}

/// The hub's status for a request with this certificate and token.
async fn rest(hub: &TestHub, own: Option<&Certificate>, token: Option<&str>, path: &str) -> u16 {
    let identity = own.map(|own| {
        let file = |name: &str| own.folder.path().join(name);
        ClientIdentity {
            certificate: file("cert.pem"),
            key: file("key.pem"),
        }
    });
    let tls = common::tls::client_config(Some(&hub.ca_file()), identity.as_ref()).unwrap();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        .no_proxy()
        .build()
        .unwrap();
    let mut request = client.get(format!("https://localhost:{}{path}", hub.https.port()));
    if let Some(token) = token {
        request = request.header("Authorization", token);
    }
    let response = soon("an answer", request.send()).await.unwrap();
    response.status().as_u16()
}

#[tokio::test]
async fn a_certificate_opens_its_devices_modules_and_a_token_does_not() {
    let hub = TestHub::start().await;
    let (own, other) = (Certificate::make(), Certificate::make());
    let proof = |certificate: &Certificate| Authentication::SelfSigned {
        primary: Some(certificate.thumbprints[0].clone()),
        secondary: None,
    };
    hub.create_with("d", proof(&own)).await;
    hub.create_with("e", proof(&other)).await;
    hub.create("keys").await;
    let path = "/devices/d/modules";
    assert_eq!(rest(&hub, Some(&own), None, path).await, 200);
    assert_eq!(rest(&hub, Some(&other), None, path).await, 401);
    assert_eq!(rest(&hub, None, None, path).await, 401);
    for path in [
        "/devices/d",
        "/devices/e/modules",
        "/devices/keys/modules",
        "/devices",
        "/twins/d",
        "/devices/nobody/modules",
    ] {
        assert_eq!(rest(&hub, Some(&own), None, path).await, 401, "{path}");
    }
    // It has no key to sign a token with, and the certificate does not make up for a bad token.
    let resource = "localhost/devices/d";
    let token = sas_token::mint(resource, &SharedKey::random(), None, unix_now() + 60);
    for own in [None, Some(&own)] {
        assert_eq!(rest(&hub, own, Some(token.expose()), path).await, 401);
    }
    hub.set_status("d", Status::Disabled).await;
    assert_eq!(rest(&hub, Some(&own), None, path).await, 401);
}
