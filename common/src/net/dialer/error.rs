//! Why a host could not be reached.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::AlertDescription;

use crate::net::host_stream::Via;
use crate::net::proxy::ProxyError;
use crate::tls::{self, BadCertificate, CertificateProblem};
use crate::verdict::Verdict;

/// Why a host could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The host name.
        host: String,
        /// The resolver's error.
        #[source]
        source: io::Error,
    },
    /// The name leads to an address that may not be dialled.
    #[error("{host} leads to {address}, which may not be reached")]
    Forbidden {
        /// The host name.
        host: String,
        /// One of its addresses.
        address: IpAddr,
    },
    /// No address accepted the connection.
    #[error("cannot connect to {host}:{port}")]
    Connect {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// The last address's refusal.
        #[source]
        source: io::Error,
    },
    /// Resolving, connecting or the TLS handshake took too long.
    #[error("{host}:{port} did not answer{via} within {} s", limit.as_secs_f32())]
    Timeout {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// The limit that passed.
        limit: Duration,
        /// What it was to be reached through.
        via: Via,
    },
    /// The proxy on the way does not lead there.
    #[error("cannot reach {host}:{port} through the proxy {proxy}")]
    Proxy {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// The proxy, as `HOST:PORT`.
        proxy: Arc<str>,
        /// Why not.
        #[source]
        source: ProxyError,
    },
    /// The host's certificate is not acceptable.
    #[error("{host}:{port} cannot be trusted{via}{}", inspection(via, bad.problem))]
    Certificate {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What is wrong with it.
        #[source]
        bad: BadCertificate,
        /// What it was reached through.
        via: Via,
    },
    /// The TLS handshake failed otherwise.
    #[error("TLS with {host}:{port}{via} failed")]
    Tls {
        /// The host name.
        host: String,
        /// The TCP port.
        port: u16,
        /// What went wrong.
        #[source]
        source: io::Error,
        /// What it was reached through.
        via: Via,
    },
}

/// What a certificate that no trusted CA has signed means behind a proxy.
pub fn inspection(via: &Via, problem: CertificateProblem) -> &'static str {
    let is_untrusted = matches!(
        problem,
        CertificateProblem::Untrusted
            | CertificateProblem::SelfSigned
            | CertificateProblem::Authority
    );
    if via.name().is_some() && is_untrusted {
        ", which seems to inspect TLS, unless the hub has a CA of its own; put the missing CA into the file of --ca-file, which may hold several"
    } else {
        ""
    }
}

/// A server that has no certificate to show.
#[derive(Debug, thiserror::Error)]
#[error(
    "it refuses access; a stream-hub does so while it has no certificate, until the CA of --acme has signed one (its log says why not)"
)]
struct NoCertificate;

/// The error of a TLS handshake, in words that help if it has better ones than its own.
pub(super) fn explained(error: io::Error) -> io::Error {
    match tls::find(&error) {
        Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)) => {
            io::Error::new(error.kind(), NoCertificate)
        }
        _ => error,
    }
}

impl DialError {
    /// What can cure it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Certificate { bad, .. } => match bad.problem {
                // Our clock may not be set yet, or the hub's operator may be about to renew.
                CertificateProblem::NotYetValid | CertificateProblem::Expired => Verdict::Retry,
                CertificateProblem::Untrusted
                | CertificateProblem::SelfSigned
                | CertificateProblem::Authority
                | CertificateProblem::WrongName
                | CertificateProblem::Other => Verdict::Never,
            },
            Self::Proxy { source, .. } => source.verdict(),
            Self::Resolve { .. }
            | Self::Forbidden { .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. } => Verdict::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_without_a_certificate_is_explained() {
        let text = |alert| {
            let error = rustls::Error::AlertReceived(alert);
            explained(io::Error::new(io::ErrorKind::InvalidData, error)).to_string()
        };
        let refused = text(AlertDescription::AccessDenied);
        assert!(refused.contains("the CA of --acme"), "{refused}");
        let other = text(AlertDescription::HandshakeFailure);
        assert!(other.contains("HandshakeFailure"), "{other}");
    }
}
