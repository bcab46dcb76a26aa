//! HTTPS: connections, and what they become. Where a request goes is the router's matter
//! ([`crate::api::router`]).

mod body;
mod upgrade;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use common::boxed::boxed;
use common::wire::problem::{BodyFamily, ErrorCode};
use http::{HeaderValue, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::body::read_body;
use super::Permit;
use super::head::read_head;
use super::tls::{ServerTls, client_certificate};
use super::write_deadline::WriteDeadline;
use crate::admission::{Beyond, Place, Verdict};
use crate::answer::Answer;
use crate::api;
use crate::api::router::{self, Route, Target};
use crate::events::{self, Event};
use crate::limits;
use crate::refusal::Refusal;
use crate::state::{HubState, LegStream};

/// What the connections of the HTTPS listener share.
pub struct HttpListener {
    /// The hub.
    pub state: HubState,
    /// TLS of this listener.
    pub tls: ServerTls,
    /// Owns what upgraded connections become.
    pub tasks: TaskTracker,
    /// Cancelled when requests shall end.
    pub stop: CancellationToken,
    /// Cancelled when device sessions shall end.
    pub stop_sessions: CancellationToken,
}

/// Bytes that a stranger may send for one request: a whole record of TLS, since many write
/// the head and the body, which waits, in one.
const REQUEST: usize = 17 << 10;
/// Largest head of a further request; the library has room for no less.
const FURTHER_HEAD: usize = 8 << 10;

/// One connection's context.
#[derive(Clone)]
struct Connection {
    listener: Arc<HttpListener>,
    peer: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    /// Held to the end of what the connection becomes.
    permit: Arc<Permit>,
    /// Among strangers, until a request shows who it is.
    place: Arc<Place>,
}

impl HttpListener {
    /// Serves one connection to its end, or to its upgrade.
    ///
    /// Dropped, it closes the connection.
    pub async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        permit: Permit,
        place: Place,
    ) {
        let stream = tokio::select! {
            stream = self.tls.accept(socket, &place) => stream,
            () = self.stop.cancelled() => None,
        };
        let Some(mut stream) = stream else { return };
        place.allow(REQUEST, Beyond::Wait);
        let head = tokio::select! {
            head = timeout(place.handshake_time(), read_head(&mut stream)) => head.ok().flatten(),
            () = place.gone() => None,
            () = self.stop.cancelled() => None,
        };
        let Some(head) = head else { return };
        let stream = WriteDeadline::new(stream, head.into());
        // In memory of its own: who does not get so far does not need it.
        boxed(|| self.converse(stream, peer, permit, place)).await;
    }

    /// The same once the head of a request is there.
    async fn converse(
        self: Arc<Self>,
        stream: WriteDeadline<Box<LegStream>>,
        peer: SocketAddr,
        permit: Permit,
        place: Place,
    ) {
        let stop = self.stop.clone();
        let place = Arc::new(place);
        let connection = Connection {
            certificate: client_certificate(stream.get_ref()),
            listener: self,
            peer,
            permit: Arc::new(permit),
            place: Arc::clone(&place),
        };
        let service = service_fn(move |request| {
            let connection = connection.clone();
            // The library keeps room for one such future while there is none.
            boxed(|| async move { Ok::<_, Infallible>(connection.answer(request).await) })
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(place.handshake_time())
            .max_buf_size(FURTHER_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut serving = std::pin::pin!(serving);
        let result = tokio::select! {
            result = serving.as_mut() => result,
            () = place.gone() => {
                return Event::Connection(events::Connection::HttpDisplaced { peer }).emit();
            }
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                match timeout(limits::CLOSE, serving).await {
                    Ok(result) => result,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = result {
            let reason = &error;
            Event::Connection(events::Connection::HttpFailed { peer, reason }).emit();
        }
    }
}

impl Connection {
    /// Answers a request. Who is refused again and again waits for it, and is then closed.
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let mut answer = self.route(request).await;
        let is_refused = match answer.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
            status => status.is_client_error() && !self.place.is_known(),
        };
        if is_refused && self.place.refused().await == Verdict::Close {
            let headers = answer.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.place.allow(REQUEST, Beyond::Wait);
        }
        answer
    }

    async fn route(&self, request: Request<Incoming>) -> Answer {
        if request.version() == Version::HTTP_11
            && request.headers().get_all(header::HOST).iter().count() != 1
        {
            // RFC 9112, 3.2.
            return refuse(Refusal::new(
                ErrorCode::ARGUMENT_INVALID,
                "an HTTP/1.1 request has one Host header",
            ));
        }
        match router::route(request.method(), request.uri().path()) {
            Ok(Route::Mqtt) => self.mqtt(request),
            Ok(Route::Leg(leg)) => self.leg(leg, request),
            Ok(Route::Enrolment) => {
                let redeemed = self.redeem(request).await;
                redeemed.unwrap_or_else(|refusal| refusal.into_answer(BodyFamily::Registry))
            }
            Ok(Route::Rest(target)) => {
                let family = target.family;
                self.rest(*target, request).await.unwrap_or_else(|refusal| {
                    let event = events::Connection::RequestRefused {
                        peer: self.peer,
                        code: refusal.code.number,
                        reason: &refusal,
                    };
                    Event::Connection(event).emit();
                    refusal.into_answer(family)
                })
            }
            Err(refusal) => refuse(refusal),
        }
    }

    /// Redeems an enrolment code. The caller is a stranger until the code is found to be valid.
    async fn redeem(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let HttpListener { state, stop, .. } = &*self.listener;
        let content = read_body(&mut request.into_body(), &state.limits).await?;
        let certificate = self.certificate.as_ref();
        tokio::select! {
            redeemed = api::enrolments::redeem(state, certificate, self.peer, &content) => redeemed,
            () = stop.cancelled() => Err(Refusal::new(
                ErrorCode::SERVICE_UNAVAILABLE,
                "the hub is stopping",
            )),
        }
    }

    async fn rest(&self, target: Target, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let (parts, mut body) = request.into_parts();
        let HttpListener { state, stop, .. } = &*self.listener;
        let access = &target.access;
        let caller = access
            .authorise(&state.auth, &parts.headers, self.certificate.as_ref())
            .await
            .map_err(|error| {
                let (peer, reason) = (self.peer, &error);
                Event::ServiceRefused { peer, reason }.emit();
                error.into_refusal()
            })?;
        self.place.leave();
        // What is not read stays where it is until the answer is there.
        let content = if target.has_body {
            read_body(&mut body, &state.limits).await?
        } else {
            Bytes::new()
        };
        let request = api::Request {
            caller,
            peer: self.peer,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body: content,
        };
        api::handle(target.call?, request, state, stop).await
    }
}

fn refuse(refusal: Refusal) -> Answer {
    refusal.into_answer(BodyFamily::Nested)
}
