//! SAS tokens, minted and verified (`docs/protocol.md`, "SAS tokens and policies"). The time is an
//! argument.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use crate::hub_address::HubAddress;
use crate::percent::{COMPONENT, pairs};
use crate::secret::{Secret, SharedKey};

/// The scheme word in front of every SAS token.
const SCHEME: &str = "SharedAccessSignature";

/// Mints a token for a resource, `host[/devices/d[/modules/m]]`, that expires at `expiry` (Unix
/// seconds). With a policy's key, name the policy.
pub fn mint(resource: &str, key: &SharedKey, policy: Option<&str>, expiry: u64) -> Secret {
    let sr = utf8_percent_encode(resource, COMPONENT).to_string();
    let signature = STANDARD.encode(key.sign(format!("{sr}\n{expiry}").as_bytes()));
    let sig = utf8_percent_encode(&signature, COMPONENT);
    let mut token = format!("{SCHEME} sr={sr}&sig={sig}&se={expiry}");
    if let Some(policy) = policy {
        token.push_str("&skn=");
        token.extend(utf8_percent_encode(policy, COMPONENT));
    }
    Secret::new(token)
}

/// Whether a text is meant to be a SAS token, and nothing that contains one.
pub fn is_one(text: &str) -> bool {
    text.strip_prefix(SCHEME)
        .is_some_and(|rest| rest.starts_with(' '))
}

/// Why a text is not a SAS token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SasTokenError {
    /// The word `SharedAccessSignature` and one blank are missing.
    #[error("the token does not begin with `SharedAccessSignature `")]
    Scheme,
    /// `sr`, `sig` or `se` is missing.
    #[error("the token has no `{0}`")]
    Missing(&'static str),
    /// A known field occurs twice.
    #[error("the token has `{0}` twice")]
    Repeated(&'static str),
    /// `se` is no decimal number.
    #[error("`se` is not a number of seconds")]
    BadExpiry,
    /// `sig` is not base64.
    #[error("`sig` is not base64")]
    BadSignature,
    /// `sr` is not text after decoding.
    #[error("`sr` is not a resource")]
    BadResource,
}

/// A SAS token that is parsed but not verified.
#[derive(Clone)]
pub struct SasToken {
    /// `sr` exactly as written: the signature covers this text.
    raw_resource: String,
    resource: String,
    signature: Vec<u8>,
    /// `se` exactly as written, for the signature.
    raw_expiry: String,
    expiry: u64,
    policy: Option<String>,
}

impl SasToken {
    /// Parses a token: in any order of fields, and in any encoding that SDKs write. Unknown fields
    /// are ignored, repeated known ones refused.
    ///
    /// # Errors
    /// [`SasTokenError`] names the invalid part and repeats nothing of it.
    pub fn parse(text: &str) -> Result<Self, SasTokenError> {
        let fields = text
            .strip_prefix(SCHEME)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or(SasTokenError::Scheme)?;
        let (mut sr, mut sig, mut se, mut skn) = (None, None, None, None);
        for (name, value) in pairs(fields) {
            let (slot, name) = match name {
                "sr" => (&mut sr, "sr"),
                "sig" => (&mut sig, "sig"),
                "se" => (&mut se, "se"),
                "skn" => (&mut skn, "skn"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(SasTokenError::Repeated(name));
            }
        }
        let raw_resource = sr.ok_or(SasTokenError::Missing("sr"))?;
        let signature = sig.ok_or(SasTokenError::Missing("sig"))?;
        let raw_expiry = se.ok_or(SasTokenError::Missing("se"))?;
        // `+` stays `+`: percent-decoding, not form-decoding.
        let signature = STANDARD
            .decode(percent_decode_str(signature).collect::<Vec<u8>>())
            .map_err(|_| SasTokenError::BadSignature)?;
        Ok(Self {
            resource: decode(raw_resource).ok_or(SasTokenError::BadResource)?,
            raw_resource: raw_resource.to_owned(),
            signature,
            expiry: raw_expiry.parse().map_err(|_| SasTokenError::BadExpiry)?,
            raw_expiry: raw_expiry.to_owned(),
            // An empty policy name is no policy name: IoT Hub's own samples write `skn=`.
            policy: skn
                .filter(|name| !name.is_empty())
                .map(|name| decode(name).ok_or(SasTokenError::BadResource))
                .transpose()?,
        })
    }

    /// When the token expires, Unix seconds.
    pub fn expiry(&self) -> u64 {
        self.expiry
    }

    /// The shared access policy whose key signed it; `None` for a device's own key.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Whether this key made the signature, in constant time.
    pub fn is_signed_by(&self, key: &SharedKey) -> bool {
        let message = format!("{}\n{}", self.raw_resource, self.raw_expiry);
        key.verify(message.as_bytes(), &self.signature)
    }

    /// Whether the token's resource is `path` on this hub, or a prefix of it that ends at a segment
    /// boundary. The host is compared without case and port, the rest with case.
    pub fn covers(&self, hub: &HubAddress, path: &str) -> bool {
        self.scope(hub).is_some_and(|scope| {
            scope.is_empty()
                || path
                    .strip_prefix(scope)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Whether the token's resource is exactly `path` on this hub, compared as
    /// [`SasToken::covers`] does.
    pub fn is_for(&self, hub: &HubAddress, path: &str) -> bool {
        self.scope(hub) == Some(path)
    }

    /// The hub that it is for, as it is written.
    pub fn host(&self) -> &str {
        self.parts().0
    }

    /// What it is for at its hub: a path without slashes at its ends; empty for the whole hub.
    pub fn path(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        match self.resource.split_once('/') {
            Some((host, scope)) => (host, scope.trim_end_matches('/')),
            None => (self.resource.as_str(), ""),
        }
    }

    /// The part after the host, if the host is this hub.
    fn scope(&self, hub: &HubAddress) -> Option<&str> {
        let (host, scope) = self.parts();
        hub.is_named_by(host).then_some(scope)
    }

    /// Whether the token names only the host.
    pub fn names_only_host(&self) -> bool {
        self.resource
            .split_once('/')
            .is_none_or(|(_, rest)| rest.trim_matches('/').is_empty())
    }
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("resource", &self.resource)
            .field("expiry", &self.expiry)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn k1() -> SharedKey {
        SharedKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
    }
    fn k2() -> SharedKey {
        SharedKey::parse("ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=").unwrap()
    }
    fn hub() -> HubAddress {
        HubAddress::parse("myhub.example.net").unwrap()
    }
    fn d1() -> String {
        "SharedAccessSignature sr=myhub.example.net%2Fdevices%2Fdev1&sig=iEz%2BpVtRRmsTwr%2BfMAu%2Fgz7zIj315whyJQtnZmdQ3Ao%3D&se=1700000003".into()
    }
    const D2: &str = "SharedAccessSignature sr=myhub.example.net/devices/dev1&sig=HBdgd7QYkadELUSlu7TMFEoLvKVqbGaP4folP4H9wx8%3d&se=1700000003";
    const D3: &str = "SharedAccessSignature sig=4U%2fZNBHz0vTdbjsBvWPKUiRq74sjA5xM4gY9gT5%2bzYs%3d&se=1700000003&sr=myhub.example.net%2fdevices%2fdev1";
    const D4: &str = "SharedAccessSignature sr=myhub.example.net%2Fdevices%2Fdev1%2Fmodules%2Fmod1&sig=gaNLnhKQk7ycOyZtnBsYJ4d1SDanUf7lLIRf5Q45940%3D&se=1700000003";
    const D5: &str = "SharedAccessSignature sr=myhub.example.net%2Fdevices%2Fa%2Bb%40c%25d&sig=xnw6ZprLeH7XBKx1Mm6P6GthZ8dMCaxPYF3VdwQB9Nk%3D&se=1700000003";
    const S1: [&str; 3] = [
        "SharedAccessSignature sr=myhub.example.net&sig=SnfvaV%2B9G%2BalslnYj5DzlPWG2G%2Bdvy%2F9ZE5%2FBkxJ4to%3D&skn=service&se=1700000002",
        "SharedAccessSignature sr=myhub.example.net&sig=SnfvaV%2B9G%2BalslnYj5DzlPWG2G%2Bdvy%2F9ZE5%2FBkxJ4to%3D&se=1700000002&skn=service",
        "SharedAccessSignature sr=myhub.example.net&sig=SnfvaV%2B9G%2BalslnYj5DzlPWG2G%2Bdvy/9ZE5/BkxJ4to%3D&se=1700000002&skn=service",
    ];

    #[test]
    fn a_token_is_for_its_resource_and_nothing_below_or_beside() {
        let token = |resource: &str| {
            let text = mint(resource, &k1(), None, 1);
            SasToken::parse(text.expose()).unwrap()
        };
        let is_for = |resource: &str| token(resource).is_for(&hub(), "devices/dev");
        assert!(is_for("myhub.example.net/devices/dev"));
        assert!(is_for("MyHub.Example.net/devices/dev/"));
        for other in [
            "myhub.example.net",
            "myhub.example.net/devices",
            "myhub.example.net/devices/de",
            "myhub.example.net/devices/dev2",
            "myhub.example.net/devices/Dev",
            "myhub.example.net/devices/dev/modules/m",
            "myhub.example.net/devices/dev%2Fmodules",
            "myhub.example.net//devices/dev",
            "other.example.net/devices/dev",
            "/devices/dev",
        ] {
            assert!(!is_for(other), "{other}");
        }
    }

    #[test]
    fn tokens_of_all_sdks_for_the_same_device_are_accepted() {
        for text in [d1().as_str(), D2, D3] {
            let token = SasToken::parse(text).unwrap();
            assert!(token.is_signed_by(&k1()), "{text}");
            assert!(!token.is_signed_by(&k2()), "{text}");
            assert!(token.covers(&hub(), "devices/dev1"));
            assert!(token.covers(&hub(), "devices/dev1/modules/m"));
            assert!(!token.covers(&hub(), "devices/dev10"), "segment boundary");
            assert!(!token.covers(&hub(), "devices/DEV1"), "ids have case");
            assert_eq!((token.expiry(), token.policy()), (1_700_000_003, None));
        }
    }

    #[test]
    fn modules_and_odd_ids() {
        let module = SasToken::parse(D4).unwrap();
        assert!(module.is_signed_by(&k1()));
        assert!(module.covers(&hub(), "devices/dev1/modules/mod1"));
        assert!(!module.covers(&hub(), "devices/dev1"));
        let odd = SasToken::parse(D5).unwrap();
        assert!(odd.is_signed_by(&k1()));
        assert!(odd.covers(&hub(), "devices/a+b@c%d"));
    }

    #[test]
    fn service_tokens_of_three_sdks() {
        for text in S1 {
            let token = SasToken::parse(text).unwrap();
            assert!(token.is_signed_by(&k2()), "{text}");
            assert_eq!(token.policy(), Some("service"));
            assert!(token.names_only_host());
            assert!(token.covers(&hub(), "devices/any"));
        }
    }

    #[test]
    fn forged_tokens_are_refused() {
        let later = d1().replace("1700000003", "1800000003");
        let other = d1().replace("dev1", "dev2");
        let rewritten = d1().replace("%2F", "/");
        for text in [later, other, rewritten] {
            assert!(
                !SasToken::parse(&text).unwrap().is_signed_by(&k1()),
                "{text}"
            );
        }
    }

    #[test]
    fn minting_gives_the_test_vectors() {
        let token = mint("myhub.example.net/devices/dev1", &k1(), None, 1_700_000_003);
        assert_eq!(token.expose(), d1());
        let service = mint("myhub.example.net", &k2(), Some("service"), 1_700_000_002);
        assert_eq!(service.expose(), S1[1]);
        let odd = mint(
            "myhub.example.net/devices/a+b@c%d",
            &k1(),
            None,
            1_700_000_003,
        );
        assert_eq!(odd.expose(), D5);
    }

    #[test]
    fn hosts_match_without_case_or_port() {
        let hub = HubAddress::parse("localhost:8443").unwrap();
        for resource in ["localhost", "LOCALHOST:8443", "localhost:1"] {
            let token = mint(&format!("{resource}/devices/d"), &k1(), None, 1);
            assert!(
                SasToken::parse(token.expose())
                    .unwrap()
                    .covers(&hub, "devices/d")
            );
        }
    }

    #[test]
    fn malformed_tokens_say_why() {
        use SasTokenError as E;
        let error = |text: &str| SasToken::parse(text).unwrap_err();
        assert_eq!(error("Bearer x"), E::Scheme);
        assert_eq!(error("SharedAccessSignature sr=h&se=1"), E::Missing("sig"));
        assert_eq!(
            error("SharedAccessSignature sr=h&sr=h&sig=AA==&se=1"),
            E::Repeated("sr")
        );
        assert_eq!(
            error("SharedAccessSignature sr=h&sig=AA==&se=x"),
            E::BadExpiry
        );
        assert_eq!(
            error("SharedAccessSignature sr=h&sig=!&se=1"),
            E::BadSignature
        );
    }

    #[test]
    fn debug_hides_the_signature() {
        let shown = format!("{:?}", SasToken::parse(&d1()).unwrap());
        assert!(!shown.contains("iEz"), "{shown}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = SasToken::parse(&text);
            let _ = SasToken::parse(&format!("SharedAccessSignature {text}"));
        }

        #[test]
        fn minted_tokens_verify(id in "[A-Za-z0-9+%@:=_.-]{1,40}", expiry in any::<u64>()) {
            let token = mint(&format!("myhub.example.net/devices/{id}"), &k1(), None, expiry);
            let parsed = SasToken::parse(token.expose()).unwrap();
            prop_assert!(parsed.is_signed_by(&k1()));
            let path = format!("devices/{id}");
            prop_assert!(parsed.covers(&hub(), &path));
            prop_assert_eq!(parsed.expiry(), expiry);
        }
    }
}
