//! TLS for the hub's listeners: the certificate in the slot, and client certificates taken as
//! they come.

use std::sync::Arc;

use common::boxed::boxed;
use common::tls::stream::ServerTlsStream;
use rustls::crypto::CryptoProvider;
use rustls::server::ResolvesServerCert;
use rustls::{Error, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::admission::{Guarded, Place};
use crate::auth::{AnyClientCertificate, ClientChain};
use crate::events::{Bound, Connection, Event, Events};
use crate::state::LegStream;
use crate::tls::CertificateSlot;
use crate::tls::acme::{Challenges, PROTOCOL};

/// The server's side of TLS on one listener.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    events: Events,
}

impl ServerTls {
    /// TLS 1.2 and 1.3 with the certificate in the slot, and these ALPN protocols.
    ///
    /// # Errors
    /// When the provider lacks what is needed.
    pub fn new(
        slot: &Arc<CertificateSlot>,
        alpn: &[&[u8]],
        events: &Events,
    ) -> Result<Self, Error> {
        Self::with(
            Arc::clone(slot) as Arc<dyn ResolvesServerCert>,
            alpn,
            events,
        )
    }

    /// The same, and the challenges of a CA are answered.
    ///
    /// # Errors
    /// When the provider lacks what is needed.
    pub fn with_challenges(
        challenges: &Arc<Challenges>,
        alpn: &[&[u8]],
        events: &Events,
    ) -> Result<Self, Error> {
        // Last, so that who also speaks another protocol gets that.
        let alpn = [alpn, &[PROTOCOL]].concat();
        Self::with(
            Arc::clone(challenges) as Arc<dyn ResolvesServerCert>,
            &alpn,
            events,
        )
    }

    fn with(
        resolver: Arc<dyn ResolvesServerCert>,
        alpn: &[&[u8]],
        events: &Events,
    ) -> Result<Self, Error> {
        let provider: Arc<CryptoProvider> = common::tls::provider();
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyClientCertificate(provider)))
            .with_cert_resolver(resolver);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // Resumption without memory at the hub; one ticket is enough for our clients.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(Self {
            config: Arc::new(config),
            events: events.clone(),
        })
    }

    /// Shakes hands within a stranger's time; `None` when it fails, which is the
    /// stranger's affair, when its place is wanted, and when it was a CA's challenge, which is
    /// answered by that. May be dropped.
    pub async fn accept(&self, socket: TcpStream, place: &Place) -> Option<Box<LegStream>> {
        let handshake = async {
            // A client that sends nothing costs no state of TLS.
            let _ = socket.peek(&mut [0]).await?;
            let guarded = Guarded::new(socket, place.allowance());
            boxed(|| ServerTlsStream::accept(&self.config, guarded))
                .await
                .map(Box::new)
        };
        let result = tokio::select! {
            result = timeout(place.handshake_time(), handshake) => result,
            () = place.gone() => {
                self.events.counts().bound(Bound::Strangers);
                return None;
            }
        };
        match result {
            // The CA has seen what it came for.
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(PROTOCOL) => None,
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                self.events
                    .emit(Event::Connection(Connection::TlsFailed(&error)));
                None
            }
            Err(_) => {
                self.events.emit(Event::Connection(Connection::TlsTooSlow));
                None
            }
        }
    }
}

/// The certificates that a client showed, if any.
pub fn client_certificate(stream: &LegStream) -> Option<ClientChain> {
    let (_, connection) = stream.get_ref();
    ClientChain::new(connection.peer_certificates()?)
}
