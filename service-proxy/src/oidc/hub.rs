//! The hub's half: who its identity provider is, and a token for what the provider says.

use ::http::{Request, StatusCode, header};
use common::hub_address::HubAddress;
use common::net::Dialer;
use common::outside;
use common::secret::Secret;
use common::wire::access::{LOGIN_PATH, members};
use common::wire::problem::Problem;
use serde_json::{Value, json};

use super::error::{HubRefusal, LoginError};
use super::http;

/// Who the identity provider is.
#[derive(Debug, Clone)]
pub struct Parameters {
    /// Its URL.
    pub issuer: String,
    /// As whom it knows us.
    pub client_id: String,
    /// What is asked of it.
    pub scopes: Vec<String>,
    /// PEM of its CA, if the system does not know it.
    pub authorities: Option<String>,
}

/// A token of the hub.
#[derive(Debug, Clone)]
pub struct Issued {
    /// With the token.
    pub connection_string: Secret,
    /// Who it is for.
    pub person: String,
    /// Until when it works, Unix seconds.
    pub expires: u64,
}

/// Asks the hub who its identity provider is. Ends by itself; may be dropped.
///
/// # Errors
/// [`LoginError`].
pub async fn parameters(hub: &HubAddress, dialer: &Dialer) -> Result<Parameters, LoginError> {
    let request = Request::get(url(hub));
    let answer = ask(hub, dialer, request, Vec::new()).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => {
            return Err(LoginError::NoProvider(hub.to_string()));
        }
        status => return Err(refusal(hub, status, answer.body()).into()),
    }
    let document: Option<Value> = serde_json::from_slice(answer.body()).ok();
    let text = |name: &str| Some(document.as_ref()?.get(name)?.as_str()?.to_owned());
    let scopes = document
        .as_ref()
        .and_then(|it| it.get(members::SCOPES)?.as_array());
    let scopes = scopes.into_iter().flatten().filter_map(Value::as_str);
    let other = || LoginError::Answer(hub.to_string());
    Ok(Parameters {
        issuer: text(members::ISSUER).ok_or_else(other)?,
        client_id: text(members::CLIENT_ID).ok_or_else(other)?,
        scopes: scopes.map(str::to_owned).collect(),
        authorities: text(members::AUTHORITIES),
    })
}

/// Gets a token for what the provider says of a person. Ends by itself; may be dropped.
///
/// # Errors
/// [`LoginError`].
pub async fn exchange(
    hub: &HubAddress,
    identity_token: &Secret,
    dialer: &Dialer,
) -> Result<Issued, LoginError> {
    let body = json!({ (members::IDENTITY_TOKEN): identity_token.expose() });
    let request = Request::post(url(hub)).header(header::CONTENT_TYPE, "application/json");
    let answer = ask(hub, dialer, request, body.to_string().into_bytes()).await?;
    if answer.status() != StatusCode::OK {
        return Err(refusal(hub, answer.status(), answer.body()).into());
    }
    let document: Option<Value> = serde_json::from_slice(answer.body()).ok();
    let text = |name: &str| Some(document.as_ref()?.get(name)?.as_str()?.to_owned());
    let expires = document
        .as_ref()
        .and_then(|it| it.get(members::EXPIRES)?.as_u64());
    let other = || LoginError::Answer(hub.to_string());
    Ok(Issued {
        connection_string: Secret::new(text(members::CONNECTION_STRING).ok_or_else(other)?),
        person: text(members::PERSON).ok_or_else(other)?,
        expires: expires.ok_or_else(other)?,
    })
}

fn url(hub: &HubAddress) -> String {
    format!(
        "https://{}:{}{LOGIN_PATH}",
        hub.url_host(),
        hub.https_port()
    )
}

async fn ask(
    hub: &HubAddress,
    dialer: &Dialer,
    request: ::http::request::Builder,
    body: Vec<u8>,
) -> Result<::http::Response<Vec<u8>>, LoginError> {
    let request = request
        .header(header::CONTENT_LENGTH, body.len())
        .body(body)
        .map_err(|_| LoginError::Answer(hub.to_string()))?;
    http::send(dialer.clone(), request)
        .await
        .map_err(|source| LoginError::Hub {
            hub: hub.to_string(),
            source: Box::new(source),
        })
}

fn refusal(hub: &HubAddress, status: StatusCode, body: &[u8]) -> HubRefusal {
    let reason = Problem::from_body(body).message;
    let reason = reason.unwrap_or_else(|| "it gives no reason".to_owned());
    HubRefusal {
        hub: hub.to_string(),
        status: status.as_u16(),
        reason: outside::printable(&reason).into_owned(),
    }
}
