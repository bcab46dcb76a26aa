//! Certificates of CAs that are made here, judged for identities.

use common::identity::{DeviceId, ModuleId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::OffsetDateTime;

use super::*;

mod revocation;
mod subjects;

/// All that is made here is valid for a day around this moment.
const NOW: u64 = 1_900_000_000;
const DAY: u64 = 86_400;

fn moment(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

/// A CA with its key.
struct Ca {
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn ca_params(name: &str, path_length: BasicConstraints) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(path_length);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(name: impl Into<DnValue>) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(NOW - DAY);
    params.not_after = moment(NOW + DAY);
    params
}

impl Ca {
    fn root(name: &str) -> Self {
        Self::root_of(ca_params(name, BasicConstraints::Unconstrained))
    }

    fn root_of(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self {
            der,
            issuer: Issuer::new(params, key),
        }
    }

    /// An intermediate CA below this one.
    fn below(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            der: signed.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    fn intermediate(&self, name: &str) -> Self {
        self.below(ca_params(name, BasicConstraints::Unconstrained))
    }

    /// A certificate by this CA.
    fn sign(&self, params: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }

    /// A device's.
    fn device(&self, name: &str) -> CertificateDer<'static> {
        self.sign(&params(name))
    }

    fn known(&self) -> KnownAuthority {
        KnownAuthority::to_register("fleet".to_owned(), self.der.clone(), NOW).unwrap()
    }
}

fn knowing(authorities: impl IntoIterator<Item = KnownAuthority>) -> DeviceAuthorities {
    DeviceAuthorities::of(authorities.into_iter().collect())
}

fn shown(certificates: &[&CertificateDer<'static>]) -> ClientChain {
    let all: Vec<_> = certificates.iter().map(|der| (*der).clone()).collect();
    ClientChain::new(&all).unwrap()
}

fn identity(text: &str) -> DeviceIdentity {
    match text.split_once('/') {
        None => DeviceIdentity::of_device(DeviceId::parse(text).unwrap()),
        Some((device, module)) => DeviceIdentity::of_module(
            DeviceId::parse(device).unwrap(),
            ModuleId::parse(module).unwrap(),
        ),
    }
}

use CertificateRefused as Refused;

#[test]
fn a_chain_to_a_registered_ca_opens_its_own_identity_and_no_other() {
    let root = Ca::root("fleet");
    let factory = root.intermediate("factory");
    let line = factory.intermediate("line 3");
    let known = knowing([root.known()]);
    for chain in [
        shown(&[&root.device("A")]),
        shown(&[&factory.device("A"), &factory.der]),
        shown(&[&line.device("A"), &line.der, &factory.der]),
        // In whichever order, and with the root.
        shown(&[&line.device("A"), &root.der, &factory.der, &line.der]),
    ] {
        assert_eq!(known.verify(&chain, &identity("A"), NOW), Ok(NOW + DAY + 1));
        for other in ["B", "a", "A.", "AA", "A/m"] {
            let error = known.verify(&chain, &identity(other), NOW).unwrap_err();
            assert_eq!(
                error,
                Refused::CommonName(CommonNameError::Other),
                "{other}"
            );
        }
    }
    let module = shown(&[&root.device("A/m")]);
    assert!(known.verify(&module, &identity("A/m"), NOW).is_ok());
    assert!(known.verify(&module, &identity("A"), NOW).is_err());
    // Without its intermediate CA, and with the wrong one.
    for chain in [
        shown(&[&line.device("A")]),
        shown(&[&line.device("A"), &line.der]),
        shown(&[&line.device("A"), &factory.der]),
    ] {
        let error = known.verify(&chain, &identity("A"), NOW).unwrap_err();
        assert_eq!(error, Refused::OtherAuthority);
    }
}

#[test]
fn what_no_registered_ca_has_signed_is_refused() {
    let (root, other) = (Ca::root("fleet"), Ca::root("fleet"));
    let a = identity("A");
    let chain = shown(&[&root.device("A")]);
    assert_eq!(
        DeviceAuthorities::default().verify(&chain, &a, NOW),
        Err(Refused::NoAuthority)
    );
    // Another CA of the same name; webpki tries its key.
    assert!(matches!(
        knowing([other.known()]).verify(&chain, &a, NOW),
        Err(Refused::Invalid(_))
    ));
    assert!(
        knowing([other.known(), root.known()])
            .verify(&chain, &a, NOW)
            .is_ok()
    );
    let own = KeyPair::generate().unwrap();
    let self_signed = params("A").self_signed(&own).unwrap();
    let error = knowing([root.known()]).verify(&shown(&[self_signed.der()]), &a, NOW);
    assert_eq!(error, Err(Refused::OtherAuthority));
    // A device's certificate signs nothing, though it has a key.
    let key = KeyPair::generate().unwrap();
    let leaf_params = params("A");
    let leaf = leaf_params
        .signed_by(&key, &root.issuer)
        .unwrap()
        .der()
        .clone();
    let leaf_as_ca = Issuer::new(leaf_params, key);
    let forged = KeyPair::generate().unwrap();
    let forged = params("B").signed_by(&forged, &leaf_as_ca).unwrap();
    let error = knowing([root.known()]).verify(&shown(&[forged.der(), &leaf]), &identity("B"), NOW);
    assert_eq!(
        error,
        Err(Refused::Invalid(webpki::Error::EndEntityUsedAsCa))
    );
}

#[test]
fn a_ca_is_used_within_what_its_own_certificate_says() {
    let a = identity("A");
    for (most, is_fit) in [(0, false), (1, true)] {
        let root = Ca::root_of(ca_params("fleet", BasicConstraints::Constrained(most)));
        let factory = root.intermediate("factory");
        let known = knowing([root.known()]);
        assert!(known.verify(&shown(&[&root.device("A")]), &a, NOW).is_ok());
        let through = known.verify(&shown(&[&factory.device("A"), &factory.der]), &a, NOW);
        assert_eq!(through.is_ok(), is_fit, "{most}: {through:?}");
    }
    // The limit of an intermediate CA.
    let root = Ca::root("fleet");
    let factory = root.below(ca_params("factory", BasicConstraints::Constrained(0)));
    let line = factory.intermediate("line 3");
    let known = knowing([root.known()]);
    let chain = shown(&[&line.device("A"), &line.der, &factory.der]);
    assert_eq!(
        known.verify(&chain, &a, NOW),
        Err(Refused::Invalid(webpki::Error::PathLenConstraintViolated))
    );
    // Names that it may sign.
    let mut params_of_root = ca_params("fleet", BasicConstraints::Unconstrained);
    params_of_root.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
        excluded_subtrees: Vec::new(),
    });
    let root = Ca::root_of(params_of_root);
    let known = knowing([root.known()]);
    let named = |name: &str| {
        let mut named = params("A");
        named.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().unwrap())];
        known.verify(&shown(&[&root.sign(&named)]), &a, NOW)
    };
    assert!(named("a.example.com").is_ok());
    assert_eq!(
        named("a.example.org"),
        Err(Refused::Invalid(webpki::Error::NameConstraintViolation))
    );
}

#[test]
fn what_is_no_ca_is_not_registered() {
    let root = Ca::root("fleet");
    let register = |der: &CertificateDer<'static>, now| {
        KnownAuthority::to_register("fleet".to_owned(), der.clone(), now).err()
    };
    assert_eq!(register(&root.der, NOW), None);
    assert_eq!(register(&root.intermediate("x").der, NOW), None);
    assert_eq!(
        register(&root.der, NOW + 2 * DAY),
        Some(AuthorityError::Expired)
    );
    assert_eq!(
        register(&root.device("A"), NOW),
        Some(AuthorityError::NotACa)
    );
    let key = KeyPair::generate().unwrap();
    let self_signed = params("A").self_signed(&key).unwrap();
    assert_eq!(
        register(self_signed.der(), NOW),
        Some(AuthorityError::NotACa)
    );
    let mut no_signer = ca_params("fleet", BasicConstraints::Unconstrained);
    no_signer.key_usages = vec![KeyUsagePurpose::CrlSign];
    let no_signer = no_signer.self_signed(&key).unwrap();
    assert_eq!(register(no_signer.der(), NOW), Some(AuthorityError::NotACa));
    let garbage = CertificateDer::from(b"garbage".to_vec());
    assert_eq!(
        register(&garbage, NOW),
        Some(AuthorityError::NotACertificate)
    );
}

#[test]
fn times_count() {
    let root = Ca::root("fleet");
    let known = knowing([root.known()]);
    let a = identity("A");
    let valid = |since, until| {
        let mut params = params("A");
        params.not_before = moment(since);
        params.not_after = moment(until);
        shown(&[&root.sign(&params)])
    };
    let judge = |chain: &ClientChain| known.verify(chain, &a, NOW);
    assert_eq!(judge(&valid(NOW - 9, NOW - 1)), Err(Refused::Expired));
    assert_eq!(judge(&valid(NOW + 1, NOW + 9)), Err(Refused::NotYetValid));
    // A session ends with the first certificate that does.
    assert_eq!(judge(&valid(NOW - 9, NOW + 9)), Ok(NOW + 10));
    assert_eq!(judge(&valid(NOW - 9, NOW + 2 * DAY)), Ok(NOW + DAY + 1));
    let mut short = ca_params("factory", BasicConstraints::Unconstrained);
    short.not_after = moment(NOW + 5);
    let factory = root.below(short);
    let chain = shown(&[&factory.device("A"), &factory.der]);
    assert_eq!(judge(&chain), Ok(NOW + 6));
    assert_eq!(known.verify(&chain, &a, NOW + 6), Err(Refused::Expired));
    // The CA's own time is over, that of the device is not.
    let long = valid(NOW - 9, NOW + 9 * DAY);
    assert_eq!(
        known.verify(&long, &a, NOW + 2 * DAY),
        Err(Refused::AuthorityNotValid("fleet".to_owned()))
    );
}

#[test]
fn a_servers_certificate_is_no_devices() {
    let root = Ca::root("fleet");
    let known = knowing([root.known()]);
    let mut usage = params("A");
    usage.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let judge = |params: &CertificateParams| {
        known.verify(&shown(&[&root.sign(params)]), &identity("A"), NOW)
    };
    assert!(judge(&usage).is_ok());
    usage.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(matches!(judge(&usage), Err(Refused::Invalid(_))));
}

#[test]
fn reasons_are_sentences() {
    for (error, part) in [
        (webpki::Error::CertRevoked, "revoked"),
        (webpki::Error::UnknownIssuer, "no registered CA"),
        (webpki::Error::BadDer, "is not valid"),
    ] {
        let text = Refused::from(error).to_string();
        assert!(text.contains(part), "{text}");
    }
}
