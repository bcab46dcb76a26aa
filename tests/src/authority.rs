//! A CA of devices, with its files.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A CA; its files go when it is dropped.
pub struct TestAuthority {
    folder: TempDir,
    name: String,
    issuer: Issuer<'static, KeyPair>,
    /// PEM of the intermediate CAs from here to the root, this one included; none for a root.
    chain: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::HOUR;
    params.not_after = now + Duration::DAY;
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl TestAuthority {
    /// A root CA.
    pub fn root(name: &str) -> Self {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap().pem();
        Self::new(name, &certificate, Issuer::new(params, key), String::new())
    }

    /// An intermediate CA below this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        let chain = format!("{certificate}{}", self.chain);
        Self::new(name, &certificate, Issuer::new(params, key), chain)
    }

    fn new(name: &str, certificate: &str, issuer: Issuer<'static, KeyPair>, chain: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate).unwrap();
        Self {
            folder,
            name: name.to_owned(),
            issuer,
            chain,
        }
    }

    /// The operator's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its certificate.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A certificate with this common name, valid for so long; the arguments by which device-proxy
    /// takes it.
    pub fn arguments(&self, common_name: &str, serial: u64, valid: Duration) -> [String; 4] {
        let mut params = params(common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = OffsetDateTime::now_utc() + valid;
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, &self.issuer).unwrap().pem();
        let path = |name: &str| self.folder.path().join(format!("{serial}-{name}.pem"));
        let (certificate, key_file) = (path("cert"), path("key"));
        std::fs::write(&certificate, format!("{own}{}", self.chain)).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            "--cert".to_owned(),
            text(certificate),
            "--key".to_owned(),
            text(key_file),
        ]
    }

    /// PEM of a list that revokes these serial numbers.
    pub fn revoking(&self, serials: &[u64]) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::HOUR,
            next_update: now + Duration::DAY,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}
