//! Connection strings as the portal, az and users write them.

use super::*;
use proptest::prelude::*;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn device(rest: &str) -> Result<DeviceConnectionString, E> {
    DeviceConnectionString::parse(&format!("HostName=h.example.net;DeviceId=d{rest}"))
}

#[test]
fn device_forms() {
    let plain = device(&format!(";SharedAccessKey={KEY}")).unwrap();
    assert!(matches!(
        plain.credential,
        DeviceCredential::Key { policy: None, .. }
    ));
    let policy = device(&format!(
        ";SharedAccessKeyName=device;SharedAccessKey={KEY}"
    ))
    .unwrap();
    assert!(matches!(
        policy.credential,
        DeviceCredential::Key {
            policy: Some(_),
            ..
        }
    ));
    assert_eq!(
        device(";x509=true").unwrap().credential,
        DeviceCredential::X509
    );
    assert_eq!(
        device(";X509Cert=True").unwrap().credential,
        DeviceCredential::X509
    );
    let module = device(&format!(";ModuleId=m;SharedAccessKey={KEY}")).unwrap();
    assert_eq!(module.identity.to_string(), "d/m");
    let token = device(";CredentialType=SharedAccessSignature;SharedAccessSignature=SharedAccessSignature sr=h&sig=AA==&se=1").unwrap();
    assert!(matches!(token.credential, DeviceCredential::Token(_)));
    let gateway = device(&format!(";GatewayHostName=edge;SharedAccessKey={KEY}")).unwrap();
    assert_eq!(gateway.connect_host().name(), "edge");
}

#[test]
fn blanks_case_and_unknown_keys_are_tolerated() {
    let text = format!(" hostname = h:8443 ; DEVICEID=a=b ; Unknown=1; SharedAccessKey={KEY} ;");
    let parsed = DeviceConnectionString::parse(&text).unwrap();
    assert_eq!(parsed.identity.device.as_str(), "a=b");
    assert_eq!(parsed.host.to_string(), "h:8443");
}

#[test]
fn every_error_names_its_key() {
    let key = format!(";SharedAccessKey={KEY}");
    assert_eq!(DeviceConnectionString::parse(" "), Err(E::Empty));
    assert_eq!(device(";invalid"), Err(E::NoEquals(3)));
    assert_eq!(
        device(";SharedAccessKey="),
        Err(E::NoValue("SharedAccessKey"))
    );
    assert_eq!(
        device(&format!("{key}{key}")),
        Err(E::Repeated("SharedAccessKey"))
    );
    assert_eq!(device(""), Err(E::NoCredential));
    assert_eq!(
        device(&format!("{key};x509=true")),
        Err(E::Conflict("SharedAccessKey", "x509"))
    );
    assert_eq!(device(";x509=yes"), Err(E::BadX509Flag));
    assert_eq!(
        device(";SharedAccessKey=AAE CAw"),
        Err(E::BadKey(KeyError::Blank))
    );
    assert_eq!(
        DeviceConnectionString::parse(&format!("DeviceId=d{key}")),
        Err(E::Missing("HostName"))
    );
    assert_eq!(
        DeviceConnectionString::parse(&format!("HostName=h;SharedAccessKeyName=service{key}")),
        Err(E::ServiceForDevice)
    );
    assert_eq!(
        ServiceConnectionString::parse(&format!("HostName=h;DeviceId=d{key}")),
        Err(E::DeviceForService)
    );
    assert_eq!(
        ServiceConnectionString::parse(&format!("HostName=h{key}")),
        Err(E::Missing("SharedAccessKeyName"))
    );
    assert_eq!(
        ServiceConnectionString::parse("HostName=h;SharedAccessKeyName=p"),
        Err(E::Missing("SharedAccessKey"))
    );
}

#[test]
fn round_trip() {
    let text = format!("HostName=localhost:8443;DeviceId=d;ModuleId=m;SharedAccessKey={KEY}");
    let parsed = DeviceConnectionString::parse(&text).unwrap();
    assert_eq!(parsed.to_secret_text().expose(), text);
    let text = format!("HostName=h;SharedAccessKeyName=service;SharedAccessKey={KEY}");
    let parsed = ServiceConnectionString::parse(&text).unwrap();
    assert_eq!(parsed.to_secret_text().expose(), text);
}

#[test]
fn a_token_alone_is_written_so_that_it_is_read_back() {
    let token = |policy: &str| format!("SharedAccessSignature sr=h&sig=AA%3D%3D&se=1&skn={policy}");
    let parsed = ServiceConnectionString::parse(&format!("{}\n", token("service"))).unwrap();
    let written = parsed.to_secret_text();
    assert!(written.expose().contains("SharedAccessKeyName=service;"));
    assert!(ServiceConnectionString::parse(written.expose()) == Ok(parsed));
    // It could not be, or as something else.
    for policy in [
        "a%3BHostName%3Dother",
        "a;b",
        "%20a",
        "a%0A",
        "a&x=;HostName=other",
    ] {
        let refused = ServiceConnectionString::parse(&token(policy));
        assert!(matches!(refused, Err(E::UnfitToken)), "{policy}");
    }
}

#[test]
fn no_error_and_no_debug_output_shows_a_key() {
    let parsed = device(&format!(";SharedAccessKey={KEY}")).unwrap();
    assert!(!format!("{parsed:?} {parsed}").contains(KEY));
    for text in [
        format!("{KEY};{KEY}"),
        format!("HostName=h;SharedAccessKey={KEY}\n{KEY}"),
    ] {
        let error = DeviceConnectionString::parse(&text).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("AAECAw"), "{error}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(text in ".{0,200}", items in "((HostName|DeviceId|SharedAccessKey|x509|ModuleId)=?[a-z=;: ]{0,8};?){0,6}") {
        let _ = DeviceConnectionString::parse(&text);
        let _ = ServiceConnectionString::parse(&text);
        let _ = DeviceConnectionString::parse(&items);
    }
}
