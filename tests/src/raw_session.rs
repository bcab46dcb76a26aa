//! A hand-driven end of a session: the service's.

use std::time::Duration;

use common::limits;
use common::session::frame::Greeting;
use common::session::handshake::{Exchange, GreetError};
use common::session::proof::ResumeSecret;
use common::session::{CarrierEnd, CarrierId, Role, SessionId, SharedSession, drive_carrier};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use crate::raw_service::accepted;
use crate::{RawService, soon};

/// A stream that may come to carry a session.
pub type Opening = Exchange<TlsStream<TcpStream>>;

/// The service's end of a session with a device-proxy.
pub struct RawSession {
    /// Its connections.
    pub live: SharedSession,
    /// Its name.
    pub id: SessionId,
    /// Who knows it may go on with the session.
    pub secret: ResumeSecret,
    /// What the device sent first.
    pub greeting: Greeting,
    /// Its present stream; aborted, it is lost.
    pub carrying: JoinHandle<CarrierEnd>,
}

impl RawService {
    /// A stream to this target that is for a session.
    pub async fn opening(&self, device: &str, target: &str) -> Opening {
        let name = format!("_session.{target}");
        let response = self.initiate(device, &name, 10.0, 10.0).await;
        let (url, token) = accepted(&response);
        Exchange::new(self.leg(&url, &token).await)
    }
}

impl RawSession {
    /// Begins one with this target.
    pub async fn begin(service: &RawService, device: &str, target: &str) -> Self {
        let mut opening = service.opening(device, target).await;
        let greeting = opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
        let (id, secret) = (SessionId::random(), ResumeSecret::random());
        let grace = Duration::from_secs(60);
        opening.hello(id, &secret, grace).await.unwrap();
        let live = SharedSession::new(id, Role::Service);
        let carrier = live.attach(&live.freeze(), 0).unwrap();
        let carrying = drive(&live, carrier, opening);
        Self {
            live,
            id,
            secret,
            greeting,
            carrying,
        }
    }

    /// Asks to go on with it over another stream.
    ///
    /// # Errors
    /// Why the device did not want to.
    pub async fn go_on(
        &mut self,
        service: &RawService,
        device: &str,
        target: &str,
    ) -> Result<(), GreetError> {
        let mut opening = service.opening(device, target).await;
        let greeting = opening.greeting(limits::SESSION_HANDSHAKE).await?;
        let frozen = self.live.freeze();
        let received = opening
            .resume(&greeting, self.id, &self.secret, frozen.received)
            .await?;
        let carrier = self.live.attach(&frozen, received).unwrap();
        let before = drive(&self.live, carrier, opening);
        let before = std::mem::replace(&mut self.carrying, before);
        before.abort();
        Ok(())
    }

    /// Loses its stream, without a word.
    pub async fn lose(&mut self) {
        self.carrying.abort();
        let _ = (&mut self.carrying).await;
        self.live.freeze();
    }

    /// Waits for the end of its stream.
    pub async fn carried(self) -> CarrierEnd {
        soon("the carrier's end", self.carrying).await.unwrap()
    }
}

fn drive(live: &SharedSession, carrier: CarrierId, opening: Opening) -> JoinHandle<CarrierEnd> {
    let live = live.clone();
    let (leg, already_read) = opening.into_parts();
    tokio::spawn(async move { drive_carrier(&live, carrier, leg, already_read).await })
}
