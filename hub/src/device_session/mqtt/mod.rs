//! From an MQTT connection to a device's session: CONNECT, presence, and what is kept of earlier
//! connections.

pub(super) mod connect;
pub mod machine;

use std::net::SocketAddr;

use common::limits;
use common::mqtt::{PacketIo, Transport};
use common::telemetry::AUDIT;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::connect::{Admitted, connect, unavailable};
use super::session::Session;
use super::{Peer, Refused};
use crate::admission::Place;
use crate::auth::DevicePrincipal;
use crate::boxed::boxed;
use crate::registry::{RegistryError, Subscriptions};
use crate::state::HubState;

/// Serves one device connection from its CONNECT to its end, over any byte stream.
/// `certificate` is what the device showed in TLS, and `place` its place among strangers,
/// until it has shown who it is. Ends within moments when `stop` is cancelled.
pub async fn serve<S: Transport>(
    state: &HubState,
    stream: S,
    certificate: Option<CertificateDer<'static>>,
    address: SocketAddr,
    transport: &'static str,
    place: &Place,
    stop: &CancellationToken,
) {
    let mut io = PacketIo::new(stream, limits::MQTT_CONNECT_PACKET);
    io.set_limit(limits::MQTT_CONNECT_PACKET);
    let handshake = connect(&mut io, certificate.as_ref(), &state.auth, place);
    let result = tokio::select! {
        result = timeout(limits::STRANGER, handshake) => result,
        () = place.gone() => {
            return tracing::debug!(peer = %address, transport, "no CONNECT came, and others want its place");
        }
        () = stop.cancelled() => return,
    };
    let admitted = match result {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(error @ Refused::Connect { .. })) => {
            return tracing::warn!(peer = %address, transport, "{error}");
        }
        Ok(Err(error)) => {
            tracing::debug!(peer = %address, transport, "{error}");
            let _ = timeout(limits::CLOSE, io.break_off()).await;
            return;
        }
        Err(_) => return tracing::debug!(peer = %address, transport, "no CONNECT came in time"),
    };
    place.leave();
    drop(certificate);
    io.set_limit(limits::MQTT_PACKET);
    boxed(|| converse(state, io, admitted, address, transport, stop)).await;
}

/// The same once the device has shown who it is.
async fn converse<S: Transport>(
    state: &HubState,
    mut io: PacketIo<S>,
    admitted: Admitted,
    address: SocketAddr,
    transport: &'static str,
    stop: &CancellationToken,
) {
    let identity = admitted.principal.identity.clone();
    let peer = Peer {
        identity: &identity,
        address,
        transport,
    };
    let credential = admitted.principal.credential.clone();
    let presence = state.presence.admit(&admitted.principal);
    // What was changed between proof and presence has reached no session.
    if let Err(error) = state.auth.still_valid(&identity, &credential).await {
        return tracing::warn!(device = %identity, peer = %address, "session ended: {error}");
    }
    let kept = match session_state(state, &admitted, presence.has_displaced).await {
        Ok(kept) => kept,
        Err(error) => {
            tracing::warn!(device = %identity, peer = %address, "session ended: {error}");
            return unavailable(&mut io).await;
        }
    };
    tracing::info!(name: AUDIT, device = %peer.identity, peer = %peer.address, transport = peer.transport, "device connected");
    let session = Session::new(state, io, presence, admitted, kept, stop);
    match session.run().await {
        (end, 0) => {
            tracing::info!(name: AUDIT, device = %peer.identity, peer = %peer.address, "device disconnected: {end}");
        }
        (end, telemetry) => {
            tracing::info!(name: AUDIT, device = %peer.identity, peer = %peer.address, telemetry, "device disconnected: {end}");
        }
    }
}

/// What the identity has subscribed in earlier connections. With a clean session it is
/// forgotten, before the device is answered; what a connection was just storing when this one
/// displaced it, included: one write waits for the other.
async fn session_state(
    state: &HubState,
    admitted: &Admitted,
    has_displaced: bool,
) -> Result<Subscriptions, RegistryError> {
    let DevicePrincipal {
        identity,
        generation_id,
        ..
    } = &admitted.principal;
    let kept = state
        .registry
        .subscriptions(identity, generation_id)
        .await
        .or_else(|error| match error {
            // What cannot be read is as good as lost: session present 0 says so, and the device
            // subscribes.
            RegistryError::Damaged { .. } => {
                tracing::warn!(device = %identity, "{error}");
                Ok(Subscriptions::new())
            }
            error => Err(error),
        })?;
    if !admitted.clean_session || (kept.is_empty() && !has_displaced) {
        return Ok(kept);
    }
    let none = Subscriptions::new();
    let forget = state
        .registry
        .keep_subscriptions(identity, generation_id, none);
    forget.await?;
    Ok(Subscriptions::new())
}
