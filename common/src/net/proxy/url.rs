//! The address of a proxy, as in `HTTPS_PROXY`: `[SCHEME://][USER[:PASSWORD]@]HOST[:PORT]`. The
//! defaults are curl's.

use std::fmt;

use http::Uri;
use percent_encoding::percent_decode_str;

use super::credentials::{Credentials, CredentialsError};
use crate::secret::Secret;

/// The port of a proxy whose URL has none; of an `https://` proxy it is 443.
const PORT: u16 = 1080;
const HTTPS_PORT: u16 = 443;

/// Why a text is not the URL of a proxy. No variant repeats any of it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// It is not a URL.
    #[error(
        "give the proxy as [SCHEME://]HOST:PORT; in a user name or password before the host, write special characters as %XX"
    )]
    Form,
    /// Its scheme is none of ours.
    #[error("a proxy's URL begins with http://, https://, socks5:// or socks5h://")]
    Scheme,
    /// Its port is no port number.
    #[error("a proxy's port is a number from 1 to 65535")]
    Port,
    /// User name and password cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP CONNECT.
    Http,
    /// HTTP CONNECT over TLS.
    Https,
    /// SOCKS5; the target's name is resolved here.
    Socks5,
    /// SOCKS5; the target's name is resolved by the proxy.
    Socks5Hostname,
}

/// Where a proxy is. `Display` is `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyAddress {
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Reads a proxy's URL; the credentials stand in it if it has a user name. A path is ignored.
///
/// # Errors
/// [`ProxyUrlError`], which does not repeat the text.
pub fn parse(text: &str) -> Result<(ProxyAddress, Option<Credentials>), ProxyUrlError> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let protocol = match scheme.to_ascii_lowercase().as_str() {
        "http" => Protocol::Http,
        "https" => Protocol::Https,
        "socks5" => Protocol::Socks5,
        "socks5h" => Protocol::Socks5Hostname,
        _ => return Err(ProxyUrlError::Scheme),
    };
    // The library knows the forms of an authority, with any scheme.
    let uri: Uri = format!("http://{rest}")
        .parse()
        .map_err(|_| ProxyUrlError::Form)?;
    let authority = uri.authority().ok_or(ProxyUrlError::Form)?.as_str();
    let user_info = authority.rsplit_once('@').map(|(user_info, _)| user_info);
    let host = uri.host().ok_or(ProxyUrlError::Form)?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() {
        return Err(ProxyUrlError::Form);
    }
    let has_port = authority
        .rsplit(['@', ']'])
        .next()
        .is_some_and(|rest| rest.contains(':'));
    let port = match uri.port_u16() {
        Some(0) => return Err(ProxyUrlError::Port),
        Some(port) => port,
        None if has_port => return Err(ProxyUrlError::Port),
        None if protocol == Protocol::Https => HTTPS_PORT,
        None => PORT,
    };
    let address = ProxyAddress {
        protocol,
        host: host.to_owned(),
        port,
    };
    Ok((address, user_info.map(credentials).transpose()?))
}

/// What stands before the host.
fn credentials(user_info: &str) -> Result<Credentials, ProxyUrlError> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(Secret::new).map_err(|_| ProxyUrlError::Form)
    };
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let user = decoded(user)?;
    Ok(Credentials::new(user.expose(), decoded(password)?)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> (Protocol, String, Option<(String, String)>) {
        let (address, credentials) = parse(text).unwrap();
        let credentials = credentials.map(|credentials| {
            let password = credentials.password().expose().to_owned();
            (credentials.user().to_owned(), password)
        });
        (address.protocol, address.to_string(), credentials)
    }

    #[test]
    fn urls_are_read_as_curl_reads_them() {
        use Protocol::{Http, Https, Socks5, Socks5Hostname};
        for (text, protocol, address) in [
            ("http://proxy:3128", Http, "proxy:3128"),
            ("http://proxy:3128/", Http, "proxy:3128"),
            ("proxy:3128", Http, "proxy:3128"),
            ("proxy", Http, "proxy:1080"),
            ("HTTPS://proxy", Https, "proxy:443"),
            ("socks5://10.0.0.1", Socks5, "10.0.0.1:1080"),
            ("socks5h://[::1]:9", Socks5Hostname, "[::1]:9"),
            ("[2001:db8::1]", Http, "[2001:db8::1]:1080"),
        ] {
            assert_eq!(parts(text), (protocol, address.to_owned(), None), "{text}");
        }
        for (text, user, password) in [
            ("http://ada:secret@proxy:1", "ada", "secret"),
            ("http://ada@proxy:1", "ada", ""),
            ("http://CORP%5Cada:a%40b:c@proxy:1", "CORP\\ada", "a@b:c"),
            ("ada:%25@[::1]:1", "ada", "%"),
        ] {
            let (_, address, credentials) = parts(text);
            assert!(address.ends_with(":1"), "{text}");
            assert_eq!(credentials, Some((user.to_owned(), password.to_owned())));
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        use ProxyUrlError as E;
        for (text, expected) in [
            ("", E::Form),
            ("http://", E::Form),
            ("http://ada:secret@", E::Form),
            ("http://ada:top secret@proxy:1", E::Form),
            ("http://ada:top%FF@proxy:1", E::Form),
            ("socks4://proxy", E::Scheme),
            ("ftp://proxy", E::Scheme),
            ("proxy:0", E::Port),
            ("proxy:", E::Port),
            ("proxy:65536", E::Port),
            (
                "http://:secret@proxy:1",
                E::Credentials(CredentialsError::NoUser),
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
            assert!(!expected.to_string().contains("secret"));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn any_password_can_be_written(user in "[^:]{1,20}", password in ".{0,20}") {
            let encode = |text: &str| {
                percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                    .to_string()
            };
            let url = format!("socks5h://{}:{}@proxy:1", encode(&user), encode(&password));
            match parse(&url) {
                Ok((_, credentials)) => {
                    let credentials = credentials.unwrap();
                    prop_assert_eq!(credentials.user(), user);
                    prop_assert_eq!(credentials.password().expose(), password);
                }
                Err(error) => {
                    let is_control = |text: &str| text.chars().any(char::is_control);
                    prop_assert!(is_control(&user) || is_control(&password), "{}", error);
                }
            }
        }
    }
}
