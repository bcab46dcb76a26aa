//! A connection that was requested, and that nothing is copied for yet.

use std::future::poll_fn;
use std::task::Poll;

use crate::drive::clock;
use crate::drive::connection::{ConnectionEnd, end_of_broken};
use crate::drive::shared::SharedSession;
use crate::proto::connection::Inbound;
use crate::proto::inner::ConnectionId;

/// A connection that was requested of the device. Dropping it gives it up, and so does dropping what
/// [`into_parts`](Self::into_parts) returns without running it.
#[derive(Debug)]
pub struct NewConnection {
    session: SharedSession,
    id: ConnectionId,
    is_taken: bool,
}

impl NewConnection {
    /// Requests it; `None` when the session is over or full.
    pub fn open(session: &SharedSession) -> Option<Self> {
        let id = session.open()?;
        Some(Self {
            session: session.clone(),
            id,
            is_taken: false,
        })
    }

    /// Its session.
    pub fn session(&self) -> &SharedSession {
        &self.session
    }

    /// Its id in the session.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Waits until the device has opened it: its target is connected. Waits for as long as the
    /// session lives; the future may be dropped and called again.
    ///
    /// # Errors
    /// [`ConnectionEnd`] when it ended before that.
    pub async fn opened(&self) -> Result<(), ConnectionEnd> {
        let id = self.id;
        poll_fn(|cx| {
            let polled = self.session.with(|state| {
                state.register(id, cx);
                if state.session.is_broken(id) {
                    return Poll::Ready(None);
                }
                if state.session.is_opened(id) {
                    return Poll::Ready(Some(Ok(())));
                }
                match state.session.take(id, clock::now()) {
                    Inbound::Pending => Poll::Pending,
                    Inbound::Reset => Poll::Ready(None),
                    Inbound::Refused { code, text } => {
                        Poll::Ready(Some(Err(ConnectionEnd::Refused { code, text })))
                    }
                    // What sends data is open.
                    Inbound::Finished => Poll::Ready(Some(Ok(()))),
                    Inbound::Data(bytes) => {
                        state.session.give_back_inbound(id, bytes, clock::now());
                        Poll::Ready(Some(Ok(())))
                    }
                }
            });
            if polled.is_ready() {
                // The carrier's task has the timer of what was given back.
                self.session.with_output(|_| ());
            }
            polled.map(|end| end.unwrap_or_else(|| Err(end_of_broken(&self.session))))
        })
        .await
    }

    /// The session and the connection, to be run at once.
    pub fn into_parts(mut self) -> (SharedSession, ConnectionId) {
        self.is_taken = true;
        (self.session.clone(), self.id)
    }
}

impl Drop for NewConnection {
    fn drop(&mut self) {
        if !self.is_taken {
            self.session.release(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::proto::frame::Frame;
    use crate::proto::inner::{Inner, RefusedCode};
    use crate::proto::machine::{CarrierId, Role};
    use crate::proto::proof::SessionId;

    fn session() -> (SharedSession, CarrierId) {
        let live = SharedSession::new(SessionId::random(), Role::Service);
        let carrier = live.attach(&live.freeze(), 0).unwrap();
        (live, carrier)
    }

    fn receive(live: &SharedSession, carrier: CarrierId, id: ConnectionId, inners: &[Inner]) {
        let mut bytes = BytesMut::new();
        inners.iter().for_each(|inner| inner.encode(id, &mut bytes));
        live.with(|state| {
            let frame = Frame::Data {
                offset: state.session.received_bytes(),
                bytes: bytes.freeze(),
                wants_ack: false,
            };
            state.session.receive(carrier, frame.encode(), clock::now())
        })
        .unwrap();
    }

    #[tokio::test]
    async fn it_is_opened_or_refused_and_data_is_kept() {
        let (live, carrier) = session();
        let new = NewConnection::open(&live).unwrap();
        tokio::select! {
            biased;
            _ = new.opened() => panic!("the device has not answered"),
            () = std::future::ready(()) => {}
        }
        receive(
            &live,
            carrier,
            new.id(),
            &[Inner::Opened, Inner::Data("banner".into())],
        );
        new.opened().await.unwrap();
        new.opened().await.unwrap();
        let (live, id) = new.into_parts();
        let inbound = live.with(|state| state.session.take(id, clock::now()));
        assert!(matches!(inbound, Inbound::Data(bytes) if bytes == "banner"));
        let other = NewConnection::open(&live).unwrap();
        let refusal = Inner::Refused {
            code: RefusedCode::TargetRefused,
            text: String::new(),
        };
        receive(&live, carrier, other.id(), &[refusal]);
        let end = other.opened().await.unwrap_err();
        assert!(matches!(end, ConnectionEnd::Refused { .. }), "{end:?}");
    }

    #[tokio::test]
    async fn one_that_is_dropped_is_given_up() {
        let (live, _) = session();
        let new = NewConnection::open(&live).unwrap();
        assert_eq!(live.connections(), 1);
        drop(new);
        assert_eq!(live.connections(), 0);
    }
}
