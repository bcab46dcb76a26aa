//! The service's end of a session, driven by a test.

use std::time::Duration;

use common::limits;
use common::net::TlsHostStream;
use common::session::frame::Greeting;
use common::session::handshake::{Exchange, HandshakeError};
use common::session::proof::ResumeSecret;
use common::session::{
    CarrierEnd, CarrierId, ConnectionEnd, Role, SessionId, SharedSession, drive_carrier,
    run_connection,
};
use common::tunnel::{Outcome, Traffic};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::raw_service::accepted;
use crate::{RawService, soon};

/// A stream on which the session handshake has not been done yet.
pub type Opening = Exchange<TlsHostStream>;

/// The service's end of a session with a device-proxy.
pub struct RawSession {
    /// Its connections.
    pub live: SharedSession,
    /// Its id.
    pub id: SessionId,
    /// The key that proves the right to resume it.
    pub secret: ResumeSecret,
    /// The device's greeting.
    pub greeting: Greeting,
    /// The task of its present carrier; aborting it loses the stream.
    pub carrying: JoinHandle<CarrierEnd>,
}

impl RawService {
    /// Opens a stream to this target with the prefix of session mode.
    pub async fn opening(&self, device: &str, target: &str) -> Opening {
        let name = format!("_session.{target}");
        let response = self.initiate(device, &name, 10.0, 10.0).await;
        let (url, token) = accepted(&response);
        Exchange::new(self.leg(&url, &token).await)
    }
}

impl RawSession {
    /// Begins a session with this target.
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

    /// Resumes the session over another stream.
    ///
    /// # Errors
    /// Why the device refused.
    pub async fn resume(
        &mut self,
        service: &RawService,
        device: &str,
        target: &str,
    ) -> Result<(), HandshakeError> {
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

    /// Loses its stream without a Close.
    pub async fn lose(&mut self) {
        self.carrying.abort();
        let _ = (&mut self.carrying).await;
        self.live.freeze();
    }

    /// Opens a connection as service-proxy would: the client's end, and the task that copies.
    pub async fn connect(&self) -> (TcpStream, JoinHandle<Outcome<ConnectionEnd>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let live = self.live.clone();
        let id = live.open().unwrap();
        let copying = tokio::spawn(async move {
            let traffic = Traffic::default();
            run_connection(&live, id, socket, &traffic).await
        });
        (client, copying)
    }

    /// Waits for the end of its carrier.
    pub async fn carried(self) -> CarrierEnd {
        soon("the carrier's end", self.carrying).await.unwrap()
    }
}

fn drive(live: &SharedSession, carrier: CarrierId, opening: Opening) -> JoinHandle<CarrierEnd> {
    let live = live.clone();
    let (leg, already_read) = opening.into_parts();
    tokio::spawn(async move { drive_carrier(&live, carrier, leg, already_read).await })
}
