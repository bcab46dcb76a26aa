//! Identity tokens that are believed, and those that are not.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;

use super::super::ALGORITHMS;
use super::*;

const NOW: u64 = 1_800_000_000;

/// Two keys of the provider; the second signs.
static KEYS: LazyLock<[KeyPair; 2]> =
    LazyLock::new(|| [(); 2].map(|()| KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()));

fn jwk(key: &KeyPair, id: &str) -> Value {
    // Uncompressed: 04, x, y.
    let raw = key.public_key_raw();
    let coordinate = |range| URL_SAFE_NO_PAD.encode(&raw[range]);
    json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id,
        "x": coordinate(1..33), "y": coordinate(33..65),
    })
}

fn keys() -> JwkSet {
    let [old, new] = &*KEYS;
    serde_json::from_value(json!({ "keys": [jwk(old, "old"), jwk(new, "new")] })).unwrap()
}

fn settings() -> OidcSettings {
    OidcSettings {
        issuer: "https://id.example.com".to_owned(),
        client_id: "client".to_owned(),
        audience: "client".to_owned(),
        scopes: Vec::new(),
        name_claim: "email".to_owned(),
        groups_claim: "groups".to_owned(),
        algorithms: ALGORITHMS.to_vec(),
        ca_file: None,
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example.com", "aud": "client", "sub": "248289761001",
        "iat": NOW - 5, "exp": NOW + 300, "email": "ada@example.com", "groups": ["b", "a", "a"],
    })
}

fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn signed(header: &Header, claims: &Value) -> String {
    let key = EncodingKey::from_ec_der(&KEYS[1].serialize_der());
    jsonwebtoken::encode(header, claims, &key).unwrap()
}

fn header(kid: Option<&str>) -> Header {
    Header {
        kid: kid.map(str::to_owned),
        ..Header::new(Algorithm::ES256)
    }
}

/// As the library checks `exp` by the clock, `now` is the clock's here.
fn verified(token: &str, settings: &OidcSettings) -> Result<Login, IdentityError> {
    verify(token, &keys(), settings, common::clock::unix_now())
}

fn of(changes: &Value) -> Result<Login, IdentityError> {
    let now = common::clock::unix_now();
    let mut claims = with(changes);
    for name in ["iat", "exp", "nbf"] {
        if let Some(at) = claims.get(name).and_then(Value::as_u64) {
            claims[name] = (at + now - NOW).into();
        }
    }
    verified(&signed(&header(Some("new")), &claims), &settings())
}

#[test]
fn the_providers_word_is_believed() {
    let login = of(&json!({})).unwrap();
    let expected = Login {
        issuer: "https://id.example.com".to_owned(),
        subject: "248289761001".to_owned(),
        name: "ada@example.com".to_owned(),
        groups: vec!["a".to_owned(), "b".to_owned()],
    };
    assert_eq!(login, expected);
    for (changes, name, groups) in [
        (
            json!({ "aud": ["other", "client"], "azp": "client" }),
            "ada@example.com",
            2,
        ),
        (
            json!({ "email_verified": true, "groups": "one" }),
            "ada@example.com",
            1,
        ),
        // Anybody may write any address into a profile.
        (json!({ "email_verified": false }), "248289761001", 2),
        (json!({ "email_verified": "false" }), "248289761001", 2),
        (json!({ "email": null, "groups": null }), "248289761001", 0),
        (json!({ "email": "a\u{7}b" }), "248289761001", 2),
        (
            json!({ "groups": ["a", 1, "", "b\n"] }),
            "ada@example.com",
            1,
        ),
    ] {
        let login = of(&changes).unwrap();
        assert_eq!(
            (login.name.as_str(), login.groups.len()),
            (name, groups),
            "{changes}"
        );
    }
}

#[test]
fn groups_may_be_in_a_claim_of_a_claim() {
    let claims = json!({ "realm_access": { "roles": ["x"] }, "a.b": ["y"] });
    let claims = claims.as_object().unwrap();
    assert_eq!(groups(claims, "realm_access.roles").unwrap(), ["x"]);
    assert_eq!(groups(claims, "a.b").unwrap(), ["y"]);
    assert!(groups(claims, "realm_access.none").unwrap().is_empty());
    assert!(groups(claims, "").unwrap().is_empty());
}

#[test]
fn what_the_provider_did_not_say_to_us_now_is_not_believed() {
    for changes in [
        json!({ "iss": "https://evil.example.com" }),
        json!({ "iss": null }),
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "aud": ["client", "other"], "azp": "other" }),
        json!({ "exp": NOW - 1_000 }),
        json!({ "exp": null }),
        json!({ "nbf": NOW + 10_000 }),
        json!({ "iat": NOW - 10_000 }),
        json!({ "iat": NOW + 10_000 }),
        json!({ "iat": null }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "_claim_names": { "groups": "src1" } }),
        json!({ "groups": vec!["g"; 2_000] }),
    ] {
        assert!(of(&changes).is_err(), "{changes}");
    }
}

/// A token with this header and another signature.
fn forged(header: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = common::clock::unix_now();
    let claims = with(&json!({ "iat": now, "exp": now + 300 }));
    let signature = URL_SAFE_NO_PAD.encode(signature);
    format!("{}.{}.{signature}", part(header), part(&claims))
}

#[test]
fn keys_and_algorithms_are_the_providers() {
    let now = common::clock::unix_now();
    let claims = with(&json!({ "iat": now, "exp": now + 300 }));
    let token = |kid| signed(&header(kid), &claims);
    assert!(verified(&token(Some("new")), &settings()).is_ok());
    // Signed by the other one.
    assert!(verified(&token(Some("old")), &settings()).is_err());
    let unknown = Err(IdentityError::UnknownKey);
    assert_eq!(verified(&token(Some("next")), &settings()), unknown);
    // Two keys, and none is named.
    assert_eq!(verified(&token(None), &settings()), unknown);
    let only = OidcSettings {
        algorithms: vec![Algorithm::RS256],
        ..settings()
    };
    let algorithm = verified(&token(Some("new")), &only).unwrap_err();
    assert!(algorithm.to_string().contains("ES256"), "{algorithm}");
    for kind in ["none", "None", "HS256", "RS256", "ES384"] {
        let none = forged(&json!({ "alg": kind, "kid": "new" }), b"");
        assert!(verified(&none, &settings()).is_err(), "{kind}");
    }
    // The public key as the secret of a MAC.
    let text = jwk(&KEYS[1], "new").to_string();
    for secret in [
        KEYS[1].public_key_raw(),
        KEYS[1].public_key_pem().as_bytes(),
        text.as_bytes(),
    ] {
        let header = Header {
            kid: Some("new".to_owned()),
            ..Header::new(Algorithm::HS256)
        };
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret));
        assert!(verified(&token.unwrap(), &settings()).is_err());
    }
    for text in ["", "a.b.c", "a", "..", "ä.b.c"] {
        assert!(verified(text, &settings()).is_err(), "{text}");
    }
    // A key that is for something else.
    let mut other = jwk(&KEYS[1], "new");
    other["use"] = "enc".into();
    let set: JwkSet = serde_json::from_value(json!({ "keys": [other] })).unwrap();
    assert_eq!(verify(&token(Some("new")), &set, &settings(), now), unknown);
}
