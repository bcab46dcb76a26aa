//! Certificates, connections, and what devices do in their sessions.

use common::identity::DeviceIdentity;
use common::log_about;
use common::report::chain;
use common::telemetry::About;

use crate::events::{Certificate, Connection, InSession};

/// What concerns the server's certificate, and the CA that proxies and SDK clients need.
pub(super) fn write_certificate(certificate: Certificate<'_>) {
    match certificate {
        Certificate::CaMade {
            file,
            host,
            is_replaced: true,
        } => {
            tracing::warn!(ca = %file.display(), host, "made a new CA, since the old one is not for this host name or about to expire: give this file to all proxies and SDK clients, the old one is of no more use");
        }
        Certificate::CaMade {
            file,
            host,
            is_replaced: false,
        } => {
            tracing::info!(ca = %file.display(), host, "made a new CA: give this file to proxies and SDK clients");
        }
        Certificate::Renewed => tracing::info!("the TLS certificate was renewed"),
        Certificate::CaRenewed { file } => {
            tracing::warn!(ca = %file.display(), "the CA is a new one: give this file to proxies and SDK clients");
        }
        Certificate::NotRenewed(reason) => {
            tracing::error!("cannot renew the TLS certificate: {}", chain(reason));
        }
        Certificate::Reloaded => tracing::info!("the TLS certificate was read again"),
        Certificate::NotReloaded(reason) => {
            tracing::warn!("the changed TLS files cannot be used: {}", chain(reason));
        }
        Certificate::NotPublished(reason) => {
            tracing::warn!(
                "enrolment codes cannot be made, since the certificate's fingerprint cannot be written: {}",
                chain(reason)
            );
        }
        Certificate::IsCa { file } => {
            tracing::warn!(file = %file.display(), "the TLS certificate is a CA's own, which device-proxy and service-proxy refuse: give a certificate that a CA has signed, or leave --tls-cert out and let the hub make both");
        }
        Certificate::OtherHost { file, host } => {
            tracing::warn!(file = %file.display(), host, "the TLS certificate is not for the host name that this hub is known by, so proxies and SDK clients will refuse it: give one that is, or name the right host with --hostname");
        }
    }
}

/// What a device does in its session, and what goes to it.
pub(super) fn write_in_session(device: &DeviceIdentity, event: InSession<'_>) {
    let about = About::device(device);
    match event {
        InSession::StreamRequest {
            stream,
            name,
            request,
        } => {
            let about = About::stream(stream, &name).of(device);
            log_about!(debug, about, %request, "stream request");
        }
        InSession::StreamAnswer {
            request,
            is_accepted: accepted,
            is_known: known,
        } => log_about!(debug, about, %request, accepted, known, "stream answer"),
        InSession::MethodCall { name, request } => {
            let about = About::stream(None, &name).of(device);
            log_about!(debug, about, %request, "direct method called");
        }
        InSession::MethodAnswer {
            request,
            status,
            is_known: known,
        } => log_about!(debug, about, %request, status, known, "direct method answered"),
        InSession::Reported { version } => {
            log_about!(debug, about, version, "reported properties");
        }
        InSession::TwinRefused { code, reason } => {
            log_about!(
                debug,
                about,
                code,
                "twin request refused: {}",
                chain(reason)
            );
        }
        InSession::Telemetry => log_about!(
            info,
            about,
            "the device sends telemetry; this hub keeps the latest of it and routes none"
        ),
        InSession::MessagesFailed(reason) => log_about!(
            warn,
            about,
            "messages to it are delivered later or again: {}",
            chain(reason)
        ),
        InSession::SubscriptionsDamaged(reason) => log_about!(warn, about, "{}", chain(reason)),
        InSession::SubscriptionsNotStored(reason) => log_about!(
            warn,
            about,
            "its subscriptions hold for this connection only: {}",
            chain(reason)
        ),
    }
}

/// What happens on a connection.
pub(super) fn write_connection(event: Connection<'_>) {
    match event {
        Connection::TlsFailed(reason) => {
            tracing::debug!("a TLS handshake failed: {}", chain(reason));
        }
        Connection::TlsTooSlow => tracing::debug!("a TLS handshake took too long"),
        Connection::NoConnect {
            peer,
            transport,
            reason,
        } => log_about!(
            debug,
            About::connection_from(&peer).transport(&transport),
            "{}",
            chain(reason)
        ),
        Connection::AmqpNotRefused {
            peer,
            transport,
            reason,
        } => log_about!(
            debug,
            About::connection_from(&peer).transport(&transport),
            "refusing AMQP: {}",
            chain(reason)
        ),
        Connection::HttpDisplaced { peer } => log_about!(
            debug,
            About::connection_from(&peer),
            "closed before a request was authorised: others need its place"
        ),
        Connection::HttpFailed { peer, reason } => log_about!(
            debug,
            About::connection_from(&peer),
            "HTTP connection ended: {}",
            chain(reason)
        ),
        Connection::RequestRefused { peer, code, reason } => log_about!(
            debug,
            About::connection_from(&peer),
            code,
            "request refused: {}",
            chain(reason)
        ),
    }
}
