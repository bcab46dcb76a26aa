//! Who somebody is, by an identity token and the keys of its provider, and what the access file
//! allows to them; and the bearer tokens of legs.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::identity::{DeviceId, DeviceIdentity, Leg, StreamId};
use common::outside::is_unprintable;
use common::secret::SharedKey;
use hub::access::{Decision, Rules, Wanted, Who};
use hub::auth::StreamTokens;
use hub::oidc::{Algorithm, AnyKeys, OidcSettings, verify};
use serde_json::json;
use time::OffsetDateTime;

/// When the tokens are judged, Unix seconds.
const NOW: u64 = 1_900_000_000;
const ISSUER: &str = "https://id.example";
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Takes lines: a token, or the header of one; its claims, which are signed; the provider's keys, or
/// nothing; a pattern of the access file; the id of a device; an access file.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.splitn(6, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (first, claims, keys) = (next(), next(), next());
    bearer(first);
    identify(first, claims, keys);
    let (pattern, device) = (next(), next());
    patterns(pattern, device);
    file(next(), device);
}

/// Nothing that was not minted here opens a leg.
fn bearer(text: &str) {
    thread_local! {
        static TOKENS: StreamTokens = StreamTokens::new("hub.example.net");
    }
    let stream = StreamId::parse(&format!("{:032x}", 7)).expect("an id");
    TOKENS.with(|tokens| {
        for header in [text.to_owned(), format!("Bearer {text}")] {
            for leg in [Leg::Device, Leg::Service] {
                assert!(
                    tokens.check(Some(&header), stream, leg).is_err(),
                    "{header}"
                );
            }
        }
    });
}

fn settings(groups: &str) -> OidcSettings {
    OidcSettings {
        issuer: ISSUER.to_owned(),
        client_id: "c".to_owned(),
        audience: "c".to_owned(),
        scopes: Vec::new(),
        name_claim: "email".to_owned(),
        groups_claim: groups.to_owned(),
        // The provider's key is one whose other half is here, so that claims can be signed.
        algorithms: vec![Algorithm::HS256, Algorithm::EdDSA, Algorithm::RS256],
        ca_file: None,
    }
}

fn identify(first: &str, claims: &str, keys: &str) {
    let key = SharedKey::parse(KEY).expect("a key");
    let secret = KEY.replace('+', "-").replace('/', "_");
    let own = json!({"keys": [{
        "kty": "oct", "kid": "k", "alg": "HS256", "k": secret.trim_end_matches('='),
    }]});
    let own: AnyKeys = serde_json::from_value(own).expect("keys");
    let own = own.known();
    assert_eq!(own.keys.len(), 1);
    let shown = serde_json::from_str::<AnyKeys>(keys).map(AnyKeys::known);
    let is_signed = first.starts_with('{');
    let token = if is_signed {
        let [header, claims] = [first, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        let content = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(key.sign(content.as_bytes()));
        format!("{content}.{signature}")
    } else {
        first.to_owned()
    };
    for groups in ["groups", "realm_access.roles"] {
        let settings = settings(groups);
        let by_own = verify(&token, &own, &settings, NOW);
        // A later time makes no token valid.
        if by_own.is_ok() {
            assert!(verify(&token, &own, &settings, NOW + 86_400).is_err());
        }
        let by_shown = shown
            .as_ref()
            .ok()
            .map(|keys| verify(&token, keys, &settings, NOW));
        for login in [Some(by_own), by_shown].into_iter().flatten() {
            match login {
                Ok(login) => {
                    assert_eq!(login.issuer, ISSUER);
                    let names = [&login.subject, &login.name];
                    for name in names.into_iter().chain(&login.groups) {
                        assert!((1..=200).contains(&name.len()), "{name}");
                        assert!(!name.chars().any(is_unprintable), "{name:?}");
                    }
                    assert!(login.groups.is_sorted() && login.groups.len() <= 1_000);
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.len() < 2_000, "{text}");
                }
            }
        }
    }
}

/// A pattern allows the devices that it stands for, as told by a matcher that tries everything.
fn patterns(pattern: &str, device: &str) {
    let Ok(device) = DeviceId::parse(device) else {
        return;
    };
    if pattern.len() > 64 || device.as_str().len() > 64 {
        return;
    }
    if pattern.chars().any(char::is_control) {
        return;
    }
    // A text of JSON is one of TOML.
    let quoted = json!(pattern);
    let text = format!("[[allow]]\npolicies = ['p']\ndevices = [{quoted}]\ntargets = ['*']\n");
    let rules = Rules::parse(Path::new("access.toml"), &text).expect("rules");
    let decision = decide(&rules, Who::Policy("p"), &device);
    let expected = stands_for(pattern.as_bytes(), device.as_str().as_bytes());
    assert_eq!(decision == Decision::Allowed, expected);
    assert_ne!(decide(&rules, Who::Policy("q"), &device), Decision::Allowed);
}

fn decide(rules: &Rules, who: Who<'_>, device: &DeviceId) -> Decision {
    let identity = DeviceIdentity::of_device(device.clone());
    let twin = json!({"deviceId": device.as_str(), "tags": {"site": "a", "floor": 3}});
    let now = i64::try_from(NOW).expect("a time");
    let wanted = Wanted {
        identity: &identity,
        target: Some("ssh"),
        device: &twin,
        now: OffsetDateTime::from_unix_timestamp(now).expect("a time"),
    };
    rules.decide(who, &wanted)
}

/// Whether a pattern with stars stands for a name: for each part of both, whether the rest fits.
fn stands_for(pattern: &[u8], name: &[u8]) -> bool {
    let mut fits = vec![false; name.len() + 1];
    fits[name.len()] = true;
    for byte in pattern.iter().rev() {
        let before = fits.clone();
        for at in (0..=name.len()).rev() {
            fits[at] = match byte {
                b'*' => before[at] || at < name.len() && fits[at + 1],
                byte => name.get(at) == Some(byte) && before[at + 1],
            };
        }
    }
    fits[0]
}

/// A whole file: each rule has a name to be found by, and who is in none is allowed nothing.
fn file(text: &str, device: &str) {
    let Ok(rules) = Rules::parse(Path::new("access.toml"), text) else {
        return;
    };
    let Ok(device) = DeviceId::parse(device) else {
        return;
    };
    let groups = ["operators".to_owned()];
    for who in [
        Who::Policy("p"),
        Who::Person {
            name: "ada@example.com",
            groups: &groups,
        },
    ] {
        if decide(&rules, who, &device) == Decision::Allowed {
            assert!(rules.knows(who));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus() {
        crate::corpus::play("people", super::run);
    }
}
