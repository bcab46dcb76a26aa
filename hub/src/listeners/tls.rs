//! TLS for the hub's listeners: the certificate in the slot, and client certificates taken as
//! they come.

use std::sync::Arc;

use common::boxed::boxed;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::ResolvesServerCert;
use rustls::{Error, ServerConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::admission::{Guarded, Place};
use crate::auth::AnyClientCertificate;
use crate::events::{Connection, Event};
use crate::limits;
use crate::state::LegStream;
use crate::tls::CertificateSlot;

/// The server's side of TLS on one listener.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl ServerTls {
    /// TLS 1.2 and 1.3 with the certificate in the slot, and these ALPN protocols.
    ///
    /// # Errors
    /// When the provider lacks what is needed.
    pub fn new(slot: &Arc<CertificateSlot>, alpn: &[&[u8]]) -> Result<Self, Error> {
        let provider: Arc<CryptoProvider> = common::tls::provider();
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(AnyClientCertificate(provider)))
            .with_cert_resolver(Arc::clone(slot) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // Resumption without memory at the hub; one ticket is enough for our clients.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands within a stranger's time; `None` when it fails, which is the
    /// stranger's affair, and when its place is wanted. May be dropped.
    pub async fn accept(&self, socket: TcpStream, place: &Place) -> Option<Box<LegStream>> {
        let handshake = async {
            // A client that sends nothing costs no state of TLS.
            let _ = socket.peek(&mut [0]).await?;
            let guarded = Guarded::new(socket, place.allowance());
            boxed(|| self.0.accept(guarded)).await.map(Box::new)
        };
        let result = tokio::select! {
            result = timeout(place.handshake_time(), handshake) => result,
            () = place.gone() => return None,
        };
        match result {
            Ok(Ok(mut stream)) => {
                let connection = stream.get_mut().1;
                connection.set_buffer_limit(Some(limits::TLS_WRITE_BUFFER));
                Some(stream)
            }
            Ok(Err(error)) => {
                Event::Connection(Connection::TlsFailed(&error)).emit();
                None
            }
            Err(_) => {
                Event::Connection(Connection::TlsTooSlow).emit();
                None
            }
        }
    }
}

/// The certificate that a client showed, if any.
pub fn client_certificate(stream: &LegStream) -> Option<CertificateDer<'static>> {
    let (_, connection) = stream.get_ref();
    let certificate = connection.peer_certificates()?.first()?;
    Some(certificate.clone().into_owned())
}
