//! What the commands on devices and on modules have in common.

use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::identity::DeviceIdentity;
use common::secret::Secret;
use common::settings;

use super::{CommandError, Session};
use crate::cli::{CredentialArgs, Form, WhichKey};
use crate::documents::{self, Keys};
use crate::iso8601;
use crate::registry::credentials;
use crate::registry::{
    Authentication, Identity, IdentitySettings, IfMatch, RegistryError, Status, Thumbprint,
};

/// Makes an identity and prints its connection string.
pub(super) async fn create(
    session: &mut Session<'_>,
    id: DeviceIdentity,
    status: Status,
    credential: CredentialArgs,
    form: Form,
) -> Result<(), CommandError> {
    let name = id.to_string();
    if common::outside::masked(&name) != name {
        return Err(CommandError::SecretAsId);
    }
    let settings = IdentitySettings {
        status,
        ..IdentitySettings::new(authentication(credential)?)
    };
    let identity = session.registry.create(&id, settings).await?;
    session.say(&format!("created {id}"));
    session.warn_of_default_address();
    let text = connection_string(session, &identity, WhichKey::default());
    if !form.json {
        return session.line(text?.expose());
    }
    let mut document = documents::write(&identity, None, Keys::Shown);
    if let Some(fields) = document.as_object_mut() {
        fields.insert("connectionString".to_owned(), text?.expose().into());
    }
    session.json(&document)
}

fn authentication(args: CredentialArgs) -> Result<Authentication, CommandError> {
    if args.x509_ca {
        return Ok(Authentication::CertificateAuthority);
    }
    match args.x509_thumbprint.as_slice() {
        [] => {}
        [primary] => {
            return Ok(Authentication::SelfSigned {
                primary: Some(primary.clone()),
                secondary: None,
            });
        }
        [primary, secondary] => {
            return Ok(Authentication::SelfSigned {
                primary: Some(primary.clone()),
                secondary: Some(secondary.clone()),
            });
        }
        more => return Err(CommandError::TooManyThumbprints(more.len())),
    }
    let key = match args.primary_key_file {
        None => args.primary_key,
        Some(path) => Some(settings::secret_file("the primary key", &path)?),
    };
    match key {
        None => Ok(Authentication::random_keys()),
        Some(key) => {
            // An empty one is a mistake here: naming a file does not mean "make one".
            credentials::key(key.expose())?;
            Ok(credentials::keys(Some(key.expose()), None)?)
        }
    }
}

/// The identity, or a sentence that there is none.
pub(super) async fn find(
    session: &Session<'_>,
    id: DeviceIdentity,
) -> Result<Identity, CommandError> {
    let found = session.registry.identity(&id).await?;
    Ok(found.ok_or(RegistryError::NotFound(id))?)
}

/// Prints an identity: readable without keys, or the document with them.
pub(super) async fn show(
    session: &mut Session<'_>,
    id: DeviceIdentity,
    form: Form,
) -> Result<(), CommandError> {
    let identity = find(session, id).await?;
    if form.json {
        return session.json(&documents::write(&identity, None, Keys::Shown));
    }
    let mut rows = vec![("device", identity.id.device.to_string())];
    if let Some(module) = &identity.id.module {
        rows.push(("module", module.to_string()));
    }
    rows.push(("status", identity.status.as_str().to_owned()));
    if let Some(reason) = &identity.status_reason {
        // A REST client wrote it: it must not steer the terminal.
        rows.push(("reason", reason.escape_debug().to_string()));
    }
    rows.push(("authentication", identity.authentication.kind().to_owned()));
    if let Authentication::SelfSigned { primary, secondary } = &identity.authentication {
        let mut print = |name, thumbprint: &Option<Thumbprint>| {
            if let Some(thumbprint) = thumbprint {
                rows.push((name, thumbprint.to_string()));
            }
        };
        print("thumbprint", primary);
        print("second thumbprint", secondary);
    }
    if identity.iot_edge {
        rows.push(("edge device", "yes".to_owned()));
    }
    // REST clients wrote these.
    for scope in identity.device_scope.iter() {
        rows.push(("scope", scope.escape_debug().to_string()));
    }
    for scope in &identity.parent_scopes {
        rows.push(("parent", scope.escape_debug().to_string()));
    }
    for manager in identity.managed_by.iter() {
        rows.push(("managed by", manager.escape_debug().to_string()));
    }
    rows.push((
        "connection changed",
        short(identity.activity.connection_state_updated),
    ));
    rows.push(("last activity", last_activity(&identity)));
    rows.push(("generation", identity.generation_id));
    rows.push(("etag", identity.etag));
    for (name, value) in rows {
        session.line(&format!("{name:<18} {value}"))?;
    }
    Ok(())
}

/// When an identity last did something, as far as the hub has stored it.
pub(super) fn last_activity(identity: &Identity) -> String {
    short(identity.activity.last_activity)
}

/// A time to the second, for a person.
fn short(at: Option<u64>) -> String {
    match at {
        None => "never".to_owned(),
        Some(at) => {
            let text = iso8601::from_unix_micros(Some(at));
            text.split_once('.')
                .map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"))
        }
    }
}

/// Prints an identity's connection string.
pub(super) async fn print_connection_string(
    session: &mut Session<'_>,
    id: DeviceIdentity,
    key: WhichKey,
) -> Result<(), CommandError> {
    let identity = find(session, id).await?;
    session.warn_of_default_address();
    let text = connection_string(session, &identity, key)?;
    session.line(text.expose())
}

fn connection_string(
    session: &Session<'_>,
    identity: &Identity,
    which: WhichKey,
) -> Result<Secret, CommandError> {
    let credential = match &identity.authentication {
        Authentication::Sas { primary, secondary } => DeviceCredential::Key {
            key: if which.secondary { secondary } else { primary }.clone(),
            policy: None,
        },
        Authentication::SelfSigned { .. } | Authentication::CertificateAuthority => {
            DeviceCredential::X509
        }
        Authentication::None => return Err(CommandError::NoCredential(identity.id.clone())),
    };
    Ok(DeviceConnectionString {
        host: session.address.clone(),
        identity: identity.id.clone(),
        credential,
        gateway: None,
    }
    .to_secret_text())
}

/// Removes an identity.
pub(super) async fn delete(
    session: &mut Session<'_>,
    id: DeviceIdentity,
) -> Result<(), CommandError> {
    session.registry.delete(&id, IfMatch::Any).await?;
    session.say(&format!("deleted {id}"));
    Ok(())
}
