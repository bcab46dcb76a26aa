//! Logging in by name (`docs/protocol.md`, "Operators by name"): anybody may learn who the identity
//! provider is, and whoever shows its identity token gets a SAS token of the hub.

use std::net::SocketAddr;

use common::clock::unix_now;
use common::connection_string::{ServiceConnectionString, ServiceCredential};
use common::sas_token;
use common::secret::SharedKey;
use common::wire::access::{IDENTITY_TOKEN, members};
use common::wire::problem::ErrorCode;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use crate::access::Who;
use crate::answer::{Answer, json as answer};
use crate::documents::invalid;
use crate::events::{Event, Reason};
use crate::limits::Limit;
use crate::oidc::{Provider, ProviderError};
use crate::refusal::Refusal;
use crate::registry::{Holder, IssuedToken, IssuedTokens, random_id};
use crate::state::HubState;

/// Why somebody gets no token.
#[derive(Debug, thiserror::Error)]
enum NoLogin {
    /// The provider does not vouch for them.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// No rule is about them.
    #[error("{0} is in no rule of the access file")]
    NoRule(String),
    /// An operator of the hub has shut them out.
    #[error("{0} is shut out")]
    ShutOut(String),
}

/// Who the provider is, and how it knows service-proxy.
///
/// # Errors
/// 404000 when the hub has none.
pub fn provider(state: &HubState) -> Result<Answer, Refusal> {
    let provider = wanted(state)?;
    let settings = provider.settings();
    let mut document = json!({
        (members::ISSUER): settings.issuer,
        (members::CLIENT_ID): settings.client_id,
        (members::SCOPES): settings.scopes,
    });
    if let (Some(pem), Some(fields)) = (provider.authorities(), document.as_object_mut()) {
        fields.insert(members::AUTHORITIES.to_owned(), pem.into());
    }
    let mut answer = answer(&document);
    let minutes = HeaderValue::from_static("max-age=300");
    answer.headers_mut().insert(header::CACHE_CONTROL, minutes);
    Ok(answer)
}

/// Gives a person a token, by the identity token in a body. May be dropped: it may then have been
/// issued.
///
/// # Errors
/// [`Refusal`] of the registry's family: 401003 for an identity token that is not believed, 403901
/// for somebody who may do nothing, 429001 for somebody who logs in too often.
pub async fn log_in(state: &HubState, peer: SocketAddr, body: &[u8]) -> Result<Answer, Refusal> {
    let provider = wanted(state)?;
    // The error would quote the body.
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| Refusal::new(ErrorCode::FORMAT_ERROR, "the body is not JSON"))?;
    let token = body.get(members::IDENTITY_TOKEN).and_then(Value::as_str);
    let token = token.ok_or_else(|| invalid("the body has no identity token".to_owned()))?;
    if token.len() > IDENTITY_TOKEN {
        return Err(invalid("the identity token is too long".to_owned()));
    }
    let login = provider.identify(token).await.map_err(|error| {
        let code = match &error {
            ProviderError::Identity(_) => ErrorCode::UNAUTHORIZED,
            _ => ErrorCode::SERVICE_UNAVAILABLE,
        };
        refused(state, peer, code, &NoLogin::from(error))
    })?;
    let who = Who::Person {
        name: &login.name,
        groups: &login.groups,
    };
    let name = login.name.clone();
    let ttl = match state.access.now() {
        Some(rules) if rules.knows(who) => rules.token_ttl,
        _ => {
            return Err(refused(
                state,
                peer,
                ErrorCode::ACCESS_DENIED,
                &NoLogin::NoRule(name),
            ));
        }
    };
    state.quotas.admit(Limit::Logins, Some(&name), None)?;
    let created = unix_now();
    let expires = created.saturating_add(ttl.as_secs());
    let (id, key) = (random_id(), SharedKey::random());
    let resource = state.address.without_default_port().to_string();
    let sas = sas_token::mint(&resource, &key, Some(&id), expires);
    let issued = IssuedToken {
        id: id.clone(),
        holder: Holder::Person(login),
        key,
        created,
        expires,
        revoked: None,
    };
    let registry: &dyn IssuedTokens = &*state.registry;
    if !registry.issue_token(issued).await? {
        return Err(refused(
            state,
            peer,
            ErrorCode::ACCESS_DENIED,
            &NoLogin::ShutOut(name),
        ));
    }
    state.events.emit(Event::PersonLoggedIn {
        person: &name,
        token: &id,
        peer,
    });
    let connection_string = ServiceConnectionString {
        host: state.address.clone(),
        policy: id,
        credential: ServiceCredential::Token(sas),
    };
    Ok(answer(&json!({
        (members::CONNECTION_STRING): connection_string.to_secret_text().expose(),
        (members::PERSON): name,
        (members::EXPIRES): expires,
    })))
}

fn wanted(state: &HubState) -> Result<&Provider, Refusal> {
    state
        .provider
        .as_deref()
        .ok_or_else(|| Refusal::new(ErrorCode::NOT_FOUND, "this hub has no identity provider"))
}

fn refused(state: &HubState, peer: SocketAddr, code: ErrorCode, reason: &NoLogin) -> Refusal {
    let text = common::report::chain(reason);
    let reason: Reason<'_> = reason;
    state.events.emit(Event::PersonRefused { peer, reason });
    Refusal::new(code, text)
}
