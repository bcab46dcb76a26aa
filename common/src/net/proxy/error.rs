//! Why a proxy does not lead to a host. Each error is the end of a sentence that names the host and
//! the proxy, and says what to do.

use std::fmt;
use std::io;
use std::time::Duration;

use http::StatusCode;

use crate::tls::BadCertificate;
use crate::verdict::Verdict;

/// Why a proxy does not lead to a host.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy's name has no address.
    #[error("the proxy's name cannot be resolved (is --proxy or HTTPS_PROXY right?)")]
    Unresolved(#[source] io::Error),
    /// The proxy does not accept connections.
    #[error("the proxy cannot be reached (is --proxy or HTTPS_PROXY right?)")]
    Unreachable(#[source] io::Error),
    /// A step took too long.
    #[error("the proxy did not {step} within {} s", limit.as_secs_f32())]
    Silent {
        /// What was waited for.
        step: ProxyStep,
        /// The limit that passed.
        limit: Duration,
    },
    /// The certificate of an `https://` proxy.
    #[error(
        "the proxy itself cannot be trusted: {}; if it is the proxy's, name its CA with --ca-file",
        .0.finding
    )]
    Certificate(BadCertificate),
    /// TLS with an `https://` proxy failed otherwise.
    #[error("TLS with the proxy failed (is it an http:// proxy?)")]
    Tls(#[source] io::Error),
    /// It wants credentials, and there are none.
    #[error(
        "the proxy wants a user name and a password (407, {offered}); give them with --proxy-auth-file"
    )]
    Login {
        /// What it takes.
        offered: Schemes,
    },
    /// It does not take the credentials.
    #[error(
        "the proxy refuses the user name or the password (407, {offered}); correct what --proxy-auth-file or the proxy's URL says"
    )]
    Refused {
        /// What it takes.
        offered: Schemes,
    },
    /// It has refused these credentials already, a moment ago. They are not sent again for a while:
    /// a directory locks accounts after a few wrong passwords.
    #[error(
        "the proxy has refused the user name or the password (407), which are not sent again for {} s unless the file of --proxy-auth-file changes",
        wait.as_secs()
    )]
    RefusedBefore {
        /// How long they are not sent.
        wait: Duration,
    },
    /// It takes no scheme that we have.
    #[error(
        "the proxy wants credentials in a way that is not supported ({offered}); {}",
        supported()
    )]
    Schemes {
        /// What it takes.
        offered: Schemes,
    },
    /// It does not allow the connection.
    #[error(
        "the proxy does not allow it ({status}); ask its administrator to allow CONNECT to this host and port"
    )]
    Forbidden {
        /// What it answered.
        status: StatusCode,
    },
    /// It cannot reach the host.
    #[error(
        "the proxy cannot reach it ({status}); is the hub running, is HostName right, and may the proxy connect to it?"
    )]
    NoWay {
        /// What it answered.
        status: StatusCode,
    },
    /// It answered with another status.
    #[error("the proxy answers CONNECT with {status}; is it a proxy for HTTPS?")]
    Status {
        /// What it answered.
        status: StatusCode,
    },
    /// It refuses, by SOCKS5.
    #[error("the proxy refuses it: {0}")]
    Socks(SocksRefusal),
    /// It closed the connection, or the connection was lost.
    #[error("the proxy closed the connection instead of answering")]
    Lost(#[source] io::Error),
    /// Its answer is not that of a proxy.
    #[error(
        "what answers there is not {0}; are the scheme and the port of --proxy or HTTPS_PROXY right?"
    )]
    Malformed(&'static str),
    /// The answer's head does not end.
    #[error("the proxy's answer is too long")]
    TooLong,
    /// The host's name has no address, where it is resolved here (`socks5://`).
    #[error("the host's name cannot be resolved here (with socks5h:// the proxy resolves it)")]
    HostUnresolved(#[source] io::Error),
    /// The host's name cannot stand in a request.
    #[error("the host's name cannot be sent to a proxy")]
    Name,
}

/// What a proxy was expected to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyStep {
    /// Accept a TCP connection.
    Accept,
    /// Shake hands for TLS.
    Handshake,
    /// Answer a request.
    Answer,
}

impl fmt::Display for ProxyStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept a connection",
            Self::Handshake => "complete the TLS handshake",
            Self::Answer => "answer",
        })
    }
}

/// Why a SOCKS5 proxy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocksRefusal {
    /// By its rules.
    #[error("its rules do not allow it; ask its administrator to allow this host and port")]
    Rules,
    /// It cannot reach the host.
    #[error("it cannot reach the host; is the hub running, and is HostName right?")]
    Unreachable,
    /// It has no support for the kind of address.
    #[error(
        "it does not support this kind of address; try socks5h:// instead of socks5://, or the reverse"
    )]
    AddressType,
    /// Anything else.
    #[error("it reports a failure of its own; its log says more")]
    Failure,
}

/// The ways in which a proxy takes credentials, as its answer lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schemes(pub(super) Vec<&'static str>);

impl fmt::Display for Schemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no known scheme");
        }
        f.write_str(&self.0.join(", "))
    }
}

/// What we have.
fn supported() -> &'static str {
    if cfg!(feature = "ntlm") {
        "Basic, NTLM, and Negotiate with NTLM are"
    } else {
        "Basic is"
    }
}

impl ProxyError {
    /// What can cure it. What only a person can change is nothing that a first start should wait for.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Unresolved(_)
            | Self::HostUnresolved(_)
            | Self::Unreachable(_)
            | Self::Silent { .. }
            | Self::Tls(_)
            | Self::RefusedBefore { .. }
            | Self::NoWay { .. }
            | Self::Status { .. }
            | Self::Socks(SocksRefusal::Unreachable | SocksRefusal::Failure)
            | Self::Lost(_) => Verdict::Retry,
            Self::Certificate(_)
            | Self::Login { .. }
            | Self::Refused { .. }
            | Self::Schemes { .. }
            | Self::Forbidden { .. }
            | Self::Socks(SocksRefusal::Rules | SocksRefusal::AddressType)
            | Self::Malformed(_)
            | Self::TooLong
            | Self::Name => Verdict::Never,
        }
    }
}
