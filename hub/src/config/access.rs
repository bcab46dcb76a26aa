//! `[access]` and `[oidc]` of the configuration file: who may do what, and who says who somebody is.
//! There are no options and no variables for these.

use std::path::PathBuf;
use std::sync::Arc;

use common::settings::{Key, Setting, Sources};
use http::Uri;
use http::uri::Scheme;

use super::ConfigError;
use crate::access::Rules;
use crate::approvals::WebhookSettings;
use crate::oidc::{ALGORITHMS, Algorithm, OidcSettings};

const FILE: Key = Key::new("access.file");
const ISSUER: Key = Key::new("oidc.issuer");
const CLIENT_ID: Key = Key::new("oidc.client-id");
const AUDIENCE: Key = Key::new("oidc.audience");
const SCOPES: Key = Key::new("oidc.scopes");
const NAME_CLAIM: Key = Key::new("oidc.name-claim");
const GROUPS_CLAIM: Key = Key::new("oidc.groups-claim");
const ALGORITHM_NAMES: Key = Key::new("oidc.algorithms");
const CA_FILE: Key = Key::new("oidc.ca-file");

const WEBHOOK_URL: Key = Key::new("approvals.webhook-url");
const WEBHOOK_SECRET_FILE: Key = Key::new("approvals.webhook-secret-file");
/// In the environment alone.
const WEBHOOK_SECRET: Key = Key::new("webhook-secret").or(&["STREAM_HUB_WEBHOOK_SECRET"]);
const WEBHOOK_CA_FILE: Key = Key::new("approvals.webhook-ca-file");

/// What `[access]`, `[oidc]` and `[approvals]` may hold.
pub(super) const IN_FILE: [Key; 12] = [
    WEBHOOK_URL,
    WEBHOOK_SECRET_FILE,
    WEBHOOK_CA_FILE,
    FILE,
    ISSUER,
    CLIENT_ID,
    AUDIENCE,
    SCOPES,
    NAME_CLAIM,
    GROUPS_CLAIM,
    ALGORITHM_NAMES,
    CA_FILE,
];

/// What is asked of the provider: that it says who it is, and that it renews what it says without a
/// person.
const SCOPE_WORDS: [&str; 5] = ["openid", "email", "profile", "groups", "offline_access"];

/// Who may do what, and who says who somebody is.
#[derive(Debug, Clone, Default)]
pub struct AccessConfig {
    /// The access file, and what it says.
    pub rules: Option<(PathBuf, Arc<Rules>)>,
    /// The identity provider.
    pub oidc: Option<OidcSettings>,
    /// Who is told of approvals.
    pub webhook: Option<WebhookSettings>,
}

/// Reads the access file, too. Blocks.
pub(super) fn resolve(sources: &Sources<'_>) -> Result<AccessConfig, ConfigError> {
    let rules = match sources.path(FILE, None)?.map(Setting::into_value) {
        Some(path) => {
            let rules = Rules::read(&path)?;
            Some((path, Arc::new(rules)))
        }
        None => None,
    };
    let text = |key: Key| sources.setting(key, None, |text| Ok::<_, &str>(text.to_owned()));
    let list = |key: Key, default: &[&str]| {
        let found = sources.list(key, Vec::new())?;
        Ok::<_, ConfigError>(match found.is_empty() {
            true => default.iter().map(|&word| word.to_owned()).collect(),
            false => found
                .into_iter()
                .map(Setting::into_value)
                .collect::<Vec<_>>(),
        })
    };
    let webhook = webhook(sources)?;
    let issuer = sources.setting(ISSUER, None, https)?;
    let client_id = text(CLIENT_ID)?;
    let (issuer, client_id) = match (issuer, client_id) {
        (Some(issuer), Some(client_id)) => (issuer.value, client_id.value),
        (None, None) => {
            return Ok(AccessConfig {
                rules,
                oidc: None,
                webhook,
            });
        }
        (Some(one), None) => return Err(ConfigError::HalfProvider(one.source)),
        (None, Some(one)) => return Err(ConfigError::HalfProvider(one.source)),
    };
    if rules.is_none() {
        return Err(ConfigError::ProviderWithoutAccess);
    }
    let algorithms = sources.list(ALGORITHM_NAMES, Vec::new())?.into_iter();
    let algorithms = algorithms.map(|name| Ok(name.read(algorithm)?.value));
    let algorithms = algorithms.collect::<Result<Vec<_>, ConfigError>>()?;
    let value = |key, default: &str| {
        Ok::<_, ConfigError>(text(key)?.map_or_else(|| default.to_owned(), Setting::into_value))
    };
    let mut scopes = list(SCOPES, &SCOPE_WORDS)?;
    if !scopes.iter().any(|scope| scope == "openid") {
        scopes.insert(0, "openid".to_owned());
    }
    let oidc = OidcSettings {
        audience: value(AUDIENCE, &client_id)?,
        name_claim: value(NAME_CLAIM, "email")?,
        groups_claim: value(GROUPS_CLAIM, "groups")?,
        algorithms: match algorithms.is_empty() {
            true => ALGORITHMS.to_vec(),
            false => algorithms,
        },
        ca_file: sources.path(CA_FILE, None)?.map(Setting::into_value),
        issuer,
        client_id,
        scopes,
    };
    Ok(AccessConfig {
        rules,
        oidc: Some(oidc),
        webhook,
    })
}

fn webhook(sources: &Sources<'_>) -> Result<Option<WebhookSettings>, ConfigError> {
    let Some(url) = sources.setting(WEBHOOK_URL, None, https)? else {
        return Ok(None);
    };
    Ok(Some(WebhookSettings {
        url: url.value,
        secret_file: sources
            .path(WEBHOOK_SECRET_FILE, None)?
            .map(Setting::into_value),
        secret: sources.variable(WEBHOOK_SECRET)?.map(Setting::into_value),
        ca_file: sources
            .path(WEBHOOK_CA_FILE, None)?
            .map(Setting::into_value),
    }))
}

fn https(text: &str) -> Result<String, &'static str> {
    let is_fit = |uri: &Uri| uri.scheme() == Some(&Scheme::HTTPS) && uri.host().is_some();
    match text.parse().ok().filter(is_fit) {
        Some(_) => Ok(text.to_owned()),
        None => Err("give an https URL, of an identity provider exactly as its tokens name it"),
    }
}

fn algorithm(text: String) -> Result<Algorithm, &'static str> {
    let found = text.parse().ok();
    found
        .filter(|algorithm| ALGORITHMS.contains(algorithm))
        .ok_or("give algorithms with a public key, as RS256, PS256, ES256 or EdDSA")
}
