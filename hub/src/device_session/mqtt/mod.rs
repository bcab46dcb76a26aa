//! MQTT as the protocol of a device's session, over any byte stream: from CONNECT to the end. Its
//! rules are in [`machine`], without I/O.

mod connect;
mod connection;
pub mod machine;
mod stored;
mod topics;

use std::net::SocketAddr;

use common::boxed::boxed;
use common::limits;
use common::mqtt::{PacketIo, Transport};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::connect::{Admitted, CONNECT_PACKET, Refused, connect, unavailable};
use self::connection::Connection;
use self::machine::Machine;
use self::stored::Stored;
use super::session::Session;
use crate::admission::Place;
use crate::auth::ClientChain;
use crate::events::{self, Bound, Event};
use crate::state::HubState;

/// Bytes that a stranger may send for its CONNECT, in records of TLS and frames of WebSocket.
pub const STRANGER_READS: usize = CONNECT_PACKET + (2 << 10);

/// Serves one device connection from its CONNECT to its end, over any byte stream.
/// `certificate` is what the device showed in TLS, and `place` its place among strangers,
/// until it has shown who it is. Ends within moments when `stop` is cancelled, which is how to end
/// it: dropped, it leaves the device without an answer.
pub async fn serve<S: Transport>(
    state: &HubState,
    stream: S,
    certificate: Option<ClientChain>,
    address: SocketAddr,
    transport: &'static str,
    place: &Place,
    stop: &CancellationToken,
) {
    let mut io = PacketIo::new(stream, CONNECT_PACKET);
    io.set_limit(CONNECT_PACKET);
    let no_connect = |reason: events::Reason<'_>| {
        let event = events::Connection::NoConnect {
            peer: address,
            transport,
            reason,
        };
        state.events.emit(Event::Connection(event));
    };
    let handshake = connect(&mut io, certificate.as_ref(), &state.auth, place);
    let result = tokio::select! {
        result = timeout(place.handshake_time(), handshake) => result,
        () = place.gone() => {
            state.events.counts().bound(Bound::Strangers);
            return no_connect(&Refused::Displaced);
        }
        () = stop.cancelled() => return,
    };
    let admitted = match result {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(error @ Refused::Connect { .. })) => {
            let kind = error.kind();
            return state.events.emit(Event::DeviceRefused {
                peer: address,
                transport,
                reason: &error,
                kind,
            });
        }
        Ok(Err(error)) => {
            no_connect(&error);
            let _ = timeout(limits::CLOSE, io.break_off()).await;
            return;
        }
        Err(_) => return no_connect(&Refused::Late),
    };
    place.leave();
    drop(certificate);
    io.set_limit(state.limits.now().packet);
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
    let Admitted {
        principal,
        silence,
        clean_session,
    } = admitted;
    let identity = principal.identity.clone();
    let not_opened = |reason: events::Reason<'_>| {
        state.events.emit(Event::SessionNotOpened {
            device: &identity,
            peer: address,
            reason,
        });
    };
    // Its session before this one stays until it is its turn.
    let may_connect = tokio::select! {
        may_connect = state.quotas.may_connect(&identity) => may_connect,
        () = stop.cancelled() => false,
    };
    if !may_connect {
        // That it comes too often was reported when it had to wait.
        return unavailable(&mut io).await;
    }
    let session = match Session::open(state, principal, stop).await {
        Ok(session) => session,
        Err(error) => return not_opened(&error),
    };
    let (principal, has_displaced) = (session.principal(), session.has_displaced());
    let load = Stored::load(state, principal, clean_session, has_displaced);
    let (stored, subscriptions) = match load.await {
        Ok(loaded) => loaded,
        Err(error) => {
            not_opened(&error);
            return unavailable(&mut io).await;
        }
    };
    state.events.emit(Event::DeviceConnected {
        device: &identity,
        peer: address,
        transport,
    });
    let _here = state.events.counts().device_session(transport);
    // Boxed: the future would reserve room for it twice, here and in what it is moved to.
    let connection = Box::new(Connection {
        io,
        session,
        machine: Machine::new(identity.clone(), subscriptions),
        stored,
        silence,
    });
    let (end, telemetry) = connection.run().await;
    state.events.emit(Event::DeviceDisconnected {
        device: &identity,
        peer: address,
        telemetry,
        end: &end,
        kind: end.kind(),
    });
}
