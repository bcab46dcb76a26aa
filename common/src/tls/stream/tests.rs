//! Each end against rustls' buffered connections, and the two against each other.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls;

type Configs = (Arc<ClientConfig>, Arc<ServerConfig>);

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let server = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

async fn pair(
    (client, server): &Configs,
    room: usize,
) -> (ClientTlsStream<DuplexStream>, ServerTlsStream<DuplexStream>) {
    let (near, far) = duplex(room);
    let (client, server) = tokio::join!(
        ClientTlsStream::connect(client, name(), near),
        ServerTlsStream::accept(server, far)
    );
    (client.unwrap(), server.unwrap())
}

fn noise(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 % 251) as u8).collect()
}

/// Bytes of many sizes both ways at once, an end in each direction.
async fn talk<A, B>(mut a: A, mut b: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    async fn one<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let send = async {
            let (mut at, mut size) = (0, 1);
            while at < bytes.len() {
                let end = bytes.len().min(at + size);
                // A header and what follows it, as the frames of a WebSocket are written.
                let (head, body) = bytes[at..end].split_at(2.min(end - at));
                let slices = [IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(body)];
                at += writer.write_vectored(&slices).await.unwrap();
                size = size * 3 % 300_007;
            }
            writer.flush().await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let receive = async {
            let (mut seen, mut size) = (Vec::new(), 1);
            loop {
                let mut part = vec![0; size];
                let count = reader.read(&mut part).await.unwrap();
                if count == 0 {
                    break seen;
                }
                seen.extend_from_slice(&part[..count]);
                size = size * 5 % 100_003;
            }
        };
        let ((), seen) = tokio::join!(send, receive);
        assert!(seen == bytes, "{} of {} bytes", seen.len(), bytes.len());
    }
    let bytes = noise(1_500_000);
    tokio::join!(one(&mut a, &bytes), one(&mut b, &bytes));
}

#[tokio::test]
async fn bytes_arrive_whatever_the_pieces_are() {
    for version in VERSIONS {
        let configs = configs(version);
        for room in [1 << 9, 5_000, 1 << 20] {
            let (client, server) = pair(&configs, room).await;
            talk(client, server).await;
        }
    }
}

#[tokio::test]
async fn buffered_ends_understand_us_and_we_them() {
    for version in VERSIONS {
        let (client, server) = configs(version);
        let (connector, acceptor) = (
            TlsConnector::from(Arc::clone(&client)),
            TlsAcceptor::from(Arc::clone(&server)),
        );
        // The second handshake is a resumed one.
        for _ in 0..2 {
            let (near, far) = duplex(3_000);
            let (ours, theirs) = tokio::join!(
                ClientTlsStream::connect(&client, name(), near),
                acceptor.accept(far)
            );
            talk(ours.unwrap(), theirs.unwrap()).await;
            let (near, far) = duplex(3_000);
            let (theirs, ours) = tokio::join!(
                connector.connect(name(), near),
                ServerTlsStream::accept(&server, far)
            );
            talk(theirs.unwrap(), ours.unwrap()).await;
        }
    }
}

/// A record that comes a byte at a time, and nothing but it.
#[tokio::test]
async fn a_connection_on_which_nothing_moves_keeps_no_buffer() {
    let (mut client, mut server) = pair(&configs(&TLS13), 1 << 16).await;
    for _ in 0..3 {
        client.write_all(b"there").await.unwrap();
        let mut seen = [0; 5];
        server.read_exact(&mut seen).await.unwrap();
        server.write_all(&seen).await.unwrap();
        client.read_exact(&mut seen).await.unwrap();
    }
    fn kept<S, E>(end: &TlsStream<S, E>) -> usize {
        end.incoming.capacity() + end.received.capacity() + end.outgoing.capacity()
    }
    assert_eq!((kept(&client), kept(&server)), (0, 0));
    // What is not read stays, and goes when it is.
    client.write_all(&noise(10_000)).await.unwrap();
    server.read_exact(&mut [0; 1_000]).await.unwrap();
    assert!(
        (9_000..20_000).contains(&kept(&server)),
        "{}",
        kept(&server)
    );
    server.read_exact(&mut [0; 9_000]).await.unwrap();
    assert_eq!(kept(&server), 0);
}

#[tokio::test]
async fn a_key_update_is_followed_and_answered() {
    let (client, server) = configs(&TLS13);
    let (near, far) = duplex(1 << 16);
    let (ours, theirs) = tokio::join!(
        ClientTlsStream::connect(&client, name(), near),
        TlsAcceptor::from(server).accept(far)
    );
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    let mut seen = [0; 3];
    for _ in 0..3 {
        theirs.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(b"new").await.unwrap();
        theirs.flush().await.unwrap();
        ours.read_exact(&mut seen).await.unwrap();
        ours.write_all(&seen).await.unwrap();
        ours.flush().await.unwrap();
        theirs.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"new");
    }
}

#[tokio::test]
async fn an_end_without_a_close_notify_is_an_error() {
    let (client, mut server) = pair(&configs(&TLS13), 1 << 16).await;
    drop(client);
    let error = server.read(&mut [0; 9]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
}

#[tokio::test]
async fn after_their_end_we_may_still_send_and_after_ours_not() {
    let (mut client, mut server) = pair(&configs(&TLS13), 1 << 16).await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let mut seen = Vec::new();
    server.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"last");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let error = server.write(b"more").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    let mut seen = Vec::new();
    client.read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen, b"answer");
}

#[tokio::test]
async fn what_was_forged_is_refused_after_what_came_before_it() {
    let (client, server) = configs(&TLS13);
    let (near, far) = duplex(1 << 16);
    let (ours, theirs) = tokio::join!(
        ServerTlsStream::accept(&server, near),
        TlsConnector::from(client).connect(name(), far)
    );
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    theirs.write_all(b"true").await.unwrap();
    theirs.flush().await.unwrap();
    let forged = [&[23, 3, 3, 0, 40], &[7; 40][..]].concat();
    theirs.get_mut().0.write_all(&forged).await.unwrap();
    let mut seen = Vec::new();
    let error = ours.read_to_end(&mut seen).await.unwrap_err();
    assert_eq!(seen, b"true");
    assert_eq!(tls::find(&error), Some(&rustls::Error::DecryptError));
    // For good, and the peer was told.
    ours.read(&mut [0]).await.unwrap_err();
    ours.write(b"x").await.unwrap_err();
    ours.shutdown().await.unwrap();
    let error = theirs.read(&mut [0]).await.unwrap_err();
    let alert = rustls::Error::AlertReceived(AlertDescription::BadRecordMac);
    assert_eq!(tls::find(&error), Some(&alert));
}

#[tokio::test]
async fn a_server_of_another_name_is_told_so() {
    let (client, server) = configs(&TLS13);
    let (near, far) = duplex(1 << 16);
    let other = ServerName::try_from("other.example").unwrap();
    let (ours, theirs) = tokio::join!(
        ClientTlsStream::connect(&client, other, near),
        TlsAcceptor::from(server).accept(far)
    );
    let error = ours.unwrap_err();
    assert!(
        matches!(
            tls::find(&error),
            Some(rustls::Error::InvalidCertificate(_))
        ),
        "{error}"
    );
    let error = theirs.unwrap_err();
    assert!(
        matches!(tls::find(&error), Some(rustls::Error::AlertReceived(_))),
        "{error}"
    );
}

#[tokio::test]
async fn who_speaks_no_tls_is_refused() {
    let (_, server) = configs(&TLS13);
    for (text, kind) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], io::ErrorKind::InvalidData),
        (&b"\x16"[..], io::ErrorKind::UnexpectedEof),
    ] {
        let (mut near, far) = duplex(1 << 10);
        near.write_all(text).await.unwrap();
        near.shutdown().await.unwrap();
        let error = ServerTlsStream::accept(&server, far).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn a_stream_may_be_over_another_one() {
    let configs = configs(&TLS13);
    // With little room the one below keeps a part of what it has taken.
    for room in [1 << 16, 1 << 9] {
        let (outer, inner) = pair(&configs, room).await;
        let (client, server) = tokio::join!(
            ClientTlsStream::connect(&configs.0, name(), outer),
            ServerTlsStream::accept(&configs.1, inner)
        );
        talk(client.unwrap(), server.unwrap()).await;
    }
}

/// A handshake message in many records, of which only some have arrived, while we write.
#[tokio::test]
async fn a_message_in_pieces_does_not_disturb_what_is_written_meanwhile() {
    let (client, server) = configs(&TLS12);
    let mut client = (*client).clone();
    client.max_fragment_size = Some(64);
    let (near, far) = duplex(1 << 16);
    let (ours, theirs) = tokio::join!(
        ServerTlsStream::accept(&server, near),
        TlsConnector::from(Arc::new(client)).connect(name(), far)
    );
    talk(ours.unwrap(), theirs.unwrap()).await;
}
