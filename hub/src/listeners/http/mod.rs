//! HTTPS: connections, and what they become. Where a request goes is the router's matter
//! ([`crate::api::router`]).

mod body;
mod upgrade;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use common::boxed::boxed;
use common::permits::Permit;
use common::wire::problem::{BodyFamily, ErrorCode};
use http::{HeaderValue, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::body::read_body;
use super::head::read_head;
use super::tls::{ServerTls, client_certificate};
use super::write_deadline::WriteDeadline;
use crate::admission::{Beyond, Place, Verdict};
use crate::answer::Answer;
use crate::api;
use crate::api::router::{self, Route, Target};
use crate::auth::ClientChain;
use crate::events::{self, Bound, Event};
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
    certificate: Option<ClientChain>,
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
            () = place.gone() => {
                self.state.events.counts().bound(Bound::Strangers);
                None
            }
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
        let sink = self.state.events.clone();
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
                sink.counts().bound(Bound::Strangers);
                return sink.emit(Event::Connection(events::Connection::HttpDisplaced { peer }));
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
            sink.emit(Event::Connection(events::Connection::HttpFailed {
                peer,
                reason,
            }));
        }
    }
}

impl Connection {
    /// Answers a request. Who is refused again and again waits for it, and is then closed.
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let counts = self.listener.state.events.counts();
        let started = Instant::now();
        let (route, mut answer) = self.route(request).await;
        counts.request(route, answer.status(), started.elapsed());
        let is_refused = match answer.status() {
            // A quota is no credential.
            StatusCode::FORBIDDEN if answer.headers().contains_key(header::RETRY_AFTER) => false,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => true,
            status => status.is_client_error() && !self.place.is_known(),
        };
        let is_over = answer.status() == StatusCode::TOO_MANY_REQUESTS;
        self.place.throttled(is_over).await;
        if is_refused && self.place.refused().await == Verdict::Close {
            counts.bound(Bound::Refusals);
            let headers = answer.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.place.allow(REQUEST, Beyond::Wait);
        }
        answer
    }

    /// The name of what was asked for, one of a fixed set, and the answer.
    async fn route(&self, request: Request<Incoming>) -> (&'static str, Answer) {
        if request.version() == Version::HTTP_11
            && request.headers().get_all(header::HOST).iter().count() != 1
        {
            // RFC 9112, 3.2.
            let refusal = Refusal::new(
                ErrorCode::ARGUMENT_INVALID,
                "an HTTP/1.1 request has one Host header",
            );
            return ("none", self.refuse(refusal, BodyFamily::Nested));
        }
        match router::route(request.method(), request.uri().path()) {
            Ok(Route::Mqtt) => ("mqtt", self.mqtt(request)),
            Ok(Route::Leg(leg)) => ("leg", self.leg(leg, request)),
            Ok(Route::Enrolment) => {
                let redeemed = self.redeem(request).await;
                let redeemed =
                    redeemed.unwrap_or_else(|refusal| self.refuse(refusal, BodyFamily::Registry));
                ("enrolment", redeemed)
            }
            Ok(Route::Provider) => {
                let answer = api::login::provider(&self.listener.state);
                let answer =
                    answer.unwrap_or_else(|refusal| self.refuse(refusal, BodyFamily::Registry));
                ("login", answer)
            }
            Ok(Route::Login) => {
                let answer = self.log_in(request).await;
                let answer =
                    answer.unwrap_or_else(|refusal| self.refuse(refusal, BodyFamily::Registry));
                ("login", answer)
            }
            Ok(Route::Rest(target)) => {
                let (name, family) = (target.name, target.family);
                let answer = self.rest(*target, request).await;
                let answer = answer.unwrap_or_else(|refusal| {
                    let event = events::Connection::RequestRefused {
                        peer: self.peer,
                        code: refusal.code.number,
                        reason: &refusal,
                    };
                    self.listener.state.events.emit(Event::Connection(event));
                    self.refuse(refusal, family)
                });
                (name, answer)
            }
            Err(refusal) => ("none", self.refuse(refusal, BodyFamily::Nested)),
        }
    }

    /// The answer of a refusal; a fault of the hub's that is behind it is reported.
    fn refuse(&self, refusal: Refusal, family: BodyFamily) -> Answer {
        refusal.report(&self.listener.state.events);
        refusal.into_answer(family)
    }

    /// Redeems an enrolment code. The caller is a stranger until the code is found to be valid.
    async fn redeem(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let HttpListener { state, stop, .. } = &*self.listener;
        let content = read_body(&mut request.into_body(), &state.limits.now()).await?;
        let certificate = self.certificate.as_ref();
        tokio::select! {
            redeemed = api::enrolments::redeem(state, certificate, self.peer, &content) => redeemed,
            () = stop.cancelled() => Err(Refusal::new(
                ErrorCode::SERVICE_UNAVAILABLE,
                "the hub is stopping",
            )),
        }
    }

    /// Gives a person a token. The caller is a stranger until the provider vouches for them.
    async fn log_in(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let HttpListener { state, stop, .. } = &*self.listener;
        let content = read_body(&mut request.into_body(), &state.limits.now()).await?;
        tokio::select! {
            answer = api::login::log_in(state, self.peer, &content) => answer,
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
                let kind = error.kind();
                state
                    .events
                    .emit(Event::ServiceRefused { peer, reason, kind });
                error.into_refusal()
            })?;
        self.place.leave();
        // What is not read stays where it is until the answer is there.
        let content = if target.has_body {
            read_body(&mut body, &state.limits.now()).await?
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
