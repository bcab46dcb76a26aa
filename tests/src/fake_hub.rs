//! A server in a hub's place that does one thing wrong: its certificate, its TLS, its clock, its
//! WebSockets or its answers. It speaks HTTP/1.1, one request for each connection.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::raw_hub::{head, switching};

/// A hub's certificate, and what is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Certificate {
    /// The CA's name and organisation; none: the certificate signs itself.
    pub signer: Option<(&'static str, &'static str)>,
    /// There is an intermediate CA, which is not sent.
    pub hides_intermediate: bool,
    /// The name that it is for, `localhost` unless given.
    pub name: Option<&'static str>,
    /// It has expired.
    pub is_expired: bool,
    /// It is not valid yet.
    pub is_early: bool,
}

impl Certificate {
    /// One of a CA.
    pub fn of(name: &'static str, organisation: &'static str) -> Self {
        Self {
            signer: Some((name, organisation)),
            ..Self::default()
        }
    }

    /// What is sent, its key, and the CA's certificate.
    pub fn make(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, String) {
        let key = KeyPair::generate().unwrap();
        let name = self.name.unwrap_or("localhost");
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "A hub");
        if self.is_expired {
            leaf.not_after = date_time_ymd(2020, 1, 1);
        }
        if self.is_early {
            leaf.not_before = date_time_ymd(2400, 1, 1);
            leaf.not_after = date_time_ymd(2401, 1, 1);
        }
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let Some((name, organisation)) = self.signer else {
            let signed = leaf.self_signed(&key).unwrap();
            return (vec![signed.der().clone()], der, signed.pem());
        };
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            let organisation_name = DnType::OrganizationName;
            params
                .distinguished_name
                .push(organisation_name, organisation);
            params
        };
        let ca_key = KeyPair::generate().unwrap();
        let ca = CertifiedIssuer::self_signed(authority(name), ca_key).unwrap();
        let pem = ca.pem();
        let signed = if self.hides_intermediate {
            let between = KeyPair::generate().unwrap();
            let between = CertifiedIssuer::signed_by(authority("Between CA"), between, &ca);
            leaf.signed_by(&key, &between.unwrap()).unwrap()
        } else {
            leaf.signed_by(&key, &ca).unwrap()
        };
        (vec![signed.der().clone()], der, pem)
    }
}

/// What is answered to a request with this method and path: the head without its end, and the body.
pub type Answer = fn(&str, SocketAddr) -> (String, String);

/// What is wrong with it.
#[derive(Clone)]
pub struct Fault {
    /// Its certificate.
    pub certificate: Certificate,
    /// Whether its client trusts the CA.
    pub is_trusted: bool,
    /// Seconds by which its clock is ahead.
    pub clock: i64,
    /// The status that a WebSocket for MQTT gets instead of 101.
    pub upgrade: Option<u16>,
    /// After so many connections it accepts no more.
    pub connections: usize,
    /// What the service API answers.
    pub api: Answer,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            certificate: Certificate::of("Hub CA", "Hubs"),
            is_trusted: true,
            clock: 0,
            upgrade: None,
            connections: usize::MAX,
            api: |_, _| ("200 OK".to_owned(), "[]".to_owned()),
        }
    }
}

/// A running one; dropped, it stops.
pub struct FakeHub {
    /// Where it listens.
    pub address: SocketAddr,
    folder: TempDir,
    _task: AbortOnDropHandle<()>,
}

impl FakeHub {
    /// Starts one that speaks TLS and HTTP.
    pub async fn start(fault: Fault) -> Self {
        let (chain, key, pem) = fault.certificate.make();
        let config = ServerConfig::builder_with_provider(common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let trusted = if fault.is_trusted {
            pem
        } else {
            Certificate::of("Some other CA", "Others").make().2
        };
        let serving = async move {
            let left = AtomicUsize::new(fault.connections);
            while left.load(Relaxed) > 0 {
                let (socket, _) = listener.accept().await.unwrap();
                left.fetch_sub(1, Relaxed);
                let (tls, fault) = (tls.clone(), fault.clone());
                tokio::spawn(serve(tls, socket, fault, address));
            }
            drop(listener);
            std::future::pending::<()>().await;
        };
        Self::of(address, &trusted, serving)
    }

    /// Starts one that sends these bytes to everybody, or with none of them nothing, and ends the
    /// connection if it `closes`.
    pub async fn start_raw(bytes: &'static [u8], closes: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async move {
            let mut kept = Vec::new();
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(bytes).await;
                if !closes {
                    kept.push(socket);
                }
            }
        };
        Self::of(address, &Certificate::of("CA", "CAs").make().2, serving)
    }

    fn of(
        address: SocketAddr,
        trusted: &str,
        serving: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), trusted).unwrap();
        Self {
            address,
            folder,
            _task: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }

    /// What its client trusts.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Its name in connection strings.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }
}

async fn serve(tls: TlsAcceptor, socket: TcpStream, fault: Fault, address: SocketAddr) {
    let Ok(mut stream) = tls.accept(socket).await else {
        return;
    };
    let Some(request) = head(&mut stream).await else {
        return;
    };
    let line = request.lines().next().unwrap_or_default().to_owned();
    let is_mqtt = line.contains("/$iothub/websocket");
    let answer = match (is_mqtt, fault.upgrade) {
        (true, None) => {
            let _ = stream.write_all(switching(&request).as_bytes()).await;
            let _ = stream.read(&mut [0; 64]).await;
            return;
        }
        (true, Some(status)) => format!("HTTP/1.1 {status} Stripped\r\nContent-Length: 0\r\n\r\n"),
        (false, _) => {
            let ahead = Duration::from_secs(fault.clock.unsigned_abs());
            let now = SystemTime::now();
            let now = if fault.clock < 0 {
                now - ahead
            } else {
                now + ahead
            };
            let date = httpdate::fmt_http_date(now);
            let (status, body) = if line.starts_with("HEAD") {
                ("404 Not Found".to_owned(), String::new())
            } else {
                (fault.api)(&line, address)
            };
            format!(
                "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            )
        }
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Writes a file that its owner alone may read.
pub fn write_private(path: &str, text: &str) {
    let access = common::files::Access::Private;
    common::files::write(path.as_ref(), text.as_bytes(), access).unwrap();
}
