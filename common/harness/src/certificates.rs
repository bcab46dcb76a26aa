//! Certificates and revocation lists: what devices show to the hub, what an operator registers as a
//! CA, and what servers show to the proxies.

use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::outside::is_unprintable;
use common::tls::links;
use hub::auth::{ClientChain, Crls, DeviceAuthorities, KnownAuthority};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A CA, and the certificate of the device `d` by it, which are valid until 2126; and a revocation
/// list of the CA, which is empty.
const AUTHORITY: &[u8] = include_bytes!("../testdata/ca.pem");
const DEVICE: &[u8] = include_bytes!("../testdata/device.pem");
/// While both are valid, Unix seconds.
const NOW: u64 = 1_900_000_000;

/// Certificates of one input.
const CERTIFICATES: usize = 4;

/// Takes DER, of several certificates with two bytes before each that give its length, and as a
/// whole.
pub fn run(input: &[u8]) {
    let (authority, device) = (certificate(AUTHORITY), certificate(DEVICE));
    let known = KnownAuthority::to_register("ca".to_owned(), authority.clone(), NOW);
    let known = known.expect("a CA");
    revocation_lists(input, &known);
    let mut shown = pieces(input);
    shown.push(CertificateDer::from(input.to_vec()));
    for link in links(&shown) {
        let names = [&link.subject, &link.issuer];
        let all = names.into_iter().chain(&link.organisations);
        for text in all {
            assert!(!text.chars().any(is_unprintable), "{text:?}");
        }
    }
    // Only the device's own certificate is believed, whatever comes with it.
    let by_known = DeviceAuthorities::of(vec![known]);
    for first in 0..shown.len() {
        let own = &shown[first];
        let chain = ClientChain::new(&shown[first..]).expect("a certificate");
        let is_believed = by_known.verify(&chain, &identity(None), NOW).is_ok();
        assert_eq!(is_believed, *own == device);
        assert!(by_known.verify(&chain, &identity(Some("m")), NOW).is_err());
        let _ = chain.fingerprints();
    }
    let mut with_others = vec![device];
    with_others.extend(shown.iter().cloned());
    let chain = ClientChain::new(&with_others).expect("a certificate");
    let until = by_known.verify(&chain, &identity(None), NOW);
    assert!(until.expect("it is the device's") > NOW);
    // A CA of any kind believes only what it has signed.
    for der in shown {
        let is_own = der == authority;
        if let Ok(other) = KnownAuthority::to_register("other".to_owned(), der, NOW) {
            assert!(other.until() >= NOW);
            let _ = other.subject_text();
            let believes = DeviceAuthorities::of(vec![other]).verify(&chain, &identity(None), NOW);
            assert!(is_own || believes.is_err() || has_key_of(&authority, input));
        }
    }
}

/// Whether an input holds the CA's public key, under whatever name.
fn has_key_of(authority: &CertificateDer<'_>, input: &[u8]) -> bool {
    // An Ed25519 key is 32 bytes behind its algorithm.
    let algorithm = [0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let place = authority.windows(8).position(|part| part == algorithm);
    let start = place.expect("an Ed25519 key") + 8;
    let key = &authority[start..start + 32];
    input.windows(32).any(|part| part == key)
}

fn revocation_lists(input: &[u8], known: &KnownAuthority) {
    if let Ok(lists) = Crls::of(input, known.subject()) {
        let _ = lists.next_update();
    }
}

fn pieces(input: &[u8]) -> Vec<CertificateDer<'static>> {
    let (mut rest, mut found) = (input, Vec::new());
    while found.len() < CERTIFICATES
        && let Some((length, bytes)) = rest.split_first_chunk::<2>()
    {
        let length = usize::from(u16::from_be_bytes(*length)).min(bytes.len());
        let (der, behind) = bytes.split_at(length);
        found.push(CertificateDer::from(der.to_vec()));
        rest = behind;
    }
    found
}

fn certificate(pem: &[u8]) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem).expect("a certificate")
}

fn identity(module: Option<&str>) -> DeviceIdentity {
    DeviceIdentity {
        device: DeviceId::parse("d").expect("an id"),
        module: module.map(|module| ModuleId::parse(module).expect("an id")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus() {
        crate::corpus::play("certificates", super::run);
    }
}
