//! What clients think of the material: TLS handshakes in memory, with `ca.pem` as the
//! only root.

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::pem::certificate_in;
use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Connects as `name` to a server with this certificate, trusting only `ca`.
async fn handshake(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    ca: &Path,
    name: &str,
) -> Result<(), String> {
    let server = ServerConfig::builder_with_provider(common::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    for certificate in common::tls::certificates(ca).unwrap() {
        roots.add(certificate).unwrap();
    }
    let client = ClientConfig::builder_with_provider(common::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = tokio::io::duplex(16 << 10);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let (connected, _) = tokio::join!(
        TlsConnector::from(Arc::new(client)).connect(name, near),
        acceptor.accept(far),
    );
    connected.map(drop).map_err(|error| error.to_string())
}

async fn accepts(material: &Material, name: &str) -> bool {
    let key = material.key.clone_key();
    let chain = material.certificates.clone();
    handshake(chain, key, &material.ca_file, name).await.is_ok()
}

#[tokio::test]
async fn the_right_name_is_accepted_and_no_other() {
    for (host, good, bad) in [
        (
            "localhost",
            &["localhost", "127.0.0.1", "::1"][..],
            &["example.net", "127.0.0.2"][..],
        ),
        (
            "Hub.Example.net",
            &["hub.example.net"],
            &["example.net", "a.hub.example.net", "localhost", "127.0.0.1"],
        ),
        ("192.0.2.7", &["192.0.2.7"], &["192.0.2.8", "localhost"]),
        (
            "2001:db8::7",
            &["2001:db8::7"],
            &["2001:db8::8", "192.0.2.7"],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let material = ensure(dir.path(), host, now()).unwrap();
        assert_eq!(material.made, Made::CaAndServer);
        for name in good {
            assert!(accepts(&material, name).await, "{host} as {name}");
        }
        for name in bad {
            assert!(!accepts(&material, name).await, "{host} as {name}");
        }
    }
}

#[tokio::test]
async fn the_ca_can_sign_for_nobody_else() {
    for (host, foreign) in [
        ("localhost", &["example.net", "127.0.0.2", "::2"][..]),
        (
            "hub.example.net",
            &["example.net", "other.example.net", "192.0.2.7", "::1"],
        ),
        ("192.0.2.7", &["192.0.2.8", "2001:db8::7", "example.net"]),
        ("2001:db8::7", &["192.0.2.7", "2001:db8::8", "localhost"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let material = ensure(dir.path(), host, now()).unwrap();
        let ca = certificate_in(&material.ca_file).unwrap().unwrap();
        let authority = Authority::read(dir.path(), &ca).unwrap().unwrap();
        for name in foreign {
            let pair = authority.issue(&Host::parse(name).unwrap(), now()).unwrap();
            let chain = vec![pair.certificate, ca.clone()];
            let refused = handshake(chain, pair.key, &material.ca_file, name).await;
            let reason = refused.unwrap_err();
            assert!(reason.contains("NameConstraint"), "{name}: {reason}");
        }
    }
}

#[test]
fn what_is_good_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let first = ensure(dir.path(), "localhost", now()).unwrap();
    let second = ensure(dir.path(), "LOCALHOST", now()).unwrap();
    assert_eq!(second.made, Made::Nothing);
    assert_eq!(first.certificates, second.certificates);
    assert_eq!(first.key, second.key);
    let unset_clock = OffsetDateTime::UNIX_EPOCH + Duration::days(1);
    let third = ensure(dir.path(), "localhost", unset_clock).unwrap();
    assert_eq!(third.made, Made::Nothing);
}

#[test]
fn what_runs_out_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let start = now();
    let made = |days| {
        ensure(dir.path(), "hub.example.net", start + Duration::days(days))
            .unwrap()
            .made
    };
    assert_eq!(made(0), Made::CaAndServer);
    assert_eq!(made(366), Made::Nothing);
    assert_eq!(made(368), Made::Server);
    assert_eq!(made(368), Made::Nothing);
    assert_eq!(
        made(3600),
        Made::Server,
        "shorter than usual, as the CA ends"
    );
    assert_eq!(made(3601), Made::Nothing);
    assert_eq!(made(3625), Made::CaAndServer);
}

#[test]
fn another_name_needs_another_certificate_and_often_another_ca() {
    let dir = tempfile::tempdir().unwrap();
    let made = |host| ensure(dir.path(), host, now()).unwrap().made;
    assert_eq!(made("example.net"), Made::CaAndServer);
    assert_eq!(made("hub.example.net"), Made::Server);
    assert_eq!(made("hub.example.org"), Made::CaAndServer);
    assert_eq!(made("192.0.2.7"), Made::CaAndServer);
    assert_eq!(made("localhost"), Made::CaAndServer);
    assert_eq!(made("localhost"), Made::Nothing);
}

#[test]
fn lost_and_mixed_up_files() {
    let dir = tempfile::tempdir().unwrap();
    let made = || ensure(dir.path(), "localhost", now()).map(|m| m.made);
    let remove = |name: &str| std::fs::remove_file(dir.path().join(name)).unwrap();
    made().unwrap();
    remove(CA_KEY);
    assert_eq!(
        made().unwrap(),
        Made::Nothing,
        "a CA's key may be elsewhere"
    );
    remove(SERVER_KEY);
    assert_eq!(made().unwrap(), Made::CaAndServer);
    remove(SERVER_CERTIFICATE);
    assert_eq!(made().unwrap(), Made::Server);
    let other = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(dir.path().join(SERVER_KEY), &other).unwrap();
    assert_eq!(made().unwrap(), Made::Server, "the key of something else");
    std::fs::write(dir.path().join(CA_KEY), &other).unwrap();
    assert_eq!(made().unwrap(), Made::Nothing);
    remove(SERVER_KEY);
    assert_eq!(made().unwrap(), Made::CaAndServer);
    std::fs::write(dir.path().join(CA_CERTIFICATE), "precious").unwrap();
    let error = made().unwrap_err();
    assert!(error.to_string().contains(CA_CERTIFICATE), "{error}");
    let content = std::fs::read_to_string(dir.path().join(CA_CERTIFICATE)).unwrap();
    assert_eq!(content, "precious");
}

#[tokio::test]
async fn a_key_of_another_ca_s_certificate_has_one_of_ours_if_there_is_a_ca() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let host = "hub.example.net";
    assert!(stand_in(dir.path(), host, &key, now()).is_none());
    let material = ensure(dir.path(), host, now()).unwrap();
    let chain = stand_in(dir.path(), host, &key, now()).unwrap();
    assert_eq!(chain[1], material.certificates[1]);
    let accepted = handshake(chain, key.into(), &material.ca_file, host).await;
    accepted.unwrap();
}

#[test]
fn certificates_say_what_they_are_for() {
    use x509_parser::prelude::*;
    let dir = tempfile::tempdir().unwrap();
    let material = ensure(dir.path(), "localhost", now()).unwrap();
    let (_, server) = X509Certificate::from_der(&material.certificates[0]).unwrap();
    let (_, ca) = X509Certificate::from_der(&material.certificates[1]).unwrap();
    let basic = ca.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca);
    assert_eq!(basic.value.path_len_constraint, Some(0));
    let usage = ca.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert!(ca.name_constraints().unwrap().unwrap().critical);
    let usage = server.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let extended = server.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && !extended.client_auth && !extended.any);
    let identifier = |certificate: &X509Certificate<'_>, own: bool| {
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) if own => Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) if !own => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            })
            .unwrap()
    };
    assert_eq!(identifier(&server, false), identifier(&ca, true));
    assert_ne!(server.raw_serial(), ca.raw_serial());
    let life = server.validity().not_after.timestamp() - server.validity().not_before.timestamp();
    assert_eq!(life, (SERVER_LIFE + SKEW).whole_seconds());
}

#[test]
fn names_that_no_certificate_carries_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "-x", "a..b", "."] {
        let error = ensure(dir.path(), bad, now()).unwrap_err();
        assert!(matches!(error, PkiError::HostName(_)), "{bad}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[cfg(unix)]
#[test]
fn keys_are_private_and_never_shown() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let material = ensure(dir.path(), "localhost", now()).unwrap();
    for (name, wanted) in [
        (CA_CERTIFICATE, 0o644),
        (CA_KEY, 0o600),
        (SERVER_CERTIFICATE, 0o644),
        (SERVER_KEY, 0o600),
    ] {
        let metadata = std::fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, wanted, "{name}");
    }
    assert!(format!("{:?}", material.key).contains("secret key elided"));
}
