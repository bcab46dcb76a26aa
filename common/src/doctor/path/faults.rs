//! What the findings of a path mean: the texts of its faults, and what to do about each.

use std::time::Duration;

use super::super::Check;
use super::super::trust::{Seen, day};
use super::{CERTIFICATE, PROXY, TCP, TLS, WEBSOCKET};
use crate::net::{ConnectError, DialError};
use crate::report;
use crate::tls::{BadCertificate, CertificateProblem, find};

/// A certificate that ends sooner is worth a warning: those of ACME are renewed a month before.
const EXPIRES_SOON: Duration = Duration::from_secs(5 * 86_400);
/// What to do about inspection.
pub(super) const EXEMPT: &str = "have the network's administrator exempt this hub from inspection";

/// The check of a certificate that is trusted.
pub(super) fn certificate(seen: &Seen) -> Check {
    let id = CERTIFICATE.0;
    let signers = seen.signers();
    let Some(until) = seen.valid_until() else {
        return Check::ok(id, format!("signed by {signers}"));
    };
    let detail = format!("signed by {signers}, valid until {}", day(until));
    let now = i64::try_from(crate::clock::unix_now()).unwrap_or(i64::MAX);
    let left = u64::try_from(until.saturating_sub(now)).unwrap_or_default();
    if left < EXPIRES_SOON.as_secs() {
        Check::warning(id, format!("{detail}: it ends soon"))
            .remedy("see why the hub has not renewed it")
    } else {
        Check::ok(id, detail)
    }
}

/// A certificate that is refused; `inspection` says of a proxy or firewall that it signs itself.
pub(super) fn bad_certificate(
    bad: &BadCertificate,
    inspection: Option<&str>,
    proxy: Option<&str>,
) -> Check {
    let id = CERTIFICATE.0;
    let is_unknown = matches!(
        bad.problem,
        CertificateProblem::Untrusted
            | CertificateProblem::SelfSigned
            | CertificateProblem::Authority
    );
    let check = match (bad.missing(), inspection, proxy) {
        (_, Some(inspection), _) if is_unknown => {
            let detail = format!("{}; {inspection}", bad.finding);
            Check::failed(id, detail).remedy(format!("{EXEMPT}, or put that CA into --ca-file"))
        }
        (Some(missing), _, _) => {
            let detail = format!(
                "{}; an intermediate certificate is missing: the hub does not send that of \"{missing}\"",
                bad.finding
            );
            Check::failed(id, detail).remedy(
                "give the hub the whole chain: its certificate, followed by those of the intermediate CAs (--tls-cert)",
            )
        }
        (_, _, Some(proxy)) if is_unknown => {
            let detail = format!(
                "{}; TLS may be inspected by the proxy {proxy}, unless the hub has a CA of its own",
                bad.finding
            );
            Check::failed(id, detail).remedy(
                "put the missing CA into the file of --ca-file, or have the proxy exempt this hub",
            )
        }
        _ => Check::failed(id, &bad.finding).remedy(&bad.remedy),
    };
    check.called(CERTIFICATE.1)
}

/// No TCP connection to the hub.
pub(super) fn tcp_failed(error: &DialError) -> Check {
    let detail = report::chain(error);
    let check = Check::failed(TCP.0, detail);
    match error {
        DialError::Timeout { .. } => check.remedy(
            "a firewall swallows the packets, or the host is off: have this port opened outbound, or give --proxy if this network has one",
        ),
        DialError::Connect { source, .. }
            if source.kind() == std::io::ErrorKind::ConnectionRefused =>
        {
            check.remedy("is the hub running, and are HostName and its port right?")
        }
        _ => check.remedy("check this machine's network and its routes"),
    }
}

/// No way through the proxy.
pub(super) fn proxy_failed(error: &DialError, proxy: &str) -> Check {
    let detail = match error {
        // Its text has what to do in it.
        DialError::Proxy { source, .. } => format!("{proxy}: {}", report::chain(source)),
        error => report::chain(error),
    };
    Check::failed(PROXY.0, detail).called(PROXY.1)
}

/// No TLS with what answers on this port.
pub(super) fn tls_failed(error: &DialError, port: u16) -> Check {
    let id = TLS.0;
    let DialError::Tls { source, .. } = error else {
        return Check::failed(id, report::chain(error)).remedy(
            "something on the way swallows TLS: ask the network's administrator whether it is allowed",
        );
    };
    match find::<rustls::Error>(source) {
        Some(rustls::Error::InvalidMessage(_)) => Check::failed(
            id,
            format!("what answers on port {port} does not speak TLS; plain HTTP, or a login page of the network?"),
        )
        .remedy("check the port behind HostName, and whether the network wants a login in a browser"),
        Some(
            rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(
                rustls::AlertDescription::ProtocolVersion
                | rustls::AlertDescription::HandshakeFailure
                | rustls::AlertDescription::InsufficientSecurity,
            ),
        ) => Check::failed(
            id,
            format!("no version of TLS or no cipher in common ({source}); only TLS older than 1.2?"),
        )
        .remedy("TLS 1.2 or 1.3 is needed: update what ends TLS before the hub"),
        _ if is_closed(source) => Check::failed(
            id,
            "the connection was closed during the TLS handshake",
        )
        .remedy(
            "a firewall may cut TLS by the host's name, or what answers is no hub: ask the network's administrator",
        ),
        _ => Check::failed(id, report::chain(error)).remedy("look at the hub's log"),
    }
}

fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as K;
    matches!(
        error.kind(),
        K::UnexpectedEof | K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe
    )
}

/// The upgrade is answered with something else.
pub(super) fn websocket_failed(error: &ConnectError) -> Check {
    let detail = match error {
        ConnectError::Refused { status, .. } => {
            format!("the WebSocket upgrade is answered with {status} instead of 101")
        }
        error => report::chain(error),
    };
    Check::failed(WEBSOCKET.0, detail).remedy(
        "what stands before the hub strips WebSockets: have a proxy or load balancer there let `Upgrade: websocket` through",
    )
}

/// The upgrade is not answered in time.
pub(super) fn websocket_silent(limit: Duration) -> Check {
    let seconds = limit.as_secs_f32();
    Check::failed(
        WEBSOCKET.0,
        format!("the WebSocket upgrade is not answered within {seconds} s"),
    )
    .remedy("what stands before the hub may hold WebSockets up")
}
