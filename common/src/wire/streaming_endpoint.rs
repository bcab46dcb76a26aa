//! The URL of a streaming endpoint, where both legs of a stream are paired. It is parsed once, when
//! the hub sends it.

use std::fmt;

use http::Uri;

use crate::hub_address::HTTPS_PORT;

/// The URL is not that of a streaming endpoint. It is not repeated: it may contain secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the streaming endpoint's URL is not a wss:// URL with a host")]
pub struct StreamingEndpointError;

/// The host, port and URL of a streaming endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct StreamingEndpoint {
    uri: Uri,
    host: String,
    port: u16,
}

impl fmt::Debug for StreamingEndpoint {
    /// Without the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamingEndpoint({}:{})", self.host, self.port)
    }
}

impl StreamingEndpoint {
    /// Reads a `wss://` URL.
    ///
    /// # Errors
    /// [`StreamingEndpointError`].
    pub fn parse(url: &str) -> Result<Self, StreamingEndpointError> {
        let uri: Uri = url.parse().map_err(|_| StreamingEndpointError)?;
        if uri.scheme_str() != Some("wss") {
            return Err(StreamingEndpointError);
        }
        let authority = uri.authority().ok_or(StreamingEndpointError)?;
        // A user name has no meaning here, and can make the host hard to recognise.
        if authority.as_str().contains('@') {
            return Err(StreamingEndpointError);
        }
        let host = authority.host();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        // `port()` is also `None` for a port that is not a number.
        let port = match authority.port() {
            None if !has_port(authority.as_str()) => HTTPS_PORT,
            None => return Err(StreamingEndpointError),
            Some(port) => port.as_u16(),
        };
        if host.is_empty() || port == 0 {
            return Err(StreamingEndpointError);
        }
        Ok(Self { uri, host, port })
    }

    /// The whole URL, which may contain secrets.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn has_port(authority: &str) -> bool {
    let behind = authority
        .rsplit_once(']')
        .map_or(authority, |(_, rest)| rest);
    behind.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port() {
        for (url, host, port) in [
            ("wss://h.example.net/bridges/a", "h.example.net", 443),
            ("wss://h:8443/p?x=y", "h", 8443),
            ("wss://[::1]:8443/p", "::1", 8443),
            ("wss://[::1]/p", "::1", 443),
        ] {
            let endpoint = StreamingEndpoint::parse(url).unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{url}");
        }
        for url in [
            "https://h/p",
            "wss://u@h/p",
            "wss://h:/p",
            "wss://h:0/p",
            "wss:///p",
            "h",
        ] {
            assert!(StreamingEndpoint::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_path_is_not_shown() {
        let endpoint = StreamingEndpoint::parse("wss://h/secret").unwrap();
        assert_eq!(format!("{endpoint:?}"), "StreamingEndpoint(h:443)");
    }
}
