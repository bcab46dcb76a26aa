use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

use super::*;
use crate::tls::provider;

fn params(name: &str, host: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = params(name, "ca.example");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Verifies for `hub.example` in the middle of 2026.
fn refusal(root: &CertificateDer<'static>, shown: &CertificateDer<'static>) -> BadCertificate {
    refusal_at(root, shown, 1_780_000_000).unwrap_err()
}

fn refusal_at(
    root: &CertificateDer<'static>,
    shown: &CertificateDer<'static>,
    now: u64,
) -> Result<(), BadCertificate> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let verifier = ServerVerifier::new(roots, &provider()).unwrap();
    let name = ServerName::try_from("hub.example").unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    match verifier.verify_server_cert(shown, &[], &name, &[], now) {
        Ok(_) => Ok(()),
        // As a handshake returns it.
        Err(error) => Err(BadCertificate::find(&std::io::Error::other(error)).unwrap()),
    }
}

#[test]
fn each_problem_is_named_with_the_subject_and_the_remedy() {
    let ours = authority("Our CA");
    let other = authority("Other CA");
    let signed = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &ours).unwrap().der().clone()
    };
    let good = signed(params("hub", "hub.example"));
    assert_eq!(refusal_at(ours.der(), &good, 1_780_000_000), Ok(()));

    let key = KeyPair::generate().unwrap();
    let alone = params("A hub", "hub.example").self_signed(&key).unwrap();
    let alone = alone.der().clone();
    let mut nameless = params("x", "hub.example");
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    let name = &mut nameless.distinguished_name;
    name.push(DnType::OrganizationName, "Our Company");
    let nameless = nameless.self_signed(&key).unwrap().der().clone();
    let mut late = params("hub", "hub.example");
    late.not_before = date_time_ymd(2029, 1, 2);
    let mut early = params("hub", "hub.example");
    early.not_after = date_time_ymd(2025, 6, 7);

    use CertificateProblem as P;
    let cases = [
        (
            refusal(other.der(), &good),
            P::Untrusted,
            ["\"Our CA\"", "--ca-file"],
        ),
        (
            refusal(ours.der(), &alone),
            P::SelfSigned,
            ["self-signed", "--ca-file"],
        ),
        (
            refusal(ours.der(), &alone),
            P::SelfSigned,
            ["\"A hub\"", "`stream-hub serve`"],
        ),
        (
            refusal(ours.der(), &nameless),
            P::SelfSigned,
            ["of \"Our Company\"", "self-signed"],
        ),
        (
            refusal(ours.der(), other.der()),
            P::Authority,
            ["\"Other CA\"", "self-signed"],
        ),
        // A CA's certificate is not valid for a server, even if it is trusted.
        (
            refusal(ours.der(), ours.der()),
            P::Authority,
            ["--ca-file", "`stream-hub serve`"],
        ),
        (
            refusal(ours.der(), &signed(params("x", "other.example"))),
            P::WrongName,
            ["another host name (other.example)", "--hostname"],
        ),
        (
            refusal(ours.der(), &signed(late)),
            P::NotYetValid,
            ["2029-01-02", "clock"],
        ),
        (
            refusal(ours.der(), &signed(early)),
            P::Expired,
            ["2025-06-07", "2026-05-28"],
        ),
    ];
    for (bad, problem, parts) in cases {
        assert_eq!(bad.problem, problem, "{bad}");
        for part in parts {
            assert!(bad.to_string().contains(part), "{part} in {bad}");
        }
    }
    // A self-signed certificate that is not a CA's is valid if it is trusted itself.
    assert_eq!(refusal_at(&alone, &alone, 1_780_000_000), Ok(()));
}

#[test]
fn names_of_a_certificate_are_printable_and_limited() {
    let ours = authority("Our CA");
    let key = KeyPair::generate().unwrap();
    let name = format!("a\r\n\u{1b}[2J{}", "b".repeat(9_000));
    let shown = params(&name, "hub.example").self_signed(&key).unwrap();
    let text = refusal(ours.der(), shown.der()).to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 600, "{}", text.len());
}

#[test]
fn causes_without_a_certificate_are_explained_too() {
    let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
    let io = std::io::Error::new(std::io::ErrorKind::InvalidData, tls);
    let bad = BadCertificate::find(&io).unwrap();
    assert_eq!(bad.problem, CertificateProblem::Untrusted);
    assert!(
        bad.to_string()
            .contains("signed by no CA that is trusted here"),
        "{bad}"
    );
    let name = rustls::Error::InvalidCertificate(CertificateError::NotValidForName);
    let bad = BadCertificate::find(&name).unwrap();
    assert_eq!(bad.problem, CertificateProblem::WrongName);
    assert_eq!(BadCertificate::find(&std::io::Error::other("x")), None);
}
