//! SOCKS5 (RFC 1928, RFC 1929), by `tokio-socks`, which reads not a byte beyond the proxy's answer.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error, TargetAddr};

use super::credentials::Credentials;
use super::error::{ProxyError, Schemes, SocksRefusal};

/// What the proxy is to connect to.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// A name, which the proxy resolves.
    Name(&'a str, u16),
    /// An address.
    Address(SocketAddr),
}

/// Asks the proxy at the other end for a connection. The caller limits the time. May be dropped.
///
/// # Errors
/// [`ProxyError`].
pub async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    destination: Destination<'_>,
    credentials: Option<&Credentials>,
) -> Result<S, ProxyError> {
    let target = match destination {
        // The library checks that a name has at most 255 bytes.
        Destination::Name(name, port) => TargetAddr::Domain(name.into(), port),
        Destination::Address(address) => TargetAddr::Ip(address),
    };
    if let Destination::Name(name, _) = destination
        && name.len() > 255
    {
        return Err(ProxyError::Name);
    }
    let connected = match credentials {
        None => Socks5Stream::connect_with_socket(socket, target).await,
        Some(credentials) => {
            let (user, password) = (credentials.user(), credentials.password().expose());
            Socks5Stream::connect_with_password_and_socket(socket, target, user, password).await
        }
    };
    connected
        .map(Socks5Stream::into_inner)
        .map_err(|error| explain(error, credentials.is_some()))
}

fn explain(error: Error, has_credentials: bool) -> ProxyError {
    let offered = Schemes(vec!["SOCKS5 user name and password"]);
    match error {
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => ProxyError::Lost(error),
        Error::Io(error) => ProxyError::Lost(error),
        Error::NoAcceptableAuthMethods | Error::AuthorizationRequired if !has_credentials => {
            ProxyError::Login { offered }
        }
        Error::PasswordAuthFailure(_) | Error::InvalidAuthValues(_) => {
            ProxyError::Refused { offered }
        }
        Error::NoAcceptableAuthMethods
        | Error::UnknownAuthMethod
        | Error::AuthorizationRequired => ProxyError::Schemes {
            offered: Schemes::default(),
        },
        Error::ConnectionNotAllowedByRuleset => ProxyError::Socks(SocksRefusal::Rules),
        Error::NetworkUnreachable
        | Error::HostUnreachable
        | Error::ConnectionRefused
        | Error::TtlExpired => ProxyError::Socks(SocksRefusal::Unreachable),
        Error::AddressTypeNotSupported => ProxyError::Socks(SocksRefusal::AddressType),
        Error::InvalidTargetAddress(_) | Error::ParseError(_) => ProxyError::Name,
        Error::InvalidResponseVersion | Error::InvalidReservedByte | Error::UnknownAddressType => {
            ProxyError::Malformed("a SOCKS5 proxy")
        }
        _ => ProxyError::Socks(SocksRefusal::Failure),
    }
}
