//! The streaming endpoint: one leg arrives, shows its token, meets the other, and the
//! first of the two runs the relay.

use std::future::poll_fn;
use std::net::SocketAddr;

use common::hub_address::HubAddress;
use common::identity::{DeviceIdentity, Leg, StreamId};
use common::session::STREAM_PREFIX;
use common::telemetry::About;
use common::websocket::{CloseFrame, Data, Incoming};
use common::wire::initiation::encode_segment;
use common::{log_about, net};
use tokio::sync::oneshot;

use crate::events::{Event, Outcome};
use crate::legs::{LegPlace, Meeting};
use crate::limits;
use crate::relay::{DISCONNECTED, abort, close_for_violation, relay};
use crate::state::LegSocket;

/// First segment of the streaming endpoint's paths.
pub const PATH_ROOT: &str = "bridges";

/// The URL of one leg: an explicit port and no query, as the C client needs it; the
/// form is the one seen in May 2019 (`docs/protocol.md`, "Streaming endpoints").
pub fn url(hub: &HubAddress, identity: &DeviceIdentity, stream: StreamId, leg: Leg) -> String {
    format!(
        "wss://{}:{}/{PATH_ROOT}/ih/{}/d/{}/sid/{stream}/r/{leg}",
        hub.url_host(),
        hub.https_port(),
        encode_segment(hub.hub_name()),
        encode_segment(identity.device.as_str()),
    )
}

/// Reads stream and leg out of the decoded path segments of such a URL.
pub fn parse_path(segments: &[&str]) -> Option<(StreamId, Leg)> {
    match segments {
        [PATH_ROOT, "ih", _, "d", _, "sid", stream, "r", leg] => {
            Some((StreamId::parse(stream)?, Leg::parse(leg)?))
        }
        _ => None,
    }
}

/// Serves one leg to its end. Its token was good, and its place is claimed.
pub async fn serve(leg: Leg, socket: LegSocket, mut place: LegPlace<LegSocket>, peer: SocketAddr) {
    let about = About::stream(Some(&place.stream), &place.name).of(&place.identity);
    log_about!(debug, about.peer(&peer), %leg, "leg connected");
    if place.name.starts_with(STREAM_PREFIX) {
        net::steady(socket.get_ref().get_ref().0.socket());
    }
    match place.meet(socket) {
        Meeting::Second => {}
        Meeting::Gone(socket) => abort(socket).await,
        Meeting::First(socket, partner) => {
            let Some((socket, held, partner)) = wait(socket, partner, &place).await else {
                return Event::Stream(place.described(), Outcome::Unpaired).emit();
            };
            Event::Stream(place.described(), Outcome::Established).emit();
            let outcome = relay(leg, socket, held, partner, &place.cancel).await;
            let outcome = Outcome::Closed {
                to_device: outcome.to_device,
                to_service: outcome.to_service,
                duration: outcome.duration,
                end: &outcome.end,
            };
            Event::Stream(place.described(), outcome).emit();
        }
    }
}

/// Waits for the other leg, and holds at most one message of this one meanwhile.
/// `None`: the stream has ended, and the leg was closed.
async fn wait(
    mut socket: LegSocket,
    mut partner: oneshot::Receiver<LegSocket>,
    place: &LegPlace<LegSocket>,
) -> Option<(LegSocket, Option<Data>, LegSocket)> {
    let mut held: Option<Data> = None;
    loop {
        let reading = held.is_none();
        tokio::select! {
            biased;
            () = place.cancel.cancelled() => {
                abort(socket).await;
                return None;
            }
            other = &mut partner => match other {
                Ok(other) => return Some((socket, held, other)),
                Err(_) => {
                    abort(socket).await;
                    return None;
                }
            },
            incoming = poll_fn(|cx| socket.poll_incoming(cx)), if reading => match incoming {
                Ok(Incoming::Data(data)) => held = Some(data),
                ended => {
                    // Without its other leg the stream never was: no Close of it is a normal end.
                    match &ended {
                        Err(error) => close_for_violation(socket, error).await,
                        Ok(_) => {
                            socket.answer_close(CloseFrame::ERROR, DISCONNECTED);
                            let flush = poll_fn(|cx| socket.poll_flush(cx));
                            let _ = tokio::time::timeout(limits::LEG_CLOSE, flush).await;
                        }
                    }
                    return None;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use common::identity::DeviceId;

    use super::*;

    #[test]
    fn urls_have_port_and_path_and_read_back() {
        let hub = HubAddress::parse("myhub.example.net").unwrap();
        let identity = DeviceIdentity::of_device(DeviceId::parse("a+b%c").unwrap());
        let stream = StreamId::random();
        let url = url(&hub, &identity, stream, Leg::Device);
        let path = url.strip_prefix("wss://myhub.example.net:443/").unwrap();
        assert!(!path.contains('?'));
        let segments: Vec<&str> = path.split('/').collect();
        assert_eq!(parse_path(&segments), Some((stream, Leg::Device)));
        assert_eq!(parse_path(&["bridges", "x"]), None);
    }
}
