//! Identities as clients write them: into settings for the registry, or a refusal that
//! says which value is at fault.

use common::identity::{DeviceIdentity, ModuleId};
use common::wire::problem::ErrorCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::documents::invalid;
use crate::limits;
use crate::refusal::Refusal;
use crate::registry::credentials::{self, CredentialError};
use crate::registry::{Authentication, IdentitySettings, Status};

/// Longest `managedBy`, in characters. IoT Hub names no limit; it is a name, as an id is.
const MANAGED_BY_LENGTH: usize = 128;

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
    capabilities: Option<CapabilitiesDraft>,
    device_scope: Option<String>,
    parent_scopes: Option<Vec<String>>,
    managed_by: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CapabilitiesDraft {
    iot_edge: bool,
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
        Ok(IdentitySettings {
            status,
            status_reason: short(
                "statusReason",
                &self.status_reason,
                limits::STATUS_REASON_LENGTH,
            )?,
            authentication: match &self.authentication {
                None => Authentication::random_keys(),
                Some(draft) => draft.read()?,
            },
            iot_edge: self.capabilities.as_ref().is_some_and(|c| c.iot_edge),
            device_scope: self.device_scope.clone(),
            parent_scopes: self.parent_scopes.clone().unwrap_or_default(),
            managed_by: short("managedBy", &self.managed_by, MANAGED_BY_LENGTH)?,
        })
    }
}

/// A text of at most `max` characters; an empty one is none.
fn short(name: &str, text: &Option<String>, max: usize) -> Result<Option<String>, Refusal> {
    match text {
        Some(text) if text.chars().count() > max => {
            Err(invalid(format!("{name} is longer than {max} characters.")))
        }
        text => Ok(text.clone().filter(|text| !text.is_empty())),
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
        invalid(format!(
            "Bad authentication: {}.",
            common::report::chain(&error)
        ))
    }
}

#[cfg(test)]
mod tests;
