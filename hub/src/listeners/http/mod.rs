//! HTTPS: the REST API, MQTT over WebSocket and the streaming endpoint, routed by
//! path.

mod body;
mod upgrade;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use common::clock::unix_now;
use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::wire::problem::{BodyFamily, ErrorCode};
use common::wire::topics::MQTT_WEBSOCKET_PATH;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::body::read_body;
use self::upgrade::bad_upgrade;
use super::Permit;
use super::head::read_head;
use super::tls::{ServerTls, client_certificate};
use super::write_deadline::WriteDeadline;
use crate::admission::{Beyond, Place, Verdict};
use crate::answer::Answer;
use crate::api::{identities, planned, streams, twins};
use crate::auth::{AuthError, Permission, ServicePrincipal};
use crate::boxed::boxed;
use crate::events::Event;
use crate::limits;
use crate::refusal::Refusal;
use crate::state::{HubState, LegStream};
use crate::streaming;

/// What each connection of the HTTPS listener needs.
#[derive(Clone)]
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
    listener: HttpListener,
    peer: SocketAddr,
    certificate: Option<CertificateDer<'static>>,
    /// Held to the end of what the connection becomes.
    permit: Arc<Permit>,
    /// Among strangers, until a request shows who it is.
    place: Arc<Place>,
}

impl HttpListener {
    /// Serves one connection to its end, or to its upgrade.
    pub async fn serve(self, socket: TcpStream, peer: SocketAddr, permit: Permit, place: Place) {
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
        self,
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
                return tracing::debug!(%peer, "closed before a request was authorised: others need its place");
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
            tracing::debug!(%peer, "HTTP connection ended: {error}");
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
        let path = request.uri().path();
        if path == MQTT_WEBSOCKET_PATH {
            let version = request
                .headers()
                .get(header::SEC_WEBSOCKET_VERSION)
                .cloned();
            return self
                .mqtt(request)
                .unwrap_or_else(|| bad_upgrade(version.as_ref()));
        }
        let Some(segments) = decode(path) else {
            return refuse(Refusal::new(
                ErrorCode::ARGUMENT_INVALID,
                "the path is not UTF-8",
            ));
        };
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        if parts.first() == Some(&streaming::PATH_ROOT) {
            return self.leg(&parts, request);
        }
        match self.rest(&parts, request).await {
            Ok(answer) => answer,
            Err((refusal, family)) => {
                tracing::debug!(peer = %self.peer, code = refusal.code.number, "request refused: {refusal}");
                refusal.into_answer(family)
            }
        }
    }

    async fn rest(
        &self,
        segments: &[&str],
        request: Request<Incoming>,
    ) -> Result<Answer, (Refusal, BodyFamily)> {
        let stream_path = match segments {
            ["twins", device, "streams", name] => Some((*device, None, *name)),
            ["twins", device, "modules", module, "streams", name] => {
                Some((*device, Some(*module), *name))
            }
            _ => None,
        };
        if let Some((device, module, name)) = stream_path {
            return self
                .initiate(segments, device, module, name, request)
                .await
                .map_err(|refusal| (refusal, BodyFamily::Nested));
        }
        if let Some(missing) = planned::find(request.method(), segments) {
            let refusal = match self.authorise_missing(&missing, segments, &request).await {
                Ok(()) => missing.refusal(),
                Err(refusal) => refusal,
            };
            return Err((refusal, missing.family));
        }
        self.documents(segments, request)
            .await
            .map_err(|refusal| (refusal, BodyFamily::Registry))
    }

    async fn authorise_missing(
        &self,
        missing: &planned::Missing,
        segments: &[&str],
        request: &Request<Incoming>,
    ) -> Result<(), Refusal> {
        let headers = request.headers();
        let device = match segments {
            ["devices", device, ..] if missing.permission.is_none() => DeviceId::parse(device).ok(),
            _ => None,
        };
        match device {
            Some(device) => {
                self.authorise_owner(headers, Permission::RegistryWrite, segments, &device)
                    .await
            }
            None => {
                let needed = missing.permission.unwrap_or(Permission::Any);
                self.authorise(headers, needed, segments).await.map(drop)
            }
        }
    }

    async fn initiate(
        &self,
        segments: &[&str],
        device: &str,
        module: Option<&str>,
        name: &str,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let principal = self
            .authorise(request.headers(), streams::NEEDS, segments)
            .await?;
        if request.method() != Method::POST {
            return Err(Refusal::wrong_method("POST"));
        }
        let invalid = |error: common::identity::IdentityError| {
            Refusal::new(ErrorCode::ARGUMENT_INVALID, error.to_string())
        };
        let identity = DeviceIdentity {
            device: DeviceId::parse(device).map_err(invalid)?,
            module: module.map(ModuleId::parse).transpose().map_err(invalid)?,
        };
        let state = &self.listener.state;
        tokio::select! {
            answer = streams::initiate(state, &*state.registry, &principal, self.peer, &identity, name, request.headers()) => answer,
            () = self.listener.stop.cancelled() => Err(Refusal::new(
                ErrorCode::SERVICE_UNAVAILABLE,
                "the hub is stopping",
            )),
        }
    }

    /// Identities and twins.
    async fn documents(
        &self,
        segments: &[&str],
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let not_found = || Refusal::new(ErrorCode::NOT_FOUND, "there is no such resource");
        let (parts, body) = request.into_parts();
        let needed = identities::permission(&parts.method, segments)
            .or_else(|| twins::permission(segments))
            // A stranger does not learn what there is not, either.
            .unwrap_or(Permission::Any);
        match identities::owner(segments) {
            Some(device) => {
                self.authorise_owner(&parts.headers, needed, segments, &device)
                    .await?;
            }
            None => drop(self.authorise(&parts.headers, needed, segments).await?),
        }
        let body = read_body(body, &self.listener.state.limits).await?;
        let state = &self.listener.state;
        if let Some(result) = twins::route(&*state.registry, state, &parts.method, segments).await {
            return result;
        }
        identities::route(
            &*state.registry,
            state,
            &parts.method,
            segments,
            parts.uri.query().unwrap_or_default(),
            &parts.headers,
            &body,
        )
        .await
        .unwrap_or_else(|| Err(not_found()))
    }

    async fn authorise(
        &self,
        headers: &HeaderMap,
        needed: Permission,
        segments: &[&str],
    ) -> Result<ServicePrincipal, Refusal> {
        let auth = &self.listener.state.auth;
        auth.service(
            authorization(headers),
            needed,
            &segments.join("/"),
            unix_now(),
        )
        .await
        .inspect(|_| self.place.leave())
        .map_err(|error| self.unauthorised(error))
    }

    /// The same for what the device that it is about may do as well.
    async fn authorise_owner(
        &self,
        headers: &HeaderMap,
        needed: Permission,
        segments: &[&str],
        device: &DeviceId,
    ) -> Result<(), Refusal> {
        let auth = &self.listener.state.auth;
        auth.service_or_device(
            authorization(headers),
            self.certificate.as_ref(),
            needed,
            &segments.join("/"),
            device,
            unix_now(),
        )
        .await
        .inspect(|_| self.place.leave())
        .map_err(|error| self.unauthorised(error))
    }

    fn unauthorised(&self, error: AuthError) -> Refusal {
        let (peer, reason) = (self.peer, &error);
        Event::ServiceRefused { peer, reason }.emit();
        error.into_refusal()
    }
}

fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// Path segments without empty ones, percent-decoded once.
fn decode(path: &str) -> Option<Vec<String>> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| {
            let text = percent_decode_str(segment).decode_utf8().ok()?;
            Some(text.into_owned())
        })
        .collect()
}

fn refuse(refusal: Refusal) -> Answer {
    refusal.into_answer(BodyFamily::Nested)
}
