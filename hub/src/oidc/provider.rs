//! The provider's description of itself and its keys: read when they are needed, and again when a
//! token is signed by a key that is not known, which is how providers change theirs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::clock::unix_now;
use common::locks::lock;
use common::net::{Dialer, HttpsError, https};
use common::tls::TlsConfigError;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::OidcSettings;
use super::verify::{IdentityError, verify};
use crate::registry::Login;

/// Who asks.
const AGENT: &str = concat!("stream-hub/", env!("CARGO_PKG_VERSION"));
/// How long the keys are believed to be all.
const KEEP: Duration = Duration::from_secs(3_600);
/// They are not read again sooner, whatever tokens come.
const AGAIN: Duration = Duration::from_secs(3);
/// How long an answer may take, and its most bytes.
const ANSWER_TIME: Duration = Duration::from_secs(10);
const ANSWER: usize = 1 << 20;
/// The longest that somebody waits for the provider's answers to others: two of them, and some.
const TURN: Duration = Duration::from_secs(25);

/// Why nothing is known of a person.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The identity token is not believed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The provider cannot be asked for its keys.
    #[error("the identity provider {issuer} cannot be asked for its keys")]
    Unreachable {
        /// Which.
        issuer: String,
        /// Why not.
        #[source]
        source: HttpsError,
    },
    /// The provider's answer is none.
    #[error("the identity provider {issuer} answers with status {status} at {url}")]
    Status {
        /// Which.
        issuer: String,
        /// What was read.
        url: String,
        /// The status.
        status: StatusCode,
    },
    /// The provider's answer is none.
    #[error("what the identity provider {issuer} has at {url} is not {wanted}")]
    Answer {
        /// Which.
        issuer: String,
        /// What was read.
        url: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The keys were read a moment ago, and could not be.
    #[error(
        "the identity provider could not be asked for its keys a moment ago; try again in some seconds"
    )]
    Later,
}

/// What is read of the description.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

/// Keys as a provider shows them, among which may be some of kinds that we do not know.
#[derive(Deserialize)]
pub struct AnyKeys {
    keys: Vec<Value>,
}

impl AnyKeys {
    /// Those of kinds that we know.
    pub fn known(self) -> JwkSet {
        let keys = self.keys.into_iter();
        JwkSet {
            keys: keys
                .filter_map(|key| serde_json::from_value(key).ok())
                .collect(),
        }
    }
}

/// The organisation's identity provider.
pub struct Provider {
    settings: OidcSettings,
    /// PEM of its CA, for service-proxy.
    authorities: Option<String>,
    dialer: Dialer,
    /// The keys, and when they were read.
    known: std::sync::Mutex<Option<(Arc<JwkSet>, Instant)>>,
    /// One at a time reads them, and others wait for that; when it was last tried.
    tried: Mutex<Option<Instant>>,
}

impl Provider {
    /// Connects when it is needed. Reads the CA's file; blocks.
    ///
    /// # Errors
    /// [`TlsConfigError`] names the file at fault.
    pub fn new(settings: OidcSettings) -> Result<Self, TlsConfigError> {
        let tls = common::tls::client_config(settings.ca_file.as_deref(), None)?;
        let authorities = settings.ca_file.as_deref().map(|file| {
            let certificates = common::tls::certificates(file)?;
            let pem = certificates
                .iter()
                .map(|it| pem::encode(&pem::Pem::new("CERTIFICATE", it.to_vec())));
            Ok::<String, TlsConfigError>(pem.collect())
        });
        Ok(Self {
            settings,
            authorities: authorities.transpose()?,
            dialer: Dialer::new(&tls),
            known: std::sync::Mutex::default(),
            tried: Mutex::default(),
        })
    }

    /// How it knows us.
    pub fn settings(&self) -> &OidcSettings {
        &self.settings
    }

    /// PEM of its CA, if it needs one that systems do not have.
    pub fn authorities(&self) -> Option<&str> {
        self.authorities.as_deref()
    }

    /// Who an identity token is for. Ends by itself; may be dropped.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn identify(&self, token: &str) -> Result<Login, ProviderError> {
        let (keys, read) = self.keys(None).await?;
        match verify(token, &keys, &self.settings, unix_now()) {
            Err(IdentityError::UnknownKey) => {
                let (keys, _) = self.keys(Some(read)).await?;
                Ok(verify(token, &keys, &self.settings, unix_now())?)
            }
            result => Ok(result?),
        }
    }

    /// The keys, and when they were read: newer than `older`. Not read again sooner than [`AGAIN`]:
    /// that is waited for. Keys that are known are there at once, whoever waits for others.
    async fn keys(&self, older: Option<Instant>) -> Result<(Arc<JwkSet>, Instant), ProviderError> {
        if let Some(found) = self.newer(older) {
            return Ok(found);
        }
        let until = Instant::now() + TURN;
        let turn = || timeout_at(until, self.tried.lock());
        let mut tried = turn().await.map_err(|_| ProviderError::Later)?;
        loop {
            if let Some(found) = self.newer(older) {
                return Ok(found);
            }
            let known = lock(&self.known).as_ref().map(|(_, at)| *at);
            match tried.filter(|tried| tried.elapsed() < AGAIN) {
                None => break,
                // Somebody's unknown key had them read a moment ago; since then they may have changed.
                Some(last) if known.is_some_and(|known| known >= last) => {
                    drop(tried);
                    sleep_until(last + AGAIN).await;
                    tried = turn().await.map_err(|_| ProviderError::Later)?;
                }
                Some(_) => return Err(ProviderError::Later),
            }
        }
        *tried = Some(Instant::now());
        let read = self.read_keys().await;
        match &read {
            Ok(found) => *lock(&self.known) = Some(found.clone()),
            // A provider that has kept us waiting is not asked again at once by the next in the queue.
            Err(_) => *tried = Some(Instant::now()),
        }
        read
    }

    /// The keys that are known, if they are newer than `older`, and may still be all.
    fn newer(&self, older: Option<Instant>) -> Option<(Arc<JwkSet>, Instant)> {
        let known = lock(&self.known).clone();
        known.filter(|(_, at)| at.elapsed() < KEEP && older.is_none_or(|older| *at > older))
    }

    async fn read_keys(&self) -> Result<(Arc<JwkSet>, Instant), ProviderError> {
        let issuer = &self.settings.issuer;
        let url = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let description: Description = self.read(&url, "the description of a provider").await?;
        if description.issuer != *issuer {
            return Err(ProviderError::Answer {
                issuer: issuer.clone(),
                url,
                wanted: "its own description: it names another issuer",
            });
        }
        let set: AnyKeys = self.read(&description.jwks_uri, "a set of keys").await?;
        Ok((Arc::new(set.known()), Instant::now()))
    }

    async fn read<T: for<'a> Deserialize<'a>>(
        &self,
        url: &str,
        wanted: &'static str,
    ) -> Result<T, ProviderError> {
        let issuer = || self.settings.issuer.clone();
        let printable = || common::outside::printable(url).into_owned();
        let bad = || ProviderError::Answer {
            issuer: issuer(),
            url: printable(),
            wanted,
        };
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .body(Bytes::new())
            .map_err(|_| bad())?;
        let answer = https(
            &self.dialer,
            request.map(Full::new),
            AGENT,
            ANSWER,
            ANSWER_TIME,
        )
        .await
        .map_err(|source| ProviderError::Unreachable {
            issuer: issuer(),
            source,
        })?;
        if answer.status() != StatusCode::OK {
            return Err(ProviderError::Status {
                issuer: issuer(),
                url: printable(),
                status: answer.status(),
            });
        }
        serde_json::from_slice(answer.body()).map_err(|_| bad())
    }
}
