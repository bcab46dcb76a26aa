//! The path to a hub, as far as both programs have the same: its name, TCP or a proxy, TLS, the clock
//! and WebSockets.

mod faults;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use http::header;
use tokio::time::{Instant, timeout};

use self::faults::{
    EXEMPT, bad_certificate, certificate, proxy_failed, tcp_failed, tls_failed, websocket_failed,
    websocket_silent,
};
use super::trust::Seen;
use super::{Check, Examination};
use crate::hub_address::HubAddress;
use crate::limits;
use crate::net::{DialError, Dialer, TlsHostStream, exchange, mqtt};
use crate::report;

/// The checks of a path, in their order, and what they are called.
const NAME: (&str, &str) = ("name", "name");
const PROXY: (&str, &str) = ("proxy", "HTTP proxy");
const TCP: (&str, &str) = ("tcp", "TCP");
const TLS: (&str, &str) = ("tls", "TLS");
const CERTIFICATE: (&str, &str) = ("certificate", "certificate");
const INSPECTION: (&str, &str) = ("inspection", "TLS inspection");
const HTTP: (&str, &str) = ("http", "HTTP");
const CLOCK: (&str, &str) = ("clock", "clock");
const WEBSOCKET: (&str, &str) = ("websocket", "WebSocket");

/// A clock that differs by more is worth a warning.
const CLOCK_DIFFERS: Duration = Duration::from_secs(30);
/// A look past the proxy, which mostly leads nowhere.
const PAST_PROXY: Duration = Duration::from_secs(2);

/// A hub's port, and how it is reached.
#[derive(Debug, Clone, Copy)]
pub struct HubPath<'a> {
    /// What the program reaches it with.
    pub dialer: &'a Dialer,
    /// The hub.
    pub hub: &'a HubAddress,
    /// The port that the program uses.
    pub port: u16,
    /// The CA file that is configured.
    pub ca_file: Option<&'a Path>,
    /// How long each step may take.
    pub limit: Duration,
}

/// What a path has shown beside its checks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// TLS with the hub is possible.
    pub tls: bool,
    /// What answers speaks HTTP.
    pub http: bool,
    /// WebSockets come through.
    pub websocket: bool,
}

impl HubPath<'_> {
    fn host(&self) -> &str {
        self.hub.name()
    }

    fn place(&self) -> String {
        format!("{}:{}", self.hub.url_host(), self.port)
    }

    /// Examines the path up to TLS, on the port that the program uses; then the clock and WebSockets
    /// on the hub's port for HTTPS. May be dropped.
    pub async fn examine(self, examination: &mut Examination<'_>) -> Reached {
        let mut reached = Reached::default();
        let Some(stream) = self.secured(examination).await else {
            let why = "TLS with the hub has to work first";
            examination.skip(&[HTTP, CLOCK, WEBSOCKET], why);
            return reached;
        };
        reached.tls = true;
        let stream = if self.port == self.hub.https_port() {
            Some(stream)
        } else {
            self.dialer
                .tls(self.host(), self.hub.https_port())
                .await
                .ok()
        };
        reached.http = match stream {
            Some(stream) => self.clock(stream, examination).await,
            None => {
                let why = format!("port {} cannot be reached", self.hub.https_port());
                examination.skip(&[HTTP, CLOCK, WEBSOCKET], &why);
                return reached;
            }
        };
        if !reached.http {
            examination.skip(&[CLOCK, WEBSOCKET], "HTTP with the hub has to work first");
            return reached;
        }
        let begun = Instant::now();
        let opening = mqtt(self.dialer, self.hub);
        let opened = timeout(self.limit, opening).await;
        reached.websocket = examination.add(
            match opened {
                Err(_) => websocket_silent(self.limit),
                Ok(Err(error)) => websocket_failed(&error),
                Ok(Ok(_)) => Check::ok(WEBSOCKET.0, "the upgrade comes through"),
            }
            .called(WEBSOCKET.1)
            .since(begun),
        );
        reached
    }

    /// Reaches the hub up to TLS.
    async fn secured(&self, examination: &mut Examination<'_>) -> Option<TlsHostStream> {
        let (host, port, limit) = (self.host(), self.port, self.limit);
        let after_tcp = [TLS, CERTIFICATE, INSPECTION];
        let begun = Instant::now();
        let proxy = self.dialer.way_to(host, port);
        let stream = if let Some(proxy) = &proxy {
            examination.skip(&[NAME, TCP], "the proxy resolves the name and connects");
            let stream = match self.dialer.open(host, port, limit).await {
                Ok(stream) => stream,
                Err(error) => {
                    examination.add(proxy_failed(&error, proxy).since(begun));
                    examination.skip(&after_tcp, "the proxy has to lead to the hub first");
                    return None;
                }
            };
            let detail = format!("{proxy} leads to {}", self.place());
            let check = Check::ok(PROXY.0, detail).called(PROXY.1);
            examination.add(check.since(begun));
            stream
        } else {
            if !self.resolved(examination).await {
                let rest = [&[TCP, PROXY], &after_tcp[..]].concat();
                examination.skip(&rest, "the name has to be resolved first");
                return None;
            }
            let begun = Instant::now();
            let opened = self.dialer.open_direct(host, port, limit).await;
            let check = match &opened {
                Ok(stream) => {
                    let address = stream.socket().peer_addr().ok();
                    let address = address.map(|it| it.to_string()).unwrap_or_default();
                    Check::ok(TCP.0, format!("{address} accepts connections"))
                }
                Err(error) => tcp_failed(error),
            };
            examination.add(check.called(TCP.1).since(begun));
            examination.skip(&[PROXY], "none is configured for this hub");
            match opened {
                Ok(stream) => stream,
                Err(_) => {
                    examination.skip(&after_tcp, "TCP has to work first");
                    return None;
                }
            }
        };
        let begun = Instant::now();
        match self.dialer.shake_hands(stream, host, port, limit).await {
            Ok(stream) => {
                let connection = stream.get_ref().1;
                let detail = secured_with(connection);
                examination.add(Check::ok(TLS.0, detail).called(TLS.1).since(begun));
                let seen = Seen::of(connection.peer_certificates().unwrap_or_default());
                let past = self.past_proxy(&stream, proxy.is_some()).await;
                examination.add(certificate(&seen).called(CERTIFICATE.1));
                examination.add(self.inspection(&seen, past, proxy.as_deref()));
                Some(stream)
            }
            Err(DialError::Certificate { bad, .. }) => {
                let detail = "the handshake came as far as the certificate";
                examination.add(Check::ok(TLS.0, detail).called(TLS.1).since(begun));
                let seen = Seen::of(bad.presented());
                // That the CA of --ca-file has signed nothing is no news here.
                let inspection = seen.inspection(host, None);
                examination.add(bad_certificate(
                    &bad,
                    inspection.as_deref(),
                    proxy.as_deref(),
                ));
                match inspection {
                    Some(detail) => {
                        let check = Check::warning(INSPECTION.0, detail).called(INSPECTION.1);
                        examination.add(check.remedy(EXEMPT));
                    }
                    None => examination.skip(&[INSPECTION], "the certificate is not trusted"),
                }
                None
            }
            Err(error) => {
                examination.add(tls_failed(&error, port).called(TLS.1).since(begun));
                examination.skip(&[CERTIFICATE, INSPECTION], "TLS has to work first");
                None
            }
        }
    }

    async fn resolved(&self, examination: &mut Examination<'_>) -> bool {
        if self.host().parse::<IpAddr>().is_ok() {
            examination.skip(&[NAME], "the hub is named by its address");
            return true;
        }
        let begun = Instant::now();
        let found = self
            .dialer
            .addresses(self.host(), self.port, self.limit)
            .await;
        let check = match found {
            Ok(addresses) => {
                let shown: Vec<String> = addresses
                    .iter()
                    .take(4)
                    .map(|address| address.ip().to_string())
                    .collect();
                let detail = format!("{} is {}", self.host(), shown.join(", "));
                Check::ok(NAME.0, detail)
            }
            Err(error @ DialError::Timeout { .. }) => Check::failed(
                NAME.0,
                format!("no answer of the resolver: {}", report::chain(&error)),
            )
            .remedy("check this machine's DNS servers"),
            Err(error) => Check::failed(NAME.0, report::chain(&error))
                .remedy("check HostName in the connection string, and this machine's DNS servers"),
        };
        examination.add(check.called(NAME.1).since(begun))
    }

    /// The certificate that the hub shows without the proxy, if it can be reached so.
    async fn past_proxy(&self, through: &TlsHostStream, has_proxy: bool) -> Option<bool> {
        if !has_proxy {
            return None;
        }
        let (host, port) = (self.host(), self.port);
        let looking = async {
            let direct = self.dialer.open_direct(host, port, PAST_PROXY).await.ok()?;
            let direct = self.dialer.shake_hands(direct, host, port, PAST_PROXY);
            match direct.await {
                Ok(stream) => Some(stream.get_ref().1.peer_certificates()?.first()?.clone()),
                Err(DialError::Certificate { bad, .. }) => bad.presented().first().cloned(),
                Err(_) => None,
            }
        };
        let direct = timeout(PAST_PROXY, looking).await.ok()??;
        let proxied = through.get_ref().1.peer_certificates()?.first()?;
        Some(*proxied == direct)
    }

    fn inspection(&self, seen: &Seen, is_same: Option<bool>, proxy: Option<&str>) -> Check {
        let (id, title) = INSPECTION;
        if let (Some(false), Some(proxy)) = (is_same, proxy) {
            let signers = seen.signers();
            let detail = format!(
                "TLS may be inspected by the proxy {proxy}: through it the certificate is signed by {signers}, without it another one is shown"
            );
            return Check::warning(id, detail).called(title).remedy(EXEMPT);
        }
        let check = match seen.inspection(self.host(), self.ca_file) {
            Some(detail) => Check::warning(id, detail).remedy(EXEMPT),
            None => Check::ok(id, "no sign of it"),
        };
        check.called(title)
    }

    /// Compares clocks, by the `Date` of an answer; whether what answers speaks HTTP.
    async fn clock(&self, mut stream: TlsHostStream, examination: &mut Examination<'_>) -> bool {
        let begun = Instant::now();
        let before = SystemTime::now();
        let hub = self.hub;
        let request = format!("HEAD / HTTP/1.1\r\nhost: {hub}\r\nconnection: close\r\n\r\n");
        let asking = exchange(&mut stream, request.as_bytes());
        let (id, title) = HTTP;
        let answer = match timeout(self.limit, asking).await {
            Ok(Ok((answer, _))) => answer,
            Ok(Err(error)) => {
                let detail =
                    format!("what answers at the hub's address does not speak HTTP: {error}");
                examination.add(
                    Check::failed(id, detail)
                        .called(title)
                        .remedy("is HostName really a hub, and its port the right one?")
                        .since(begun),
                );
                return false;
            }
            Err(_) => {
                let detail = format!(
                    "the hub has sent no answer to HTTP within {} s",
                    self.limit.as_secs_f32()
                );
                examination.add(
                    Check::failed(id, detail)
                        .called(title)
                        .remedy("look at the hub's log, and at what stands before it")
                        .since(begun),
                );
                return false;
            }
        };
        // The hub's clock was read somewhere between.
        let ours = before + begun.elapsed() / 2;
        let check = Check::ok(id, format!("is answered ({})", answer.status()));
        examination.add(check.called(title).since(begun));
        let date = answer.headers().get(header::DATE);
        let theirs = date
            .and_then(|date| date.to_str().ok())
            .and_then(|date| httpdate::parse_http_date(date).ok());
        let (id, clock) = CLOCK;
        let check = match theirs {
            None => Check::skipped(id, "the hub's answer has no date"),
            Some(theirs) => clocks(id, ours, theirs, "the hub's"),
        };
        examination.add(check.called(clock));
        true
    }
}

/// Compares our clock with another one, which is `whose`.
pub fn clocks(id: &'static str, ours: SystemTime, theirs: SystemTime, whose: &str) -> Check {
    let (difference, word) = match ours.duration_since(theirs) {
        Ok(difference) => (difference, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    let seconds = difference.as_secs();
    let detail = format!("this machine's clock is {seconds} s {word} {whose}");
    if difference > limits::CLOCK_SKEW {
        Check::failed(id, format!("{detail}, so that tokens are refused"))
            .remedy("set the clock that is wrong, for instance by NTP")
    } else if difference > CLOCK_DIFFERS {
        Check::warning(id, detail).remedy("set the clock that is wrong, for instance by NTP")
    } else {
        Check::ok(id, format!("agrees with {whose}"))
    }
}

fn secured_with(connection: &rustls::CommonState) -> String {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let group = connection
        .negotiated_key_exchange_group()
        .map(|group| format!(", {:?}", group.name()))
        .unwrap_or_default();
    format!("{version}{group}")
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn clocks_may_differ_by_some_seconds() {
        let now = SystemTime::now();
        let check = |seconds: i64| {
            let difference = Duration::from_secs(seconds.unsigned_abs());
            let theirs = if seconds < 0 {
                now + difference
            } else {
                now - difference
            };
            clocks("clock", now, theirs, "the hub's")
        };
        assert_eq!(check(5).outcome, Outcome::Ok);
        assert_eq!(check(-5).outcome, Outcome::Ok);
        assert_eq!(check(60).outcome, Outcome::Warning);
        let (ahead, behind) = (check(400), check(-400));
        assert!(ahead.is_failed() && ahead.detail.contains("400 s ahead of the hub's"));
        assert!(behind.is_failed() && behind.detail.contains("400 s behind the hub's"));
    }
}
