//! One leg from its upgrade to its end: it meets the other, and the first of the two runs the
//! relay.

use std::future::poll_fn;
use std::net::SocketAddr;

use common::identity::Leg;
use common::websocket::{CloseFrame, Data, Incoming};
use common::wire::stream::carries_session;
use tokio::sync::oneshot;

use crate::events::{Event, Outcome};
use crate::legs::{LegPlace, Meeting, Unpaired};
use crate::limits;
use crate::quotas::Quotas;
use crate::relay::{DISCONNECTED, RelayEnd, abort, close_for_violation, relay};
use crate::state::LegSocket;

/// Serves one leg to its end. Its token was good, and its place is claimed.
///
/// Dropped, it closes the connection, and the stream with it.
pub async fn serve(
    leg: Leg,
    mut socket: LegSocket,
    mut place: Box<LegPlace<LegSocket>>,
    peer: SocketAddr,
    quotas: &Quotas,
) {
    place.events().emit(Event::LegConnected {
        stream: place.described(),
        leg,
        peer,
    });
    if carries_session(&place.name) {
        socket.get_mut().get_mut().steady();
    }
    match place.meet(socket) {
        Meeting::Second => {}
        Meeting::Gone(socket) => abort(socket).await,
        Meeting::First(socket, partner) => {
            let met = wait(leg, socket, partner, &mut place).await;
            let Some((socket, held, partner)) = met else {
                return;
            };
            // Until it has ended, it is open.
            let meter = place.events().counts().meters().open();
            let opening = place.since.elapsed();
            place.events().emit(Event::Stream(
                place.described(),
                Outcome::Established { opening },
            ));
            let (policy, identity) = (&place.opener.policy, &place.identity);
            let limited = quotas.meters(policy, identity);
            let outcome = relay(leg, socket, held, partner, &meter, limited, &place.cancel).await;
            drop(meter);
            if let RelayEnd::Over(over) = &outcome.end {
                quotas.report(over, Some(policy), Some(identity));
            }
            let outcome = Outcome::Closed {
                to_device: outcome.to_device,
                to_service: outcome.to_service,
                duration: outcome.duration,
                ended_by: outcome.end.ended_by(),
                end: &outcome.end,
                kind: outcome.end.kind(),
            };
            place
                .events()
                .emit(Event::Stream(place.described(), outcome));
        }
    }
}

/// Waits for the other leg, and holds at most one message of this one meanwhile.
/// `None`: the stream has ended, and the leg was closed.
async fn wait(
    leg: Leg,
    mut socket: LegSocket,
    mut partner: oneshot::Receiver<LegSocket>,
    place: &mut LegPlace<LegSocket>,
) -> Option<(LegSocket, Option<Data>, LegSocket)> {
    let mut held: Option<Data> = None;
    let why = loop {
        let reading = held.is_none();
        tokio::select! {
            // A stream that has both its legs ends as such.
            biased;
            other = &mut partner => match other {
                Ok(other) => {
                    place.pair();
                    return Some((socket, held, other));
                }
                Err(_) => {
                    abort(socket).await;
                    break Unpaired::Cancelled;
                }
            },
            () = place.cancel.cancelled() => {
                abort(socket).await;
                break Unpaired::Cancelled;
            }
            incoming = poll_fn(|cx| socket.poll_incoming(cx)), if reading => match incoming {
                Ok(Incoming::Data(data)) => held = Some(data),
                Ok(Incoming::Closed(_)) => {
                    // Without its other leg the stream never was: no Close of it is a normal end.
                    socket.answer_close(CloseFrame::ERROR, DISCONNECTED);
                    let flush = poll_fn(|cx| socket.poll_flush(cx));
                    let _ = tokio::time::timeout(limits::LEG_CLOSE, flush).await;
                    break Unpaired::Closed(leg);
                }
                Err(error) => {
                    close_for_violation(socket, &error).await;
                    break Unpaired::Lost(leg, error);
                }
            },
        }
    };
    place.leave(partner, &why);
    None
}
