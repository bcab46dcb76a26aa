//! `policy …`: the shared access policies, whose keys services use.

use common::connection_string::{ServiceConnectionString, ServiceCredential};
use common::table::Columns;
use serde_json::{Value, json};

use super::{CommandError, Session};
use crate::cli::{Form, PolicyCommand};

pub(super) async fn run(
    session: &mut Session<'_>,
    command: PolicyCommand,
) -> Result<(), CommandError> {
    match command {
        PolicyCommand::List { form } => list(session, form).await,
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
