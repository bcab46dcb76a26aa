//! The server's certificate and its freshness: the hub's own, that of a CA by ACME, or files that
//! another program renews.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use common::files::{self, Access};
use common::tls::{TlsConfigError, certificates, private_key};
use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Duration, Interval, MissedTickBehavior, interval};

use super::acme::{Acme, AcmeError, AcmeSettings, Challenges};
use super::ca::{self, Made, PkiError};
use super::slot::CertificateSlot;
use crate::events::{self, Event, Events};

/// Where the server's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// The hub's own CA in the data folder.
    Managed,
    /// PEM files that another program renews; they are read again when they change.
    Files {
        /// The certificate chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// A CA that is asked by ACME.
    Acme(AcmeSettings),
}

/// Why there is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The hub's own CA cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A given file cannot be used.
    #[error(transparent)]
    File(#[from] TlsConfigError),
    /// Certificate and key do not fit together.
    #[error("the TLS certificate and its key cannot be used")]
    Unusable(#[from] rustls::Error),
    /// A certificate cannot be had by ACME.
    #[error(transparent)]
    Acme(#[from] AcmeError),
}

impl CertificateError {
    /// Whether what was given is at fault, and not the world.
    pub fn is_usage(&self) -> bool {
        match self {
            // A certificate, or a key that does not fit it, of the operator's.
            Self::File(_) | Self::Unusable(_) => true,
            Self::Acme(error) => error.is_usage(),
            Self::Pki(_) => false,
        }
    }
}

/// What [`Certificate::publish`] puts down, in the folder of the TLS material.
pub(crate) const FINGERPRINT: &str = "fingerprint";
/// How often the hub's own certificate is looked at.
const MANAGED_LOOK: Duration = Duration::from_secs(6 * 3600);
/// How often given files are looked at.
const FILES_LOOK: Duration = Duration::from_secs(30);

/// The certificate in use, and where it comes from.
pub struct Certificate {
    slot: Arc<CertificateSlot>,
    source: Source,
    tls_dir: PathBuf,
    host: String,
    events: Events,
    /// Somebody knows that there may be another one.
    looks: Notify,
}

enum Source {
    Managed,
    Files { certificate: PathBuf, key: PathBuf },
    Acme(Box<Acme>),
}

impl Certificate {
    /// Makes or reads the certificate for this host name.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn load(
        source: CertificateSource,
        tls_dir: PathBuf,
        host: &str,
        events: &Events,
    ) -> Result<Self, CertificateError> {
        let (slot, source) = match source {
            CertificateSource::Managed => {
                let had_ca = tls_dir.join("ca.pem").exists();
                let material = ca::ensure(&tls_dir, host, OffsetDateTime::now_utc())?;
                if material.made == Made::CaAndServer {
                    emit(
                        events,
                        events::Certificate::CaMade {
                            file: &material.ca_file,
                            host,
                            is_replaced: had_ca,
                        },
                    );
                }
                let slot = CertificateSlot::new(material.certificates, material.key)?;
                (slot, Source::Managed)
            }
            CertificateSource::Files { certificate, key } => {
                let chain = certificates(&certificate)?;
                warn_of_refusal(&chain, &certificate, host, events);
                let slot = CertificateSlot::new(chain, private_key(&key)?)?;
                (slot, Source::Files { certificate, key })
            }
            CertificateSource::Acme(settings) => {
                let acme = Acme::load(settings, &tls_dir, host, events)?;
                (Arc::clone(acme.slot()), Source::Acme(Box::new(acme)))
            }
        };
        let loaded = Self {
            slot,
            source,
            tls_dir,
            host: host.to_owned(),
            events: events.clone(),
            looks: Notify::new(),
        };
        loaded.publish();
        Ok(loaded)
    }

    /// Puts down what enrolment codes name this hub by, for the admin command that makes them.
    fn publish(&self) {
        let path = self.tls_dir.join(FINGERPRINT);
        let text = format!("{}\n", self.slot.anchor().fingerprint);
        if std::fs::read(&path).is_ok_and(|stored| stored == text.as_bytes()) {
            return;
        }
        if let Err(error) = files::write(&path, text.as_bytes(), Access::Private) {
            // The hub serves without it; only no code can be made.
            emit(&self.events, events::Certificate::NotPublished(&error));
        }
    }

    /// Where listeners take the certificate from.
    pub fn slot(&self) -> &Arc<CertificateSlot> {
        &self.slot
    }

    /// The same for the HTTPS listener, which also answers the challenges of a CA.
    pub fn challenges(&self) -> Option<&Arc<Challenges>> {
        match &self.source {
            Source::Acme(acme) => Some(acme.challenges()),
            Source::Managed | Source::Files { .. } => None,
        }
    }

    /// Has [`keep_fresh`](Self::keep_fresh) look now, and not at its next time.
    pub fn look(&self) {
        self.looks.notify_one();
    }

    async fn next_look(&self, ticks: &mut Interval) {
        tokio::select! {
            _ = ticks.tick() => {}
            () = self.looks.notified() => {}
        }
    }

    /// Looks after the certificate for ever; what goes wrong is logged, and the old
    /// one stays in use.
    ///
    /// Ends by being dropped.
    pub async fn keep_fresh(&self) {
        match &self.source {
            Source::Managed => {
                let mut ticks = interval(MANAGED_LOOK);
                // One look after a sleep, not all that were missed.
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    self.next_look(&mut ticks).await;
                    if let Err(error) = self.renew_managed() {
                        emit(&self.events, events::Certificate::NotRenewed(&error));
                    }
                }
            }
            Source::Acme(acme) => acme.keep_fresh().await,
            Source::Files { certificate, key } => {
                let mut ticks = interval(FILES_LOOK);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let mut seen = (modified(certificate), modified(key));
                loop {
                    self.next_look(&mut ticks).await;
                    let now = (modified(certificate), modified(key));
                    if now == seen {
                        continue;
                    }
                    match self.reload(certificate, key) {
                        Ok(()) => {
                            seen = now;
                            emit(&self.events, events::Certificate::Reloaded);
                        }
                        // Perhaps one of the two is not written yet: look again.
                        Err(error) => emit(&self.events, events::Certificate::NotReloaded(&error)),
                    }
                }
            }
        }
    }

    fn renew_managed(&self) -> Result<(), CertificateError> {
        let material = ca::ensure(&self.tls_dir, &self.host, OffsetDateTime::now_utc())?;
        if material.made == Made::Nothing {
            return Ok(());
        }
        self.slot.replace(material.certificates, material.key)?;
        self.publish();
        emit(&self.events, events::Certificate::Renewed);
        if material.made == Made::CaAndServer {
            let file = &material.ca_file;
            emit(&self.events, events::Certificate::CaRenewed { file });
        }
        Ok(())
    }

    fn reload(&self, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
        self.slot
            .replace(certificates(certificate)?, private_key(key)?)?;
        self.publish();
        Ok(())
    }
}

fn emit(events: &Events, event: events::Certificate<'_>) {
    events.emit(Event::Certificate(event));
}

/// Reports a given certificate that clients will refuse whatever they trust: better here than
/// on every device.
fn warn_of_refusal(chain: &[CertificateDer<'static>], file: &Path, host: &str, events: &Events) {
    let Some(certificate) = chain.first() else {
        return;
    };
    let is_ca =
        x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, found)| found.is_ca());
    if is_ca {
        emit(events, events::Certificate::IsCa { file });
    }
    let (Ok(certificate), Ok(name)) = (
        ParsedCertificate::try_from(certificate),
        ServerName::try_from(host),
    ) else {
        return;
    };
    if verify_server_name(&certificate, &name).is_err() {
        emit(events, events::Certificate::OtherHost { file, host });
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}
