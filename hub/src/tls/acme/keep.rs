//! The certificate while the hub runs: what is there at the start, the first order, and renewals.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::net::Dialer;
use common::tls::{Fingerprint, client_config};
use instant_acme::CertificateIdentifier;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::attempts::{Attempts, Validity};
use super::challenge::Challenges;
use super::http::Client;
use super::issued::Issued;
use super::store::Store;
use super::{AcmeError, AcmeSettings, LOOK, ORDER, POLL, account, advice, check_name, order};
use crate::events::{self, Event, Events};
use crate::tls::ca;
use crate::tls::slot::{Anchor, CertificateSlot};

/// The certificate of a CA, and all that it takes to renew it.
pub struct Acme {
    settings: AcmeSettings,
    host: String,
    store: Store,
    key: KeyPair,
    /// The roots of the operator's, which may be those of the certificate, too.
    roots: Vec<CertificateDer<'static>>,
    client: Client,
    slot: Arc<CertificateSlot>,
    challenges: Arc<Challenges>,
    events: Events,
    /// The certificate that was there at the start, and whether it is this CA's.
    found: Option<(Issued, bool)>,
}

impl Acme {
    /// What is there for this host name: the last certificate, or none yet. Blocks.
    ///
    /// # Errors
    /// [`AcmeError`] when the name is none that a CA signs for, or a file cannot be used.
    pub fn load(
        settings: AcmeSettings,
        tls_dir: &Path,
        host: &str,
        events: &Events,
    ) -> Result<Self, AcmeError> {
        check_name(host, &settings.directory)?;
        let host = host.to_ascii_lowercase();
        let roots = match &settings.ca_file {
            Some(file) => common::tls::certificates(file)?,
            None => Vec::new(),
        };
        let tls = client_config(settings.ca_file.as_deref(), None)?;
        let store = Store::open(tls_dir)?;
        let key = store.key()?;
        let slot = CertificateSlot::empty(Anchor {
            fingerprint: Fingerprint::of_public_key(&key.subject_public_key_info().into()),
            authorities: Vec::new(),
        });
        let mut acme = Self {
            challenges: Challenges::new(&slot),
            client: Client::new(Dialer::new(&tls)),
            settings,
            host,
            store,
            key,
            roots,
            slot,
            events: events.clone(),
            found: None,
        };
        acme.found = acme.find()?;
        match &acme.found {
            Some((issued, _)) => acme.show(issued),
            None => acme.stand_in(tls_dir)?,
        }
        Ok(acme)
    }

    /// Where listeners take the certificate from.
    pub fn slot(&self) -> &Arc<CertificateSlot> {
        &self.slot
    }

    /// Where the HTTPS listener takes it from, and answers challenges.
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Orders and renews the certificate for ever; what goes wrong is logged, and the old one stays in
    /// use. Ends by being dropped.
    pub async fn keep_fresh(&self) {
        let mut attempts = Attempts::default();
        let mut current = self.found.clone();
        // When the CA wants a renewal, and when to ask it for that.
        let mut advised = None;
        let mut ask = OffsetDateTime::UNIX_EPOCH;
        // A certificate that is old when it comes, by our clock, is no reason to order without end.
        let mut rested = Instant::now();
        loop {
            let now = OffsetDateTime::now_utc();
            let due = match &current {
                Some((issued, true)) => {
                    if now >= ask {
                        let again = self.ask(issued, &mut advised).await;
                        ask = OffsetDateTime::now_utc() + again;
                    }
                    advised.unwrap_or_else(|| issued.validity.renewal(issued.spread))
                }
                _ => now,
            };
            let now = OffsetDateTime::now_utc();
            if now < due {
                let rest = Duration::try_from(due.min(ask) - now).unwrap_or_default();
                sleep(rest.min(LOOK)).await;
                continue;
            }
            if advised.is_none() && Instant::now() < rested {
                sleep_until(rested.min(Instant::now() + LOOK)).await;
                continue;
            }
            // What an attempt before this one was to wait for.
            self.client.take_pause();
            // Only a CA that gives advice knows what an order replaces; and after a failure the order
            // is the simplest there is.
            let replaced = current
                .as_ref()
                .filter(|_| advised.is_some() && attempts.is_first());
            let replaces = replaced.and_then(|(issued, _)| advice::identifier(issued));
            match self.obtain(replaces).await {
                Ok(issued) => {
                    attempts.succeeded();
                    // Not at once, so that no advice makes us order without end.
                    (advised, ask) = (None, OffsetDateTime::now_utc() + LOOK);
                    rested = Instant::now() + issued.validity.life() / 3;
                    current = Some((issued, true));
                }
                Err(error) => {
                    let valid = current.as_ref().map(|(issued, _)| issued.validity);
                    let delay = self.report(&mut attempts, &error, valid);
                    self.wait(delay, valid.map(|valid| valid.not_after)).await;
                }
            }
        }
    }

    /// Waits, and reports when the certificate expires meanwhile.
    async fn wait(&self, delay: Duration, until: Option<OffsetDateTime>) {
        let rest = until.map(|until| until - OffsetDateTime::now_utc());
        let rest = rest.and_then(|rest| Duration::try_from(rest).ok());
        match (rest.filter(|rest| *rest < delay), until) {
            (Some(rest), Some(until)) => {
                sleep(rest).await;
                let host = &self.host;
                self.emit(events::Acme::Expired { host, until });
                sleep(delay - rest).await;
            }
            _ => sleep(delay).await,
        }
    }

    /// Asks the CA when it wants a renewal; how long that holds. If it does not answer, what it has said
    /// before holds on.
    async fn ask(&self, issued: &Issued, advised: &mut Option<OffsetDateTime>) -> Duration {
        let asking = async {
            match account::kept(&self.store, &self.settings, &self.client).await? {
                Some(account) => advice::ask(&account, issued).await,
                None => Err(AcmeError::NoAccount),
            }
        };
        match timeout(POLL, asking).await {
            Ok(Ok(advice)) => {
                *advised = advice.renewal;
                advice.again
            }
            Ok(Err(_)) | Err(_) => LOOK,
        }
    }

    /// Gets a new certificate, and shows it.
    async fn obtain(
        &self,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<Issued, AcmeError> {
        let pem = match timeout(ORDER, self.order(replaces)).await {
            Ok(pem) => pem?,
            Err(_) => return Err(AcmeError::Timeout),
        };
        let issued = Issued::read(&pem, &self.host, self.key_der())?;
        self.show(&issued);
        let until = issued.validity.not_after;
        let (host, serial) = (self.host.as_str(), issued.serial.as_str());
        self.emit(events::Acme::Issued {
            host,
            serial,
            until,
        });
        // It is in use, even if the disk is full: CAs count what they sign.
        if let Err(reason) = self.store.set_certificate(&self.settings.directory, &pem) {
            self.emit(events::Acme::NotKept(&reason));
        }
        Ok(issued)
    }

    async fn order(
        &self,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<String, AcmeError> {
        let (store, settings, client) = (&self.store, &self.settings, &self.client);
        let by = |account, replaces| async move {
            let (host, key) = (&self.host, &self.key);
            order::certificate(&account, host, key, &self.challenges, replaces).await
        };
        match account::kept(store, settings, client).await {
            Ok(None) | Err(AcmeError::NoAccount) => {}
            Err(error) => return Err(error),
            Ok(Some(account)) => match by(account, replaces).await {
                Err(AcmeError::NoAccount) => {}
                result => return result,
            },
        }
        by(
            account::made(store, settings, client, &self.events).await?,
            None,
        )
        .await
    }

    /// The certificate in the data folder, if it is for this host and key, and whether it is this CA's.
    fn find(&self) -> Result<Option<(Issued, bool)>, AcmeError> {
        let Some((directory, pem)) = self.store.certificate()? else {
            return Ok(None);
        };
        let issued = Issued::read(&pem, &self.host, self.key_der()).ok();
        Ok(issued.map(|issued| (issued, directory == self.settings.directory)))
    }

    /// Until there is a certificate: if the hub had a CA of its own, devices that know it go on.
    fn stand_in(&self, tls_dir: &Path) -> Result<(), AcmeError> {
        let chain = ca::stand_in(tls_dir, &self.host, &self.key, OffsetDateTime::now_utc());
        let is_refusing = chain.is_none();
        if let Some(chain) = chain {
            let anchor = Anchor {
                fingerprint: self.slot.anchor().fingerprint,
                authorities: chain.last().cloned().into_iter().collect(),
            };
            let provider = common::tls::provider();
            let certified = CertifiedKey::from_der(chain, self.key_der(), &provider)?;
            self.slot.show(Arc::new(certified), anchor);
        }
        let (host, directory) = (self.host.as_str(), self.settings.directory.as_str());
        self.emit(events::Acme::Ordering {
            host,
            directory,
            is_refusing,
        });
        Ok(())
    }

    fn show(&self, issued: &Issued) {
        let anchor = Anchor {
            fingerprint: self.slot.anchor().fingerprint,
            authorities: issued.authorities(&self.host, &self.roots),
        };
        self.slot.show(Arc::clone(&issued.certified), anchor);
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// Reports a failure if it is news; how long to wait before the next attempt.
    fn report(
        &self,
        attempts: &mut Attempts,
        error: &AcmeError,
        valid: Option<Validity>,
    ) -> Duration {
        let now = OffsetDateTime::now_utc();
        let pause = self.client.take_pause();
        let is_over = valid.is_some_and(|valid| valid.is_over(now));
        // That the certificate has expired meanwhile is news.
        let kind = format!("{} {is_over}", error.kind());
        let again = attempts.failed(&kind, error.is_refusal(), pause, now);
        if again.is_news {
            self.emit(events::Acme::Failed {
                host: &self.host,
                directory: &self.settings.directory,
                reason: error,
                delay: again.delay,
                until: valid.map(|valid| valid.not_after),
                is_over,
            });
        }
        again.delay
    }

    fn emit(&self, event: events::Acme<'_>) {
        self.events.emit(Event::Acme(event));
    }
}
