//! `policy …`: the shared access policies, whose keys services use.

use common::connection_string::{ServiceConnectionString, ServiceCredential};
use common::secret::SharedKey;
use common::table::Columns;
use serde_json::{Value, json};

use super::{CommandError, Session};
use crate::cli::{Form, PermissionName, PolicyCommand};
use crate::registry::{Permissions, Policy, PolicyKey};

pub(super) async fn run(
    session: &mut Session<'_>,
    command: PolicyCommand,
) -> Result<(), CommandError> {
    match command {
        PolicyCommand::List { form } => list(session, form).await,
        PolicyCommand::Create { name, allow } => create(session, name, &allow).await,
        PolicyCommand::Delete { name } => {
            if !session.registry.delete_policy(&name).await? {
                return Err(CommandError::NoPolicy(name));
            }
            session.say(&format!("deleted the policy {name}"));
            Ok(())
        }
        PolicyCommand::RegenerateKey { name, secondary } => {
            let (which, word) = match secondary {
                true => (PolicyKey::Secondary, "secondary"),
                false => (PolicyKey::Primary, "primary"),
            };
            let key = SharedKey::random();
            if !session.registry.set_policy_key(&name, which, key).await? {
                return Err(CommandError::NoPolicy(name));
            }
            session.say(&format!(
                "the policy {name} has a new {word} key; what the old one has signed is refused from now on"
            ));
            Ok(())
        }
        PolicyCommand::ConnectionString { name, key } => {
            let policy = session.registry.policy(&name).await?;
            let policy = policy.ok_or(CommandError::NoPolicy(name))?;
            session.warn_of_default_address();
            let text = ServiceConnectionString {
                host: session.address.clone(),
                policy: policy.name,
                credential: ServiceCredential::Key(if key.secondary {
                    policy.secondary
                } else {
                    policy.primary
                }),
            }
            .to_secret_text();
            session.line(text.expose())
        }
    }
}

async fn create(
    session: &mut Session<'_>,
    name: String,
    allow: &[PermissionName],
) -> Result<(), CommandError> {
    let has = |permission| allow.contains(&permission);
    let policy = Policy {
        name: name.clone(),
        permissions: Permissions {
            registry_read: has(PermissionName::RegistryRead)
                || has(PermissionName::RegistryReadWrite),
            registry_write: has(PermissionName::RegistryReadWrite),
            service_connect: has(PermissionName::ServiceConnect),
            device_connect: has(PermissionName::DeviceConnect),
            twin_read: has(PermissionName::TwinRead),
        },
        primary: SharedKey::random(),
        secondary: SharedKey::random(),
    };
    if !session.registry.create_policy(policy).await? {
        return Err(CommandError::PolicyExists(name));
    }
    session.say(&format!("created the policy {name}"));
    Ok(())
}

async fn list(session: &mut Session<'_>, form: Form) -> Result<(), CommandError> {
    let policies = session.registry.policies().await?;
    if form.json {
        let list: Value = policies
            .iter()
            .map(|p| json!({ "name": p.name, "permissions": p.permissions.names() }))
            .collect();
        return session.json(&list);
    }
    let rows: Vec<_> = policies
        .iter()
        .map(|p| [p.name.clone(), p.permissions.names().join(", ")])
        .collect();
    for line in Columns::new(&["NAME", "PERMISSIONS"]).page(&rows) {
        session.line(&line)?;
    }
    Ok(())
}
