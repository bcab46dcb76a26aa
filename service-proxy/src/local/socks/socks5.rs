//! SOCKS5 (RFC 1928), with the method "no authentication required" and the command CONNECT.

use fast_socks5::server::{Socks5ServerProtocol, SocksServerError};
use fast_socks5::util::target_addr::{AddrError, TargetAddr};
use fast_socks5::{ReplyError, Socks5Command};
use tokio::io::{AsyncRead, AsyncWrite};

use super::asked::{Asked, Protocol, Unasked, refused};
use super::refusal::Kind;

/// The tunnel is open; the address 0.0.0.0:0 stands for none.
pub(super) const SUCCESS: [u8; 10] = reply(0);

/// A reply with this code.
const fn reply(code: u8) -> [u8; 10] {
    [5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// The reply that refuses a request.
pub(super) fn refusal(kind: Kind) -> [u8; 10] {
    reply(kind.reply().as_u8())
}

/// Reads the methods and the request.
pub(super) async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
) -> Result<Asked, Unasked> {
    let negotiated = Socks5ServerProtocol::accept_no_auth(&mut *socket).await;
    let protocol = negotiated.map_err(unasked)?;
    // The library answers a request that it does not understand.
    let (_, command, address) = protocol.read_command().await.map_err(unasked)?;
    let refused = |kind, text| refused(Protocol::Socks5, kind, text);
    if !matches!(command, Socks5Command::TCPConnect) {
        let text = "only CONNECT is supported, neither BIND nor UDP ASSOCIATE";
        return Err(refused(Kind::Command, text.to_owned()));
    }
    match address {
        TargetAddr::Domain(host, port) => Ok(Asked {
            host,
            port: port.to_string(),
        }),
        TargetAddr::Ip(address) => {
            let text = format!(
                "{} is an address, and only names of devices are connected to: let the proxy resolve the name (socks5h)",
                address.ip()
            );
            Err(refused(Kind::AddressType, text))
        }
    }
}

/// Why there is no request; what is to be answered has been.
fn unasked(error: SocksServerError) -> Unasked {
    match error {
        SocksServerError::Io { source, .. } => Unasked::Lost(source),
        SocksServerError::AddrError(
            AddrError::DomainContentUnreadable(source)
            | AddrError::DomainLenUnreadable(source)
            | AddrError::PortNumberUnreadable(source)
            | AddrError::IPv4Unreadable(source)
            | AddrError::IPv6Unreadable(source),
        ) => Unasked::Lost(source),
        SocksServerError::AuthMethodUnacceptable(_) => Unasked::Foreign(
            "it does not offer the method \"no authentication\"; the proxy needs neither user nor password"
                .to_owned(),
        ),
        error => {
            let reply: ReplyError = error.to_reply_error();
            Unasked::Foreign(format!("its SOCKS5 request is not understood: {reply}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::asked::tests::pair;
    use super::*;

    const HELLO: [u8; 3] = [5, 1, 0];

    async fn asked(request: &[u8]) -> (Result<Asked, Unasked>, Vec<u8>) {
        let (mut client, mut socket) = pair().await;
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        let asked = read(&mut socket).await;
        drop(socket);
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        (asked, answer)
    }

    fn named(name: &str) -> Vec<u8> {
        let mut request = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
        request.extend(name.bytes().chain([0, 22]));
        [&HELLO[..], &request].concat()
    }

    #[tokio::test]
    async fn a_name_and_a_port_are_asked_for() {
        let (asked, answer) = asked(&named("MyDevice.device")).await;
        let asked = asked.unwrap();
        assert_eq!((&*asked.host, &*asked.port), ("MyDevice.device", "22"));
        assert_eq!(answer, [5, 0]);
    }

    #[tokio::test]
    async fn addresses_and_other_commands_are_refused() {
        let v4 = [&HELLO[..], &[5, 1, 0, 1, 127, 0, 0, 1, 0, 22]].concat();
        let v6 = [&HELLO[..], &[5, 1, 0, 4], &[0; 18]].concat();
        for request in [v4, v6] {
            let Err(Unasked::Refused(Protocol::Socks5, refusal)) = asked(&request).await.0 else {
                panic!("it was not refused")
            };
            assert_eq!(refusal.kind, Kind::AddressType);
        }
        for command in [2, 3] {
            let request = [&HELLO[..], &[5, command, 0, 3, 1, b'x', 0, 22]].concat();
            let Err(Unasked::Refused(_, refusal)) = asked(&request).await.0 else {
                panic!("it was not refused")
            };
            assert_eq!(refusal.kind, Kind::Command);
        }
    }

    #[tokio::test]
    async fn what_is_not_understood_is_answered() {
        for (request, last) in [
            // No acceptable method.
            (vec![5, 1, 2], 0xff),
            // An unknown command, an unknown type of address.
            ([&HELLO[..], &[5, 9, 0, 3, 1, b'x', 0, 22]].concat(), 7),
            ([&HELLO[..], &[5, 1, 0, 9, 1, b'x', 0, 22]].concat(), 8),
        ] {
            let (asked, answer) = asked(&request).await;
            assert!(matches!(asked, Err(Unasked::Foreign(_))), "{asked:?}");
            let code = match answer.as_slice() {
                [5, code] | [5, 0, 5, code, ..] => *code,
                other => panic!("{other:?}"),
            };
            assert_eq!(code, last, "{answer:?}");
        }
        let whole = named("MyDevice.device");
        for length in 1..whole.len() {
            let (asked, _) = asked(&whole[..length]).await;
            assert!(
                matches!(asked, Err(Unasked::Lost(_))),
                "{length}: {asked:?}"
            );
        }
    }
}
