//! What clients write, good and bad.

use super::*;
use crate::documents::id;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn parse(text: &str) -> Result<IdentitySettings, Refusal> {
    Draft::read(text.as_bytes())?.settings(&id("d", Some("m")).unwrap())
}

fn code(text: &str) -> u32 {
    parse(text).unwrap_err().code.number
}

#[test]
fn missing_and_empty_keys_are_made() {
    for text in [
        "{}",
        r#"{"authentication":null}"#,
        r#"{"authentication":{}}"#,
        r#"{"authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}"#,
        r#"{"authentication":{"symmetricKey":null,"x509Thumbprint":{"primaryThumbprint":null}}}"#,
    ] {
        let settings = parse(text).unwrap();
        assert_eq!(settings.authentication.kind(), "sas", "{text}");
        assert_eq!(settings.status, Status::Enabled);
    }
    let given = format!(r#"{{"authentication":{{"symmetricKey":{{"primaryKey":"{KEY}"}}}}}}"#);
    let Authentication::Sas { primary, .. } = parse(&given).unwrap().authentication else {
        panic!("no keys")
    };
    assert_eq!(primary.to_base64().expose(), KEY);
}

#[test]
fn other_kinds() {
    let print = "ab".repeat(20);
    let typed = format!(
        r#"{{"authentication":{{"type":"SelfSigned","x509Thumbprint":{{"secondaryThumbprint":"{print}"}}}}}}"#
    );
    let untyped = typed.replace(r#""type":"SelfSigned","#, "");
    for text in [typed, untyped] {
        let Authentication::SelfSigned { primary, secondary } =
            parse(&text).unwrap().authentication
        else {
            panic!("{text}")
        };
        assert_eq!(primary, None);
        assert_eq!(secondary.unwrap().as_str(), print.to_uppercase());
    }
    for kind in ["certificateAuthority", "none"] {
        let text = format!(r#"{{"authentication":{{"type":"{kind}"}}}}"#);
        assert_eq!(parse(&text).unwrap().authentication.kind(), kind);
    }
}

#[test]
fn bad_values_and_bad_shapes() {
    let long = format!(r#"{{"statusReason":"{}"}}"#, "x".repeat(129));
    for text in [
        r#"{"status":"on"}"#,
        r#"{"deviceId":"D"}"#,
        r#"{"moduleId":"x"}"#,
        r#"{"authentication":{"type":"magic"}}"#,
        r#"{"authentication":{"type":"selfSigned"}}"#,
        r#"{"authentication":{"symmetricKey":{"primaryKey":"AAAA"}}}"#,
        r#"{"authentication":{"x509Thumbprint":{"primaryThumbprint":"12"}}}"#,
        &long,
    ] {
        assert_eq!(code(text), 400004, "{text}");
    }
    for text in ["", "{", "[]", r#"{"status":5}"#, "null"] {
        assert_eq!(code(text), 400006, "{text}");
    }
    let misplaced = format!(r#"{{"authentication":"{KEY}"}}"#);
    let refusal = parse(&misplaced).unwrap_err();
    assert!(!format!("{refusal:?}").contains("AAEC"), "{refusal:?}");
}
