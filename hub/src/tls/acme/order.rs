//! One order: from an account to a certificate for the hub's key.

use std::sync::Arc;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::challenge::Challenges;
use super::{AcmeError, POLL, error};

/// Orders a certificate for this host and key; the chain, in PEM. `replaces` is one that it takes the
/// place of: orders that the CA has advised may not count for its limits then. When the future is
/// dropped, the CA forgets the order in time.
///
/// # Errors
/// [`AcmeError`].
pub async fn certificate(
    account: &Account,
    host: &str,
    key: &KeyPair,
    challenges: &Arc<Challenges>,
    replaces: Option<CertificateIdentifier<'static>>,
) -> Result<String, AcmeError> {
    let identifiers = [Identifier::Dns(host.to_owned())];
    let mut wanted = NewOrder::new(&identifiers);
    if let Some(replaces) = replaces {
        wanted = wanted.replaces(replaces);
    }
    let mut order =
        account
            .new_order(&wanted)
            .await
            .map_err(|error| match AcmeError::from(error) {
                // An account that was deactivated.
                AcmeError::Refused { kind, .. } if kind == "unauthorized" => AcmeError::NoAccount,
                error => error,
            })?;
    validate(&mut order, host, challenges).await?;
    let mut params = CertificateParams::new(vec![host.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key)?;
    order.finalize_csr(request.der()).await?;
    Ok(order.poll_certificate(&patience()).await?)
}

/// Proves that the name leads here; the CA may remember it from before.
async fn validate(
    order: &mut Order,
    host: &str,
    challenges: &Arc<Challenges>,
) -> Result<(), AcmeError> {
    let mut answering = None;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .ok_or(AcmeError::NoChallenge)?;
        let digest = challenge.key_authorization().digest();
        answering = Some(challenges.answer(host, digest.as_ref())?);
        challenge.set_ready().await?;
    }
    let status = order.poll_ready(&patience()).await;
    drop(answering);
    match status {
        Ok(OrderStatus::Invalid) => Err(refusal(order, host).await?),
        Ok(_) => Ok(()),
        Err(error) => match AcmeError::from(error) {
            // The order's own words are fewer than those of its challenge.
            AcmeError::Refused { .. } => Err(refusal(order, host).await?),
            error => Err(error),
        },
    }
}

/// What the CA has found instead of the answer to its challenge.
async fn refusal(order: &mut Order, host: &str) -> Result<AcmeError, AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let state = authorization.refresh().await?;
        let mut problems = state
            .challenges
            .iter()
            .filter_map(|found| found.error.as_ref());
        if let Some(problem) = problems.next() {
            return Ok(AcmeError::NotFound {
                host: host.to_owned(),
                text: error::text(problem),
            });
        }
    }
    Ok(AcmeError::Refused {
        kind: "invalid".to_owned(),
        text: "it has closed the order, and gives no reason".to_owned(),
    })
}

/// Asks again after 250 ms and twice as long each time, or when the CA says.
fn patience() -> RetryPolicy {
    RetryPolicy::new().timeout(POLL)
}
