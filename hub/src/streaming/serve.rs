//! One leg from its upgrade to its end: it meets the other, and the first of the two runs the
//! relay.

use std::future::poll_fn;
use std::net::SocketAddr;

use common::identity::Leg;
use common::net;
use common::websocket::{CloseFrame, Data, Incoming};
use common::wire::stream::carries_session;
use tokio::sync::oneshot;

use crate::events::{Event, Outcome};
use crate::legs::{LegPlace, Meeting};
use crate::limits;
use crate::relay::{DISCONNECTED, abort, close_for_violation, relay};
use crate::state::LegSocket;

/// Serves one leg to its end. Its token was good, and its place is claimed.
///
/// Dropped, it closes the connection, and the stream with it.
pub async fn serve(leg: Leg, socket: LegSocket, mut place: LegPlace<LegSocket>, peer: SocketAddr) {
    Event::LegConnected {
        stream: place.described(),
        leg,
        peer,
    }
    .emit();
    if carries_session(&place.name) {
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
