//! Whether an identity token is the provider's, for us, and fresh; and what it says. No I/O.

use std::collections::HashSet;

use common::limits::CLOCK_SKEW;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Map, Value};

use super::OidcSettings;
use crate::registry::Login;

/// An identity token that is older was made for something else: it is shown as soon as it is there.
const FRESH: u64 = 600;
/// Groups of one person, and characters of a name: more is a mistake, and would be stored.
const GROUPS: usize = 1_000;
const NAME: usize = 200;

/// Why an identity token is not believed. No variant repeats it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is no token, or the signature is by another key.
    #[error("the identity token cannot be believed: {0}")]
    Token(String),
    /// It is signed in a way that is not believed.
    #[error("the identity token is signed by {0}, which `oidc.algorithms` does not name")]
    Algorithm(String),
    /// None of the provider's keys has signed it.
    #[error("the identity token is signed by a key that the provider does not show")]
    UnknownKey,
    /// It is for another program.
    #[error("the identity token is for another client of the provider, {0}")]
    OtherClient(String),
    /// It was made too long ago, or in the future.
    #[error("the identity token is not fresh: it was made at {0}, Unix seconds")]
    NotFresh(u64),
    /// It has no name that can be used.
    #[error("the identity token does not say who it is for")]
    NoName,
    /// It has more groups than are believed.
    #[error("the identity token has more than {GROUPS} groups")]
    Groups,
    /// The groups are elsewhere.
    #[error(
        "the identity token does not have the groups itself, but says where they can be read; have the provider send fewer groups"
    )]
    GroupsElsewhere,
}

/// What the token says of a person, if it is the provider's.
///
/// # Errors
/// [`IdentityError`]; for [`IdentityError::UnknownKey`] the keys may have changed.
pub fn verify(
    token: &str,
    keys: &JwkSet,
    settings: &OidcSettings,
    now: u64,
) -> Result<Login, IdentityError> {
    let failed = |error: jsonwebtoken::errors::Error| IdentityError::Token(error.to_string());
    let header = jsonwebtoken::decode_header(token).map_err(failed)?;
    if !settings.algorithms.contains(&header.alg) {
        return Err(IdentityError::Algorithm(format!("{:?}", header.alg)));
    }
    let mut rules = Validation::new(header.alg);
    rules.leeway = CLOCK_SKEW.as_secs();
    rules.validate_nbf = true;
    rules.set_issuer(&[&settings.issuer]);
    rules.set_audience(&[&settings.audience]);
    rules.required_spec_claims = ["exp", "iss", "aud", "sub"].map(str::to_owned).into();
    let fits = |key: &&Jwk| is_for(key, header.alg) && header.kid == key.common.key_id;
    // Without a name of the key there has to be one only.
    let mut fitting = keys.keys.iter().filter(|key| match &header.kid {
        Some(_) => fits(key),
        None => is_for(key, header.alg),
    });
    let key = fitting.next().ok_or(IdentityError::UnknownKey)?;
    if header.kid.is_none() && fitting.next().is_some() {
        return Err(IdentityError::UnknownKey);
    }
    let key = DecodingKey::from_jwk(key).map_err(failed)?;
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &rules);
    let claims = claims.map_err(failed)?.claims;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if let Some(client) = text("azp").filter(|client| *client != settings.client_id) {
        return Err(IdentityError::OtherClient(printable(client)));
    }
    let made = claims.get("iat").and_then(Value::as_u64).unwrap_or(0);
    let skew = CLOCK_SKEW.as_secs();
    if made.saturating_add(FRESH + skew) < now || made > now.saturating_add(skew) {
        return Err(IdentityError::NotFresh(made));
    }
    let subject = text("sub").filter(|subject| is_name(subject));
    let subject = subject.ok_or(IdentityError::NoName)?.to_owned();
    // Whoever may write any address into their profile is not who that address belongs to.
    let is_verified =
        settings.name_claim != "email" || claims.get("email_verified").is_none_or(is_true);
    let name = text(&settings.name_claim).filter(|name| is_verified && is_name(name));
    Ok(Login {
        issuer: settings.issuer.clone(),
        name: name.map_or_else(|| subject.clone(), str::to_owned),
        subject,
        groups: groups(&claims, &settings.groups_claim)?,
    })
}

/// Some providers write it as a text.
fn is_true(value: &Value) -> bool {
    matches!(value, Value::Bool(true)) || value.as_str() == Some("true")
}

/// Whether a key is for signatures by this algorithm, as far as it says.
fn is_for(key: &Jwk, algorithm: jsonwebtoken::Algorithm) -> bool {
    let is_for_signatures = key
        .common
        .public_key_use
        .as_ref()
        .is_none_or(|it| *it == PublicKeyUse::Signature);
    let says_so = key.common.key_algorithm.is_none_or(|named| {
        let named: Result<jsonwebtoken::Algorithm, _> = named.to_string().parse();
        named.is_ok_and(|named| named == algorithm)
    });
    let family = DecodingKey::from_jwk(key).map(|key| key.family());
    is_for_signatures
        && says_so
        && family.is_ok_and(|family| family.algorithms().contains(&algorithm))
}

/// The groups: a list of texts, or one text.
fn groups(claims: &Map<String, Value>, claim: &str) -> Result<Vec<String>, IdentityError> {
    let is_elsewhere = claims
        .get("_claim_names")
        .and_then(|names| names.get(claim))
        .is_some();
    if is_elsewhere {
        return Err(IdentityError::GroupsElsewhere);
    }
    let within = || {
        let mut names = claim.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    };
    let found = match claims.get(claim).or_else(within) {
        Some(Value::Array(groups)) if groups.len() > GROUPS => return Err(IdentityError::Groups),
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(group)) => vec![group.as_str()],
        _ => Vec::new(),
    };
    let groups: HashSet<&str> = found.into_iter().filter(|group| is_name(group)).collect();
    let mut groups: Vec<_> = groups.into_iter().map(str::to_owned).collect();
    groups.sort_unstable();
    Ok(groups)
}

/// Whether a text can stand in lists and in the log.
fn is_name(text: &str) -> bool {
    (1..=NAME).contains(&text.len()) && !text.chars().any(common::outside::is_unprintable)
}

fn printable(text: &str) -> String {
    let text: String = text.chars().take(NAME).collect();
    common::outside::printable(&text).into_owned()
}

#[cfg(test)]
mod tests;
