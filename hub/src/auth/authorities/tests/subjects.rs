//! Whose a certificate is: one common name, byte for byte.

use super::*;

fn check(params: &CertificateParams, id: &str) -> Result<(), CommonNameError> {
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    common_name::check(certificate.der(), &identity(id))
}

#[test]
fn encodings_are_those_of_ascii() {
    let printable = DnValue::PrintableString("A".try_into().unwrap());
    let ia5 = DnValue::Ia5String("A".try_into().unwrap());
    for fit in [DnValue::from("A"), printable, ia5] {
        assert_eq!(check(&params(fit), "A"), Ok(()));
    }
    let bmp = DnValue::BmpString("A".try_into().unwrap());
    let teletex = DnValue::TeletexString("A".try_into().unwrap());
    let universal = DnValue::UniversalString("A".try_into().unwrap());
    for unfit in [bmp, teletex, universal] {
        assert_eq!(check(&params(unfit), "A"), Err(CommonNameError::None));
    }
}

#[test]
fn nothing_stands_beside_the_id() {
    for name in [
        "A\0",
        "A\0.B",
        "\0A",
        " A",
        "A ",
        "a",
        "CN=A",
        "A/",
        "A,B",
        "Ａ",
        "А",
        "A\u{200b}",
        "",
    ] {
        let error = check(&params(name), "A").unwrap_err();
        assert_eq!(error, CommonNameError::Other, "{name:?}");
    }
    // IDs may have these.
    for name in ["A+B", "A,CN=B", "a.b:c@d", "*", "A=B"] {
        assert_eq!(check(&params(name), name), Ok(()), "{name:?}");
        assert_eq!(check(&params(name), "A"), Err(CommonNameError::Other));
    }
    // `*` is an id, and no wildcard.
    assert_eq!(check(&params("*"), "A"), Err(CommonNameError::Other));
}

#[test]
fn only_the_common_name_counts_and_there_is_one() {
    let mut elsewhere = params("B");
    elsewhere.subject_alt_names = vec![rcgen::SanType::DnsName("A".try_into().unwrap())];
    let names = &mut elsewhere.distinguished_name;
    names.push(DnType::OrganizationName, "A");
    assert_eq!(check(&elsewhere, "A"), Err(CommonNameError::Other));
    elsewhere.distinguished_name.remove(DnType::CommonName);
    assert_eq!(check(&elsewhere, "A"), Err(CommonNameError::None));

    let mut twice = params("A");
    let common_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
    twice.distinguished_name.push(common_name.clone(), "B");
    for id in ["A", "B"] {
        assert_eq!(check(&twice, id), Err(CommonNameError::Several));
    }
    let mut same = params("A");
    same.distinguished_name.push(common_name, "A");
    assert_eq!(check(&same, "A"), Err(CommonNameError::Several));
}

#[test]
fn parts_with_several_attributes_are_read() {
    let read = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    // CN=A + CN=B
    let two = read(include_str!("two-in-one.pem"));
    for id in ["A", "B"] {
        let error = common_name::check(&two, &identity(id));
        assert_eq!(error, Err(CommonNameError::Several));
    }
    // OU=y + CN=A
    let beside = read(include_str!("beside.pem"));
    assert_eq!(common_name::check(&beside, &identity("A")), Ok(()));
    let error = common_name::check(&beside, &identity("y"));
    assert_eq!(error, Err(CommonNameError::Other));
}

#[test]
fn what_is_no_certificate_is_nobodys() {
    let whole = Ca::root("A").der;
    for bytes in [
        &b""[..],
        b"0",
        &whole[..whole.len() - 1],
        &[&whole[..], b"x"].concat(),
    ] {
        let der = CertificateDer::from(bytes.to_vec());
        let error = common_name::check(&der, &identity("A"));
        assert_eq!(error, Err(CommonNameError::None));
    }
}
