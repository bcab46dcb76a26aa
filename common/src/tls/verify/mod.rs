//! rustls' own verifier of servers' certificates, with errors that a user can act on: they name the
//! subject and the issuer of the certificate, which webpki's errors do not.

use std::error::Error;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    SignatureScheme,
};
use time::OffsetDateTime;
use time::macros::format_description;
use webpki::EndEntityCert;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::{chain, find};

/// The most names of a certificate that are displayed.
const NAMES: usize = 3;
/// The most characters of one name that are displayed: the length of a host name.
const NAME_LENGTH: usize = 253;

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateProblem {
    /// No trusted CA has signed it.
    Untrusted,
    /// It has signed itself, and is not trusted.
    SelfSigned,
    /// It is a CA's own certificate, which is not valid for a server.
    Authority,
    /// It is for another host name.
    WrongName,
    /// It is not valid yet: usually our clock is not set.
    NotYetValid,
    /// It has expired.
    Expired,
    /// Anything else.
    Other,
}

/// A server's certificate that was refused. `Display` is the end of a sentence: the problem, the
/// certificate's subject, and what to do. It contains no control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{finding}; {remedy}")]
pub struct BadCertificate {
    /// The kind of problem.
    pub problem: CertificateProblem,
    /// What is wrong with it, as the end of a sentence: of a hub's or of any other's.
    pub finding: String,
    /// What to do if it is a hub's.
    pub remedy: String,
    /// What the server has sent, where that is known. Boxed: errors stay small.
    presented: Option<Box<Presented>>,
}

/// What a server has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Presented {
    /// Its certificate, then those of CAs.
    certificates: Vec<CertificateDer<'static>>,
    /// The CA whose certificate it should have sent, too.
    missing: Option<String>,
}

impl BadCertificate {
    /// Finds a refused certificate among an error and its causes.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(found) = find::<Self>(error) {
            return Some(found.clone());
        }
        let Some(rustls::Error::InvalidCertificate(cause)) = find(error) else {
            return None;
        };
        if let CertificateError::Other(OtherError(inner)) = cause
            && let Some(found) = inner.downcast_ref::<Self>()
        {
            return Some(found.clone());
        }
        Some(Self::new(cause, None))
    }

    /// What the server has sent: its certificate, then those of CAs. Empty where that is not known.
    pub fn presented(&self) -> &[CertificateDer<'static>] {
        let presented = self.presented.as_ref();
        presented.map_or(&[], |presented| &presented.certificates)
    }

    /// The CA whose certificate the server should have sent beside its own, and has not: what it has
    /// sent leads to no trusted CA, and the missing one's looks like that of an intermediate CA.
    pub fn missing(&self) -> Option<&str> {
        self.presented.as_ref()?.missing.as_deref()
    }

    fn new(cause: &CertificateError, certificate: Option<&EndEntityCert<'_>>) -> Self {
        let problem = problem(cause, certificate);
        let (finding, remedy) = explain(problem, cause, certificate);
        Self {
            problem,
            finding,
            remedy,
            presented: None,
        }
    }
}

fn problem(
    cause: &CertificateError,
    certificate: Option<&EndEntityCert<'_>>,
) -> CertificateProblem {
    use CertificateError as C;
    let is_self_signed = certificate.is_some_and(is_self_signed);
    match cause {
        C::UnknownIssuer | C::BadSignature if is_self_signed => CertificateProblem::SelfSigned,
        C::UnknownIssuer | C::BadSignature => CertificateProblem::Untrusted,
        C::NotValidForName | C::NotValidForNameContext { .. } => CertificateProblem::WrongName,
        C::NotValidYet | C::NotValidYetContext { .. } => CertificateProblem::NotYetValid,
        C::Expired | C::ExpiredContext { .. } => CertificateProblem::Expired,
        // webpki's error for this has no variant of its own.
        C::Other(OtherError(inner)) if is_authority(&**inner) => CertificateProblem::Authority,
        _ => CertificateProblem::Other,
    }
}

fn is_authority(cause: &(dyn Error + 'static)) -> bool {
    cause.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
}

fn is_self_signed(certificate: &EndEntityCert<'_>) -> bool {
    certificate.issuer() == certificate.subject()
}

/// The end of a sentence that begins with the server's address, and what to do.
fn explain(
    problem: CertificateProblem,
    cause: &CertificateError,
    certificate: Option<&EndEntityCert<'_>>,
) -> (String, String) {
    let subject = certificate.map_or_else(String::new, |c| of(c.subject()));
    match problem {
        CertificateProblem::Untrusted => {
            let signer = match certificate.map(|c| name(c.issuer())) {
                Some(issuer) if !issuer.is_empty() => format!("{issuer}, a CA that is not trusted"),
                _ => "no CA that is trusted".to_owned(),
            };
            (
                format!("its certificate{subject} is signed by {signer} here"),
                "name the hub's CA with --ca-file".to_owned(),
            )
        }
        CertificateProblem::SelfSigned => (
            format!("its certificate{subject} is self-signed and not trusted here"),
            "if it is the hub's, name it with --ca-file, or let `stream-hub serve` make a CA and a certificate and name that CA".to_owned(),
        ),
        CertificateProblem::Authority => {
            let is_self_signed = certificate.is_some_and(is_self_signed);
            let kind = if is_self_signed {
                "self-signed and "
            } else {
                ""
            };
            (
                format!("its certificate{subject} is {kind}marked as a CA's, which no server may use"),
                "give the hub a certificate that a CA has signed, and name that CA with --ca-file: `stream-hub serve` without --tls-cert makes both".to_owned(),
            )
        }
        CertificateProblem::WrongName => (
            format!(
                "its certificate is for another host name{}",
                listed(&names(cause))
            ),
            "use the name that `stream-hub serve --hostname` was given".to_owned(),
        ),
        CertificateProblem::NotYetValid => {
            let from = match cause {
                CertificateError::NotValidYetContext { not_before, .. } => Some(*not_before),
                _ => None,
            };
            (
                format!("its certificate is not valid yet{}", dated(", but from", from)),
                format!("is this machine's clock right?{}", clock(cause)),
            )
        }
        CertificateProblem::Expired => {
            let until = match cause {
                CertificateError::ExpiredContext { not_after, .. } => Some(*not_after),
                _ => None,
            };
            (
                format!("its certificate has expired{}", dated(", on", until)),
                format!(
                    "renew it at the hub, or check this machine's clock{}",
                    clock(cause)
                ),
            )
        }
        CertificateProblem::Other => (
            format!(
                "its certificate{subject} is not acceptable ({})",
                plain(&cause.to_string())
            ),
            "`stream-hub serve` without --tls-cert makes one that is".to_owned(),
        ),
    }
}

/// ` of NAME`, or nothing where there is no name.
fn of(subject: &[u8]) -> String {
    match name(subject) {
        name if name.is_empty() => String::new(),
        name => format!(" of {name}"),
    }
}

/// The common name, quoted; without one the organisation. From the DER of the name's parts.
fn name(parts: &[u8]) -> String {
    let whole = DistinguishedName::in_sequence(parts);
    let Ok((_, name)) = X509Name::from_der(whole.as_ref()) else {
        return String::new();
    };
    let mut names = name.iter_common_name().chain(name.iter_organization());
    match names
        .find_map(|attribute| attribute.as_str().ok())
        .map(plain)
    {
        Some(text) if !text.is_empty() => format!("\"{text}\""),
        _ => String::new(),
    }
}

/// The names that the certificate is for.
fn names(cause: &CertificateError) -> Vec<String> {
    let CertificateError::NotValidForNameContext { presented, .. } = cause else {
        return Vec::new();
    };
    // `DnsName("x")` and `IpAddress(1.2.3.4)`: the text between the quotes or brackets.
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest);
        plain(inner.trim_end_matches(')').trim_matches('"'))
    };
    presented.iter().map(bare).collect()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown = names.iter().take(NAMES).map(String::as_str);
    let more = if names.len() > NAMES { ", …" } else { "" };
    format!(" ({}{more})", shown.collect::<Vec<_>>().join(", "))
}

fn dated(before: &str, time: Option<UnixTime>) -> String {
    date(time).map_or_else(String::new, |date| format!("{before} {date}"))
}

fn clock(cause: &CertificateError) -> String {
    let (CertificateError::NotValidYetContext { time, .. }
    | CertificateError::ExpiredContext { time, .. }) = cause
    else {
        return String::new();
    };
    date(Some(*time)).map_or_else(String::new, |date| format!(" (it says {date})"))
}

fn date(time: Option<UnixTime>) -> Option<String> {
    let seconds = i64::try_from(time?.as_secs()).ok()?;
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()?
        .format(format)
        .ok()
}

/// Text of a certificate for display: one line, limited in length.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !crate::outside::is_unprintable(*c))
        .take(NAME_LENGTH)
        .collect()
}

/// Verifies as rustls does, and explains refusals.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    webpki: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
}

impl ServerVerifier {
    /// Trusts these roots, which must not be empty.
    pub(super) fn new(
        roots: RootCertStore,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, rustls::Error> {
        let roots = Arc::new(roots);
        let webpki =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { webpki, roots })
    }

    /// What was refused for this problem.
    fn presented(
        &self,
        problem: CertificateProblem,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Presented {
        let certificates: Vec<_> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let is_unknown = problem == CertificateProblem::Untrusted;
        Presented {
            missing: is_unknown
                .then(|| chain::missing(&certificates, &self.roots))
                .flatten(),
            certificates,
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        verified.map_err(|error| match error {
            rustls::Error::InvalidCertificate(cause) => {
                let parsed = EndEntityCert::try_from(end_entity).ok();
                let mut bad = BadCertificate::new(&cause, parsed.as_ref());
                bad.presented = Some(Box::new(self.presented(
                    bad.problem,
                    end_entity,
                    intermediates,
                )));
                CertificateError::Other(OtherError(Arc::new(bad))).into()
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.webpki
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.webpki.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.webpki.root_hint_subjects()
    }
}

#[cfg(test)]
mod tests;
