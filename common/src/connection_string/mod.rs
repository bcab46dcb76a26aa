//! Connection strings of devices and services (`docs/protocol.md`, "Connection strings"). The
//! parser is tolerant of blanks, a trailing `;`, the case of key names and unknown keys, and strict
//! about conflicts and repetition.

use std::fmt;

use crate::hub_address::{HubAddress, HubAddressError};
use crate::identity::{DeviceId, DeviceIdentity, IdentityError, ModuleId};
use crate::sas_token;
use crate::secret::{KeyError, Secret, SharedKey};

/// Why a text is not a valid connection string. No variant repeats a value that could be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// Nothing was given.
    #[error("the connection string is empty")]
    Empty,
    /// An item has no `=`.
    #[error(
        "item {0} of the connection string has no `=`; it is made of `Name=value` items joined by `;`"
    )]
    NoEquals(usize),
    /// A key has no value.
    #[error("`{0}` has no value in the connection string")]
    NoValue(&'static str),
    /// The same key occurs twice.
    #[error("`{0}` stands in the connection string twice")]
    Repeated(&'static str),
    /// A required key is missing.
    #[error("the connection string has no `{0}`")]
    Missing(&'static str),
    /// It ends after its first item.
    #[error(
        "the connection string ends behind `{0}`; a shell takes an unquoted `;` for the end of a command: put the connection string into quotes, or give a file or an environment variable"
    )]
    CutShort(&'static str),
    /// Two keys exclude each other.
    #[error("the connection string has both `{0}` and `{1}`; give one of them")]
    Conflict(&'static str, &'static str),
    /// No credential at all.
    #[error(
        "the connection string has no credential: give `SharedAccessKey`, `SharedAccessSignature` or `x509=true`"
    )]
    NoCredential,
    /// The X.509 flag has another value than `true`.
    #[error("`x509` in the connection string must be `true`")]
    BadX509Flag,
    /// A service's connection string where a device's is needed.
    #[error(
        "this is a service's connection string (it names a shared access policy, no `DeviceId`); device-proxy needs the device's own, as `stream-hub device connection-string ID` prints it"
    )]
    ServiceForDevice,
    /// A device's SAS token where a service's is needed.
    #[error(
        "this is a device's SAS token (it names no shared access policy, `skn`); service-proxy needs a service's, as `stream-hub token create` prints it"
    )]
    DeviceTokenForService,
    /// A device's connection string where a service's is needed.
    #[error(
        "this is a device's connection string (it has a `DeviceId`); service-proxy needs a service's, as `stream-hub policy connection-string service` prints it"
    )]
    DeviceForService,
    /// The key is invalid.
    #[error("`SharedAccessKey` in the connection string cannot be used")]
    BadKey(#[source] KeyError),
    /// The SAS token is invalid.
    #[error("`SharedAccessSignature` in the connection string is not a SAS token")]
    BadToken(#[source] sas_token::SasTokenError),
    /// The SAS token could not be written in a connection string.
    #[error(
        "the SAS token, or the policy that it names, has a character that none of a hub has, such as a semicolon"
    )]
    UnfitToken,
    /// The host name is invalid.
    #[error("`{0}` in the connection string cannot be used")]
    BadHost(&'static str, #[source] HubAddressError),
    /// The id is invalid.
    #[error("the connection string cannot be used")]
    BadId(#[from] IdentityError),
}

use ConnectionStringError as E;

/// How a device authenticates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceCredential {
    /// A symmetric key.
    Key {
        /// The key.
        key: SharedKey,
        /// The shared access policy, if the key is a policy's and not the device's own.
        policy: Option<String>,
    },
    /// A SAS token.
    Token(Secret),
    /// A TLS client certificate, which is configured separately.
    X509,
}

/// A device's or a module's connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConnectionString {
    /// The hub: `HostName`.
    pub host: HubAddress,
    /// `DeviceId`, and `ModuleId` if there is one.
    pub identity: DeviceIdentity,
    /// How it authenticates.
    pub credential: DeviceCredential,
    /// `GatewayHostName`: the host to connect to instead; the identity belongs to `HostName`.
    pub gateway: Option<HubAddress>,
}

/// How a service authenticates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceCredential {
    /// The policy's key.
    Key(SharedKey),
    /// A SAS token.
    Token(Secret),
}

/// A service's connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConnectionString {
    /// The hub: `HostName`.
    pub host: HubAddress,
    /// `SharedAccessKeyName`.
    pub policy: String,
    /// How it authenticates.
    pub credential: ServiceCredential,
}

/// The items of a connection string by name, before validation.
#[derive(Default)]
struct Items<'a> {
    host: Option<&'a str>,
    device: Option<&'a str>,
    module: Option<&'a str>,
    gateway: Option<&'a str>,
    key_name: Option<&'a str>,
    key: Option<&'a str>,
    token: Option<&'a str>,
    x509: Option<&'a str>,
}

impl<'a> Items<'a> {
    fn parse(text: &'a str) -> Result<Self, E> {
        let mut items = Self::default();
        if text.trim().is_empty() {
            return Err(E::Empty);
        }
        for (index, item) in text.split(';').enumerate() {
            let item = item.trim();
            if item.is_empty() {
                continue;
            }
            // Split at the first `=`: keys may end in `=`, ids may contain it.
            let (name, value) = item.split_once('=').ok_or(E::NoEquals(index + 1))?;
            let (slot, name) = match name.trim().to_ascii_lowercase().as_str() {
                "hostname" => (&mut items.host, "HostName"),
                "deviceid" => (&mut items.device, "DeviceId"),
                "moduleid" => (&mut items.module, "ModuleId"),
                "gatewayhostname" => (&mut items.gateway, "GatewayHostName"),
                "sharedaccesskeyname" => (&mut items.key_name, "SharedAccessKeyName"),
                "sharedaccesskey" => (&mut items.key, "SharedAccessKey"),
                "sharedaccesssignature" => (&mut items.token, "SharedAccessSignature"),
                "x509" | "x509cert" => (&mut items.x509, "x509"),
                // Some SDKs write further items (`CredentialType=…`).
                _ => continue,
            };
            let value = value.trim();
            if value.is_empty() {
                return Err(E::NoValue(name));
            }
            if slot.replace(value).is_some() {
                return Err(E::Repeated(name));
            }
        }
        Ok(items)
    }

    /// Detects a single item, which is what a shell leaves of an unquoted connection string.
    fn check_length(&self, text: &str) -> Result<(), E> {
        if text.contains(';') {
            return Ok(());
        }
        match (self.host, self.device, self.key_name) {
            (Some(_), None, None) => Err(E::CutShort("HostName")),
            (None, Some(_), None) => Err(E::CutShort("DeviceId")),
            (None, None, Some(_)) => Err(E::CutShort("SharedAccessKeyName")),
            _ => Ok(()),
        }
    }

    fn host(&self) -> Result<HubAddress, E> {
        let text = self.host.ok_or(E::Missing("HostName"))?;
        HubAddress::parse(text).map_err(|error| E::BadHost("HostName", error))
    }
}

fn key(text: &str) -> Result<SharedKey, E> {
    SharedKey::parse(text).map_err(E::BadKey)
}

fn token(text: &str) -> Result<Secret, E> {
    sas_token::SasToken::parse(text).map_err(E::BadToken)?;
    Ok(Secret::new(text))
}

impl DeviceConnectionString {
    /// Reads a device's or a module's connection string.
    ///
    /// # Errors
    /// [`ConnectionStringError`] names the key at fault.
    pub fn parse(text: &str) -> Result<Self, E> {
        let items = Items::parse(text)?;
        items.check_length(text)?;
        let Some(device) = items.device else {
            return Err(if items.key_name.is_some() {
                E::ServiceForDevice
            } else {
                E::Missing("DeviceId")
            });
        };
        let x509 = match items.x509 {
            None => false,
            Some(flag) if flag.eq_ignore_ascii_case("true") => true,
            Some(_) => return Err(E::BadX509Flag),
        };
        let credential = match (items.key, items.token, x509) {
            (Some(_), Some(_), _) => {
                return Err(E::Conflict("SharedAccessKey", "SharedAccessSignature"));
            }
            (Some(_), None, true) => return Err(E::Conflict("SharedAccessKey", "x509")),
            (None, Some(_), true) => return Err(E::Conflict("SharedAccessSignature", "x509")),
            (Some(text), None, false) => DeviceCredential::Key {
                key: key(text)?,
                policy: items.key_name.map(str::to_owned),
            },
            (None, Some(text), false) => DeviceCredential::Token(token(text)?),
            (None, None, true) => DeviceCredential::X509,
            (None, None, false) => return Err(E::NoCredential),
        };
        Ok(Self {
            host: items.host()?,
            identity: DeviceIdentity {
                device: DeviceId::parse(device)?,
                module: items.module.map(ModuleId::parse).transpose()?,
            },
            credential,
            gateway: items
                .gateway
                .map(|text| {
                    HubAddress::parse(text).map_err(|error| E::BadHost("GatewayHostName", error))
                })
                .transpose()?,
        })
    }

    /// The host for TCP and TLS: the gateway if there is one.
    pub fn connect_host(&self) -> &HubAddress {
        self.gateway.as_ref().unwrap_or(&self.host)
    }

    /// The text form, which contains the key.
    pub fn to_secret_text(&self) -> Secret {
        let mut text = format!("HostName={};DeviceId={}", self.host, self.identity.device);
        if let Some(module) = &self.identity.module {
            text += &format!(";ModuleId={module}");
        }
        if let Some(gateway) = &self.gateway {
            text += &format!(";GatewayHostName={gateway}");
        }
        match &self.credential {
            DeviceCredential::Key { key, policy } => {
                if let Some(policy) = policy {
                    text += &format!(";SharedAccessKeyName={policy}");
                }
                text += &format!(";SharedAccessKey={}", key.to_base64().expose());
            }
            DeviceCredential::Token(token) => {
                text += &format!(";SharedAccessSignature={}", token.expose());
            }
            DeviceCredential::X509 => text += ";x509=true",
        }
        Secret::new(text)
    }
}

impl ServiceConnectionString {
    /// Reads a service's connection string, or a bare SAS token, which names the hub and the policy
    /// itself.
    ///
    /// # Errors
    /// [`ConnectionStringError`] names the key at fault.
    pub fn parse(text: &str) -> Result<Self, E> {
        if sas_token::is_one(text) {
            return Self::of_token(text);
        }
        let items = Items::parse(text)?;
        items.check_length(text)?;
        if items.device.is_some() {
            return Err(E::DeviceForService);
        }
        let policy = items.key_name.ok_or(E::Missing("SharedAccessKeyName"))?;
        let credential = match (items.key, items.token) {
            (Some(_), Some(_)) => {
                return Err(E::Conflict("SharedAccessKey", "SharedAccessSignature"));
            }
            (Some(text), None) => ServiceCredential::Key(key(text)?),
            (None, Some(text)) => ServiceCredential::Token(token(text)?),
            (None, None) => return Err(E::Missing("SharedAccessKey")),
        };
        Ok(Self {
            host: items.host()?,
            policy: policy.to_owned(),
            credential,
        })
    }

    fn of_token(text: &str) -> Result<Self, E> {
        let text = text.trim_end();
        let token = sas_token::SasToken::parse(text).map_err(E::BadToken)?;
        let host = HubAddress::parse(token.host()).map_err(|error| E::BadHost("sr", error))?;
        let policy = token.policy().ok_or(E::DeviceTokenForService)?;
        let is_fit = |value: &str| !value.contains(|c: char| c == ';' || c.is_control());
        if !is_fit(text) || !is_fit(policy) || policy.trim() != policy {
            return Err(E::UnfitToken);
        }
        Ok(Self {
            host,
            policy: policy.to_owned(),
            credential: ServiceCredential::Token(Secret::new(text)),
        })
    }

    /// The text form, which contains the key.
    pub fn to_secret_text(&self) -> Secret {
        let (name, value) = match &self.credential {
            ServiceCredential::Key(key) => ("SharedAccessKey", key.to_base64()),
            ServiceCredential::Token(token) => ("SharedAccessSignature", token.clone()),
        };
        Secret::new(format!(
            "HostName={};SharedAccessKeyName={};{name}={}",
            self.host,
            self.policy,
            value.expose()
        ))
    }
}

impl fmt::Display for DeviceConnectionString {
    /// Identity and host, without the credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.identity, self.host)
    }
}

#[cfg(test)]
mod tests;
