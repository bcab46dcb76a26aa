//! Redeeming enrolment codes (`docs/protocol.md`, "Enrolment"): the one call whose caller has no
//! credential yet. The code is the credential, and a device shows the certificate that it will use.

use std::net::SocketAddr;

use common::clock::unix_now;
use common::connection_string::{
    DeviceConnectionString, DeviceCredential, ServiceConnectionString, ServiceCredential,
};
use common::enrolment::{Code, members};
use common::identity::DeviceId;
use common::wire::problem::ErrorCode;
use pem::Pem;
use serde_json::{Value, json};

use crate::answer::{Answer, json as answer};
use crate::auth::ClientChain;
use crate::documents::invalid;
use crate::events::Event;
use crate::refusal::Refusal;
use crate::registry::{Actor, Claim, Redeemed, Thumbprint};
use crate::state::HubState;

/// Redeems the code in a body. May be dropped: it may then have been redeemed.
///
/// # Errors
/// [`Refusal`] of the registry's family: 401003 for a code that is not valid.
pub async fn redeem(
    state: &HubState,
    certificate: Option<&ClientChain>,
    peer: SocketAddr,
    body: &[u8],
) -> Result<Answer, Refusal> {
    let (code, claim) = read(body)?;
    let thumbprint = certificate.and_then(|certificate| {
        let [_, sha256] = certificate.fingerprints();
        Thumbprint::parse(&sha256)
    });
    let claim = Claim {
        thumbprint,
        ..claim
    };
    let registry = state.registry.acting(&Actor::Enrolment { peer });
    let redeemed = registry.redeem_enrolment(code, claim, unix_now()).await;
    let redeemed = redeemed.map_err(|error| {
        state.events.emit(Event::NotEnrolled {
            peer,
            reason: &error,
        });
        Refusal::from(error)
    })?;
    let host = state.address.clone();
    let mut document = match redeemed {
        Redeemed::Device(identity) => {
            state.events.emit(Event::DeviceEnrolled {
                device: &identity,
                peer,
            });
            let connection_string = DeviceConnectionString {
                host,
                identity: identity.clone(),
                credential: DeviceCredential::X509,
                gateway: None,
            };
            json!({
                (members::DEVICE): identity.device.as_str(),
                (members::CONNECTION_STRING): connection_string.to_secret_text().expose(),
            })
        }
        Redeemed::Operator(policy) => {
            state.events.emit(Event::OperatorEnrolled {
                policy: &policy.name,
                peer,
            });
            let connection_string = ServiceConnectionString {
                host,
                policy: policy.name,
                credential: ServiceCredential::Key(policy.primary),
            };
            json!({
                (members::CONNECTION_STRING): connection_string.to_secret_text().expose(),
            })
        }
    };
    let anchor = state.certificate.as_ref().map(|slot| slot.anchor());
    let authorities = anchor.iter().flat_map(|anchor| &anchor.authorities);
    let pem: String = authorities
        .map(|authority| pem::encode(&Pem::new("CERTIFICATE", authority.to_vec())))
        .collect();
    if let (false, Some(fields)) = (pem.is_empty(), document.as_object_mut()) {
        fields.insert(members::AUTHORITIES.to_owned(), pem.into());
    }
    Ok(answer(&document))
}

/// The code's digest, and the device that the caller wants to be.
fn read(body: &[u8]) -> Result<([u8; 32], Claim), Refusal> {
    // The error would quote the body.
    let body: Value = serde_json::from_slice(body)
        .map_err(|_| Refusal::new(ErrorCode::FORMAT_ERROR, "the body is not JSON"))?;
    let code = body.get(members::CODE).and_then(Value::as_str);
    let code = code.ok_or_else(|| invalid("the body has no code".to_owned()))?;
    let id = |name: &str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => DeviceId::parse(id)
            .map(Some)
            .map_err(|error| invalid(error.to_string())),
        Some(_) => Err(invalid(format!("{name} is not a text"))),
    };
    let claim = Claim {
        device: id(members::DEVICE)?,
        suggested: id(members::SUGGESTED)?,
        thumbprint: None,
    };
    Ok((Code::digest_of(code), claim))
}
