//! `token …`: SAS tokens for less than the whole hub, which its resource says: IoT Hub's grammar has
//! paths, of which a token covers all that lie below its own (docs/protocol.md, "SAS tokens and
//! policies").

use common::clock::unix_now;
use common::identity::DeviceIdentity;
use common::sas_token;
use common::secret::SharedKey;
use common::table::Columns;
use common::wire::stream::carries_session;
use serde_json::{Value, json};

use super::{CommandError, Session};
use crate::cli::{Form, TokenCommand, TokenCreateArgs};
use crate::documents::approval::time;
use crate::registry::{Holder, IssuedToken, OpenStreams, Permissions, ShutOut, random_id};

pub(super) async fn run(
    session: &mut Session<'_>,
    command: TokenCommand,
) -> Result<(), CommandError> {
    match command {
        TokenCommand::Create(args) => create(session, args).await,
        TokenCommand::List { form } => list(session, form).await,
        TokenCommand::Revoke {
            id,
            person,
            keep_streams,
        } => {
            let streams = match keep_streams {
                true => OpenStreams::Keep,
                false => OpenStreams::End,
            };
            match (id, person) {
                (_, Some(person)) => {
                    let now = unix_now();
                    let revoked = session.registry.shut_out(&person, streams, now).await?;
                    let tokens = if revoked == 1 { "token" } else { "tokens" };
                    session.say(&format!(
                        "revoked {revoked} {tokens} of {person}, who gets no other until `stream-hub token let-in {person}`"
                    ));
                    Ok(())
                }
                (Some(id), None) => {
                    if !session.registry.revoke_token(&id, streams).await? {
                        return Err(CommandError::NoToken(id));
                    }
                    session.say(&format!("revoked the token {id}"));
                    Ok(())
                }
                (None, None) => Err(CommandError::NoToken(String::new())),
            }
        }
        TokenCommand::LetIn { person } => {
            if !session.registry.let_in(&person).await? {
                return Err(CommandError::NotShutOut(person));
            }
            session.say(&format!("{person} may log in again"));
            Ok(())
        }
    }
}

async fn list(session: &mut Session<'_>, form: Form) -> Result<(), CommandError> {
    let tokens = session.registry.issued_tokens(unix_now()).await?;
    let shut_out = session.registry.shut_out_people().await?;
    if form.json {
        let tokens: Vec<_> = tokens.iter().map(document).collect();
        let shut_out: Vec<_> = shut_out
            .iter()
            .map(|it| json!({ "person": it.person, "since": time(it.since) }))
            .collect();
        return session.json(&json!({ "tokens": tokens, "shutOut": shut_out }));
    }
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            let of = match &token.holder {
                Holder::Named { policy, .. } => format!("policy {policy}"),
                Holder::Person(login) => login.groups.join(", "),
            };
            [
                token.id.clone(),
                token.holder.name().to_owned(),
                time(token.expires),
                of,
            ]
        })
        .collect();
    for line in Columns::new(&["ID", "NAME", "EXPIRES", "POLICY OR GROUPS"]).page(&rows) {
        session.line(&line)?;
    }
    for ShutOut { person, since, .. } in shut_out {
        session.say(&format!("{person} is shut out since {}", time(since)));
    }
    Ok(())
}

fn document(token: &IssuedToken) -> Value {
    let mut document = json!({
        "id": token.id,
        "name": token.holder.name(),
        "created": time(token.created),
        "expires": time(token.expires),
    });
    if let Some(fields) = document.as_object_mut() {
        match &token.holder {
            Holder::Named { policy, .. } => {
                fields.insert("policy".to_owned(), policy.as_str().into());
            }
            Holder::Person(login) => {
                fields.insert("issuer".to_owned(), login.issuer.as_str().into());
                fields.insert("subject".to_owned(), login.subject.as_str().into());
                fields.insert("groups".to_owned(), login.groups.clone().into());
            }
        }
    }
    document
}

async fn create(session: &mut Session<'_>, args: TokenCreateArgs) -> Result<(), CommandError> {
    let identity = DeviceIdentity {
        device: args.device,
        module: args.module,
    };
    if args
        .target
        .as_ref()
        .is_some_and(|target| carries_session(target.as_str()))
    {
        return Err(CommandError::SessionAsTarget);
    }
    let policy = session.registry.policy(&args.policy).await?;
    let policy = policy.ok_or(CommandError::NoPolicy(args.policy))?;
    let Permissions {
        service_connect,
        twin_read,
        ..
    } = policy.permissions;
    match args.target {
        Some(_) if !service_connect => return Err(CommandError::PolicyWithoutStreams(policy.name)),
        None if !service_connect && !twin_read => {
            return Err(CommandError::PolicyWithoutTwins(policy.name));
        }
        _ => {}
    }
    // A mistyped id would be a token that opens nothing.
    if session.registry.identity(&identity).await?.is_none() {
        return Err(match identity.module {
            Some(_) => CommandError::NoModule(identity),
            None => CommandError::NoDevice(identity),
        });
    }
    let named = args
        .target
        .as_ref()
        .map(|target| format!("target {target}"));
    session
        .registry
        .add_note(
            "TokenCreated",
            Some(identity.clone()),
            Some(policy.name.clone()),
            format!(
                "{}, valid for {}",
                named.as_deref().unwrap_or("all that the policy allows"),
                humantime::format_duration(args.ttl)
            ),
        )
        .await?;
    session.warn_of_default_address();
    let (mut path, mut what) = (format!("twins/{}", identity.device), String::new());
    if let Some(module) = &identity.module {
        path += &format!("/modules/{module}");
    }
    match &args.target {
        Some(target) => {
            path += &format!("/streams/{target}");
            what += &format!("streams and sessions to {target} of {identity}");
        }
        None if !service_connect => what += &format!("reading the twin of {identity}"),
        None => what += &format!("all that {} allows with {identity}", policy.name),
    }
    let resource = format!("{}/{path}", session.address.without_default_port());
    let expiry = unix_now().saturating_add(args.ttl.as_secs());
    let token = match args.name {
        None => sas_token::mint(&resource, &policy.primary, Some(&policy.name), expiry),
        Some(name) => {
            let (id, key) = (random_id(), SharedKey::random());
            let token = sas_token::mint(&resource, &key, Some(&id), expiry);
            session.say(&format!(
                "for {name}; `stream-hub token revoke {id}` ends it sooner"
            ));
            let issued = IssuedToken {
                id,
                holder: Holder::Named {
                    name,
                    policy: policy.name.clone(),
                },
                key,
                created: unix_now(),
                expires: expiry,
                revoked: None,
            };
            session.registry.issue_token(issued).await?;
            token
        }
    };
    session.say(&format!(
        "valid for {}, for {what}; use it with `service-proxy --token-file FILE`",
        humantime::format_duration(args.ttl)
    ));
    session.line(token.expose())
}
