//! Revocation lists, in files that change.

use super::*;
use crate::events::Events;

/// A list by this CA that revokes these serial numbers.
fn list(ca: &Ca, serials: &[u64]) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: moment(NOW - DAY),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: moment(NOW - DAY),
        next_update: moment(NOW + DAY),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&ca.issuer).unwrap().pem().unwrap()
}

fn numbered(ca: &Ca, serial: u64) -> CertificateDer<'static> {
    let mut params = params("A");
    params.serial_number = Some(SerialNumber::from(serial));
    ca.sign(&params)
}

fn with_crl(ca: &Ca, file: &std::path::Path, earlier: Option<&KnownAuthority>) -> KnownAuthority {
    let authority = Authority {
        crl_file: Some(file.to_owned()),
        ..ca.known().authority().clone()
    };
    KnownAuthority::load(authority, earlier, &Events::default()).unwrap()
}

#[test]
fn what_is_revoked_is_refused_from_the_next_look_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crl.pem");
    let root = Ca::root("fleet");
    let (one, two) = (shown(&[&numbered(&root, 1)]), shown(&[&numbered(&root, 2)]));
    let a = identity("A");
    std::fs::write(&file, list(&root, &[1])).unwrap();
    let first = with_crl(&root, &file, None);
    let known = knowing([first.clone()]);
    assert_eq!(known.verify(&one, &a, NOW), Err(Refused::Revoked));
    assert!(known.verify(&two, &a, NOW).is_ok());
    // The same file is not read again.
    assert!(with_crl(&root, &file, Some(&first)) == first);

    std::fs::write(&file, list(&root, &[1, 2])).unwrap();
    let second = with_crl(&root, &file, Some(&first));
    assert!(second != first);
    assert_eq!(
        knowing([second.clone()]).verify(&two, &a, NOW),
        Err(Refused::Revoked)
    );

    // What cannot be read, or is not there, leaves the last list in force.
    std::fs::write(&file, "-----BEGIN X509 CRL-----\nhalf").unwrap();
    let third = with_crl(&root, &file, Some(&second));
    assert!(third == second);
    std::fs::remove_file(&file).unwrap();
    let fourth = with_crl(&root, &file, Some(&third));
    let known = knowing([fourth]);
    assert_eq!(known.verify(&two, &a, NOW), Err(Refused::Revoked));
    assert!(
        known
            .verify(&shown(&[&numbered(&root, 3)]), &a, NOW)
            .is_ok()
    );

    // A list whose time is over still counts.
    assert_eq!(known.verify(&one, &a, NOW + DAY / 2), Err(Refused::Revoked));
}

#[test]
fn without_a_list_that_can_be_read_nothing_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crl.pem");
    let root = Ca::root("fleet");
    let chain = shown(&[&root.device("A")]);
    let refused = Err(Refused::NoCrl("fleet".to_owned()));
    let judge = |known| knowing([known]).verify(&chain, &identity("A"), NOW);
    assert_eq!(judge(with_crl(&root, &file, None)), refused);
    // Another CA's list, also one of the same name, whose key shows.
    std::fs::write(&file, list(&Ca::root("other"), &[])).unwrap();
    assert_eq!(judge(with_crl(&root, &file, None)), refused);
    std::fs::write(&file, list(&Ca::root("fleet"), &[])).unwrap();
    let forged = judge(with_crl(&root, &file, None));
    assert_eq!(
        forged,
        Err(Refused::Invalid(
            webpki::Error::InvalidCrlSignatureForPublicKey
        ))
    );
    std::fs::write(&file, list(&root, &[])).unwrap();
    assert!(judge(with_crl(&root, &file, None)).is_ok());
}

#[test]
fn every_ca_of_a_chain_needs_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crl.pem");
    let root = Ca::root("fleet");
    let mut numbered_ca = ca_params("factory", BasicConstraints::Unconstrained);
    numbered_ca.serial_number = Some(SerialNumber::from(7));
    let factory = root.below(numbered_ca);
    let chain = shown(&[&factory.device("A"), &factory.der]);
    let judge = |lists: &[String]| {
        std::fs::write(&file, lists.concat()).unwrap();
        knowing([with_crl(&root, &file, None)]).verify(&chain, &identity("A"), NOW)
    };
    assert_eq!(judge(&[list(&root, &[])]), Err(Refused::NoCrlOfIssuer));
    assert!(judge(&[list(&factory, &[]), list(&root, &[])]).is_ok());
    let factory_revoked = [list(&factory, &[]), list(&root, &[7])];
    assert_eq!(judge(&factory_revoked), Err(Refused::Revoked));
}

#[test]
fn files_that_are_no_lists_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("crl");
    let root = Ca::root("fleet");
    let known = root.known();
    let read = |content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        Crls::read(&file, known.subject()).map(|crls| crls.next_update())
    };
    let good = list(&root, &[1]);
    assert_eq!(read(good.as_bytes()).unwrap(), Some(NOW + DAY));
    // In DER, too.
    let der = rustls::pki_types::CertificateRevocationListDer::from_pem_slice(good.as_bytes());
    assert!(read(&der.unwrap()).is_ok());
    for (content, words) in [
        (&b""[..], "no revocation list"),
        (b"0", "no revocation list"),
        (&good.as_bytes()[..good.len() / 2], "no revocation list"),
        // By `openssl ca` without a crlnumber in its configuration.
        (include_bytes!("version1-crl.pem"), "version 1"),
    ] {
        let error = read(content).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(
        Crls::read(&file, known.subject()),
        Err(CrlError::Io(_))
    ));
}
