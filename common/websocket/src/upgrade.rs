//! The server's side of the upgrade, for hubs that parse HTTP with another library.

use http::{HeaderMap, HeaderValue, Request, Response, header};
use tungstenite::handshake::server::create_response_with_body;

/// The 101 answer to an upgrade request, with the subprotocol exactly as it was offered, and
/// without extensions. `None`: the request is not a WebSocket upgrade.
pub fn upgrade_answer<T>(
    request: &Request<T>,
    subprotocol: Option<HeaderValue>,
) -> Option<Response<()>> {
    let mut answer: Response<()> = create_response_with_body(request, || ()).ok()?;
    if let Some(subprotocol) = subprotocol {
        answer
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Some(answer)
}

/// The first offered subprotocol that is wanted, in the client's spelling.
pub fn offered_subprotocol(
    headers: &HeaderMap,
    wanted: impl Fn(&str) -> bool,
) -> Option<HeaderValue> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .find(|name| !name.is_empty() && wanted(name))
        .and_then(|name| HeaderValue::from_str(name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request<()> {
        Request::get("/bridges/myhub/dev1/0123456789abcdef0123456789abcdef")
            .header("Host", "myhub.example.net:443")
            .header("Upgrade", "websocket")
            .header("Connection", "Upgrade")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Protocol", "MQTT")
            .header("Sec-WebSocket-Version", "13")
            .body(())
            .unwrap()
    }

    #[test]
    fn the_vector() {
        let request = request();
        let subprotocol = offered_subprotocol(request.headers(), |_| true);
        let answer = upgrade_answer(&request, subprotocol).unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(
            answer.headers()["Sec-WebSocket-Accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "MQTT");
        assert!(
            upgrade_answer(&request, None)
                .unwrap()
                .headers()
                .get("Sec-WebSocket-Protocol")
                .is_none()
        );
    }

    #[test]
    fn other_requests_are_refused() {
        let mut plain = request();
        plain.headers_mut().remove("Upgrade");
        assert!(upgrade_answer(&plain, None).is_none());
        let mut old = request();
        old.headers_mut()
            .insert("Sec-WebSocket-Version", "8".parse().unwrap());
        assert!(upgrade_answer(&old, None).is_none());
    }

    #[test]
    fn subprotocols_keep_their_spelling() {
        let mut headers = HeaderMap::new();
        headers.append("Sec-WebSocket-Protocol", "x, MqTt".parse().unwrap());
        let found = offered_subprotocol(&headers, |name| name.eq_ignore_ascii_case("mqtt"));
        assert_eq!(found.unwrap(), "MqTt");
    }
}
