//! Connections that become WebSockets: MQTT, the refusal of AMQP, and legs of streams.

use std::sync::Arc;

use common::boxed::boxed;
use common::identity::{Leg, StreamId};
use common::websocket::{WebSocket, WebSocketBytes, offered_subprotocol, upgrade_answer};
use common::wire::problem::{BodyFamily, ErrorCode};
use common::wire::topics::MQTT_SUBPROTOCOL;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::Connection;
use crate::admission::Beyond;
use crate::answer::Answer;
use crate::api::access::authorization;
use crate::events::Who;
use crate::limits;
use crate::listeners::amqp::{self, AMQP_SUBPROTOCOL};
use crate::listeners::write_deadline::WriteDeadline;
use crate::refusal::Refusal;
use crate::state::{HubState, LegSocket, LegStream};
use crate::{device_session, streaming};

/// The one version of the WebSocket protocol (RFC 6455).
const WEBSOCKET_VERSION: HeaderValue = HeaderValue::from_static("13");

impl Connection {
    /// MQTT over WebSocket, and the refusal of AMQP.
    pub(super) fn mqtt(&self, request: Request<Incoming>) -> Answer {
        let version = request.headers().get(header::SEC_WEBSOCKET_VERSION);
        let version = version.cloned();
        self.upgrade_to_mqtt(request)
            .unwrap_or_else(|| bad_upgrade(version.as_ref()))
    }

    /// `None`: not the upgrade that it should be.
    fn upgrade_to_mqtt(&self, mut request: Request<Incoming>) -> Option<Answer> {
        let wanted = |name: &str| {
            name.eq_ignore_ascii_case(MQTT_SUBPROTOCOL)
                || name.eq_ignore_ascii_case(AMQP_SUBPROTOCOL)
        };
        let subprotocol = offered_subprotocol(request.headers(), wanted)?;
        let is_amqp = subprotocol
            .as_bytes()
            .eq_ignore_ascii_case(AMQP_SUBPROTOCOL.as_bytes());
        let answer = upgrade_answer(&request, Some(subprotocol))?;
        let (listener, peer) = (Arc::clone(&self.listener), self.peer);
        let certificate = self.certificate.clone();
        let place = Arc::clone(&self.place);
        self.upgrade(&mut request, move |stream, read| async move {
            // Boxed: every future through which it is moved would reserve room for it.
            let packet = listener.state.limits.now().packet;
            let limit = packet + limits::MQTT_WEBSOCKET_ROOM;
            let bytes = Box::new(WebSocketBytes::server(stream, limit, &read));
            drop(read);
            if is_amqp {
                let HubState {
                    address, events, ..
                } = &listener.state;
                let (hub, stop) = ((address.name(), events), &listener.stop);
                return amqp::refuse(bytes, hub, peer, "amqp-ws", &place, stop).await;
            }
            place.allow(device_session::STRANGER_READS, Beyond::Fail);
            let (state, stop) = (&listener.state, &listener.stop_sessions);
            let transport = "mqtt-ws";
            device_session::serve(state, bytes, certificate, peer, transport, &place, stop).await;
        });
        Some(answer.map(|()| Full::default()))
    }

    /// One leg at the streaming endpoint; `None`: there is none of this path.
    pub(super) fn leg(
        &self,
        leg: Option<(StreamId, Leg)>,
        mut request: Request<Incoming>,
    ) -> Answer {
        let Some((stream, leg)) = leg else {
            let refusal = Refusal::new(ErrorCode::NOT_FOUND, "there is no such stream");
            return self.refuse(refusal, BodyFamily::Nested);
        };
        let offered = offered_subprotocol(request.headers(), |_| true);
        let Some(answer) = upgrade_answer(&request, offered) else {
            return bad_upgrade(request.headers().get(header::SEC_WEBSOCKET_VERSION));
        };
        let bearer = authorization(request.headers());
        let place = match streaming::claim(&self.listener.state, bearer, stream, leg) {
            // Boxed: each future through which it is moved has room for it.
            Ok(place) => Box::new(place),
            Err(error) => {
                let counts = self.listener.state.events.counts();
                counts.not_believed(Who::Leg, "refused");
                let code = ErrorCode::UNAUTHORIZED_ACCESS;
                return self.refuse(Refusal::new(code, error.to_string()), BodyFamily::Nested);
            }
        };
        self.place.leave();
        let peer = self.peer;
        let quotas = self.listener.state.quotas.clone();
        self.upgrade(&mut request, move |io, read| async move {
            let socket = to_websocket(io, &read);
            drop(read);
            streaming::serve(leg, socket, place, peer, &quotas).await;
        });
        answer.map(|()| Full::default())
    }

    /// Gives the connection to `serve` once the 101 is out, bytes that came behind the
    /// request included.
    fn upgrade<F, S>(&self, request: &mut Request<Incoming>, serve: F)
    where
        F: FnOnce(Box<LegStream>, Vec<u8>) -> S + Send + 'static,
        S: Future<Output = ()> + Send,
    {
        let upgrade = hyper::upgrade::on(request);
        let permit = Arc::clone(&self.permit);
        self.listener.tasks.spawn(async move {
            let Ok(Ok(upgraded)) = timeout(limits::STRANGER, upgrade).await else {
                return;
            };
            if let Ok(parts) = upgraded.downcast::<TokioIo<WriteDeadline<Box<LegStream>>>>() {
                let (stream, unread) = parts.io.into_inner().into_inner();
                // In memory of its own size: the buffers' last pieces would keep all of them.
                let read = [parts.read_buf, unread].concat();
                boxed(|| serve(stream, read)).await;
            }
            drop(permit);
        });
    }
}

/// Takes the stream out of its box. In an `async` block that would be freed only at its end.
fn to_websocket(io: Box<LegStream>, read: &[u8]) -> LegSocket {
    WebSocket::server(*io, read)
}

/// The answer to what is no upgrade. A client that asks for another version of the protocol learns
/// which there is (RFC 6455, 4.4).
fn bad_upgrade(version: Option<&HeaderValue>) -> Answer {
    let refusal = Refusal::new(
        ErrorCode::ARGUMENT_INVALID,
        "this is not the WebSocket upgrade that belongs here",
    );
    let mut answer = refusal.into_answer(BodyFamily::Nested);
    if version.is_some_and(|version| version != WEBSOCKET_VERSION) {
        *answer.status_mut() = StatusCode::UPGRADE_REQUIRED;
        let headers = answer.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION);
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    answer
}
