//! Identities as JSON documents (`iot-hub.md` section 6), from and to the registry's
//! types. The REST API and the command line's `--json` share it.

use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::limits;
use common::wire::problem::ErrorCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::answer::Refusal;
use crate::iso8601::{self, NEVER};
use crate::registry::credentials::{self, CredentialError};
use crate::registry::{Authentication, Identity, IdentitySettings, Status, Thumbprint};

/// Whether a document carries keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// It does: for who may read identities.
    Shown,
    /// They are left out: for lists on a terminal.
    LeftOut,
}

/// The document of a device or a module. `connected` is `None` where nobody knows,
/// outside of the hub's process; the field is then left out.
pub fn write(identity: &Identity, connected: Option<bool>, keys: Keys) -> Value {
    let mut document = json!({
        "deviceId": identity.id.device.as_str(),
        "generationId": identity.generation_id,
        "etag": identity.etag,
        "connectionStateUpdatedTime": NEVER,
        "lastActivityTime": NEVER,
        "cloudToDeviceMessageCount": 0,
        "authentication": authentication(&identity.authentication, keys),
    });
    let mut set = |name: &str, value: Value| {
        if let Some(fields) = document.as_object_mut() {
            fields.insert(name.to_owned(), value);
        }
    };
    if let Some(connected) = connected {
        set("connectionState", connection_state(connected).into());
    }
    match &identity.id.module {
        // IoT Hub gives modules no status of their own.
        Some(module) => {
            set("moduleId", module.as_str().into());
            set("managedBy", Value::Null);
        }
        None => {
            set("status", identity.status.as_str().into());
            set("statusReason", identity.status_reason.clone().into());
            set("statusUpdatedTime", status_updated(identity).into());
            set("capabilities", json!({ "iotEdge": false }));
        }
    }
    document
}

/// IoT Hub's word for whether an identity holds a hub session.
pub(super) fn connection_state(connected: bool) -> &'static str {
    if connected {
        "Connected"
    } else {
        "Disconnected"
    }
}

/// When the status last changed, as IoT Hub writes it.
pub(super) fn status_updated(identity: &Identity) -> String {
    identity
        .status_updated
        .and_then(|at| i64::try_from(at).ok())
        .and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok())
        .map_or_else(|| NEVER.to_owned(), iso8601::format)
}

fn authentication(authentication: &Authentication, keys: Keys) -> Value {
    let (mut primary_key, mut secondary_key) = (Value::Null, Value::Null);
    if let Authentication::Sas { primary, secondary } = authentication
        && keys == Keys::Shown
    {
        primary_key = primary.to_base64().expose().into();
        secondary_key = secondary.to_base64().expose().into();
    }
    let mut document = json!({
        "x509Thumbprint": thumbprints(authentication),
        "type": authentication.kind(),
    });
    if keys == Keys::Shown
        && let Some(fields) = document.as_object_mut()
    {
        fields.insert(
            "symmetricKey".to_owned(),
            json!({ "primaryKey": primary_key, "secondaryKey": secondary_key }),
        );
    }
    document
}

/// The thumbprints of an identity's certificates; null where there are none.
pub(super) fn thumbprints(authentication: &Authentication) -> Value {
    let (primary, secondary) = match authentication {
        Authentication::SelfSigned { primary, secondary } => (primary.as_ref(), secondary.as_ref()),
        _ => (None, None),
    };
    json!({
        "primaryThumbprint": primary.map(Thumbprint::as_str),
        "secondaryThumbprint": secondary.map(Thumbprint::as_str),
    })
}

/// What a client may say about an identity; the hub's own fields are ignored. It holds
/// keys, so it has no `Debug`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Draft {
    device_id: Option<String>,
    module_id: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<AuthenticationDraft>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AuthenticationDraft {
    r#type: Option<String>,
    symmetric_key: Option<SymmetricKeyDraft>,
    x509_thumbprint: Option<ThumbprintDraft>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SymmetricKeyDraft {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ThumbprintDraft {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

/// Reads a JSON body. The refusal does not repeat what stands there: it may be a key.
///
/// # Errors
/// 400006 when it is no JSON, or of another shape.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(
            ErrorCode::FORMAT_ERROR,
            format!(
                "The body cannot be read: it is not the JSON that is expected, at line {} column {}.",
                error.line(),
                error.column()
            ),
        )
    })
}

impl Draft {
    /// Reads the document of one identity.
    ///
    /// # Errors
    /// 400006 when it is no JSON object, or of another shape.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        // An array would pass for a struct without field names.
        if !body.trim_ascii_start().starts_with(b"{") {
            return Err(Refusal::new(
                ErrorCode::FORMAT_ERROR,
                "The body cannot be read: it is not a JSON object.",
            ));
        }
        read(body)
    }

    /// The settings for an identity; the ids in the document must be its ids.
    ///
    /// # Errors
    /// 400004 names the value at fault.
    pub fn settings(&self, id: &DeviceIdentity) -> Result<IdentitySettings, Refusal> {
        let agree = |field: &str, said: &Option<String>, is: Option<&str>| match said {
            Some(said) if is != Some(said.as_str()) => Err(invalid(format!(
                "{field} in the body does not agree with the address."
            ))),
            _ => Ok(()),
        };
        agree("deviceId", &self.device_id, Some(id.device.as_str()))?;
        let module = id.module.as_ref().map(ModuleId::as_str);
        agree("moduleId", &self.module_id, module)?;
        self.settings_only()
    }

    /// The settings, for who has looked at the ids already.
    ///
    /// # Errors
    /// 400004 names the value at fault.
    pub fn settings_only(&self) -> Result<IdentitySettings, Refusal> {
        let status = match self.status.as_deref() {
            None => Status::Enabled,
            Some(text) => Status::parse(text)
                .ok_or_else(|| invalid("status must be enabled or disabled.".to_owned()))?,
        };
        let reason = self.status_reason.clone().filter(|text| !text.is_empty());
        if reason
            .as_ref()
            .is_some_and(|text| text.chars().count() > limits::STATUS_REASON_LENGTH)
        {
            return Err(invalid(format!(
                "statusReason is longer than {} characters.",
                limits::STATUS_REASON_LENGTH
            )));
        }
        Ok(IdentitySettings {
            status,
            status_reason: reason,
            authentication: match &self.authentication {
                None => Authentication::random_keys(),
                Some(draft) => draft.read()?,
            },
        })
    }
}

impl AuthenticationDraft {
    /// Keys that are missing or empty are made: Node sends empty ones to say so.
    fn read(&self) -> Result<Authentication, Refusal> {
        let none = ThumbprintDraft::default();
        let prints = self.x509_thumbprint.as_ref().unwrap_or(&none);
        let (first, second) = (
            prints.primary_thumbprint.as_deref(),
            prints.secondary_thumbprint.as_deref(),
        );
        let has_prints = [first, second].into_iter().flatten().any(|t| !t.is_empty());
        let kind = match self.r#type.as_deref() {
            // Old clients have no type: what is there tells it.
            None | Some("") if has_prints => "selfSigned",
            None | Some("") => "sas",
            Some(kind) => kind,
        };
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        if is("sas") {
            let none = SymmetricKeyDraft::default();
            let keys = self.symmetric_key.as_ref().unwrap_or(&none);
            Ok(credentials::keys(
                keys.primary_key.as_deref(),
                keys.secondary_key.as_deref(),
            )?)
        } else if is("selfSigned") {
            Ok(credentials::thumbprints(first, second)?)
        } else if is("certificateAuthority") {
            Ok(Authentication::CertificateAuthority)
        } else if is("none") {
            Ok(Authentication::None)
        } else {
            Err(invalid(
                "authentication.type must be sas, selfSigned, certificateAuthority or none."
                    .to_owned(),
            ))
        }
    }
}

impl From<CredentialError> for Refusal {
    fn from(error: CredentialError) -> Self {
        invalid(format!("Bad authentication: {error}."))
    }
}

/// Reads the ids of an identity.
///
/// # Errors
/// 400004 says which rule an id breaks.
pub fn id(device: &str, module: Option<&str>) -> Result<DeviceIdentity, Refusal> {
    let refusal = |error| invalid(format!("Bad id: {error}."));
    Ok(DeviceIdentity {
        device: DeviceId::parse(device).map_err(refusal)?,
        module: module.map(ModuleId::parse).transpose().map_err(refusal)?,
    })
}

/// A value is outside its range or grammar.
pub fn invalid(message: String) -> Refusal {
    Refusal::new(ErrorCode::ARGUMENT_INVALID, message)
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn documents_are_iot_hubs() {
        let identity = Identity {
            id: id("d", None).unwrap(),
            generation_id: "637".to_owned(),
            etag: "MTIz".to_owned(),
            status: Status::Disabled,
            status_reason: None,
            status_updated: Some(1_700_000_000),
            authentication: credentials::keys(Some(KEY), Some(KEY)).unwrap(),
        };
        let document = write(&identity, Some(false), Keys::Shown);
        assert_eq!(
            document,
            json!({
                "deviceId": "d", "generationId": "637", "etag": "MTIz",
                "connectionState": "Disconnected", "status": "disabled", "statusReason": null,
                "connectionStateUpdatedTime": NEVER,
                "statusUpdatedTime": "2023-11-14T22:13:20.0000000Z",
                "lastActivityTime": NEVER, "cloudToDeviceMessageCount": 0,
                "capabilities": { "iotEdge": false },
                "authentication": {
                    "symmetricKey": { "primaryKey": KEY, "secondaryKey": KEY },
                    "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
                    "type": "sas",
                },
            })
        );
        let bare = write(&identity, None, Keys::LeftOut).to_string();
        assert!(!bare.contains("AAEC") && !bare.contains("connectionState\""));
        let module = Identity {
            id: id("d", Some("m")).unwrap(),
            ..identity
        };
        let document = write(&module, Some(true), Keys::Shown);
        assert_eq!(document["moduleId"], "m");
        assert_eq!(document["connectionState"], "Connected");
        assert!(document.get("status").is_none());
    }
}
