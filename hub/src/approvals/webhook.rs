//! The webhook: somebody's program learns of requests and decisions, and perhaps asks a person in a
//! chat. Only the hub's configuration says where it is.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use common::clock::unix_now;
use common::net::{Dialer, HttpsError, https};
use common::secret::Secret;
use common::settings::{SettingError, secret_file};
use common::tls::TlsConfigError;
use http::{HeaderName, Request, StatusCode, header};
use http_body_util::Full;
use tokio::time::sleep;

use crate::documents;
use crate::events::{Event, Events, Fault};
use crate::registry::{ApprovalNews, ApprovalState, Approvals, RegistryError};

/// Who asks.
const AGENT: &str = concat!("stream-hub/", env!("CARGO_PKG_VERSION"));
/// Says that the body is the hub's: `t=` and the time, Unix seconds, `,sha256=` and the HMAC in hex
/// over the time, a dot and the body.
pub const SIGNATURE: HeaderName = HeaderName::from_static("stream-hub-signature");
/// How long each attempt may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How often a message is tried: for about an hour, with [`delay`].
const ATTEMPTS: u32 = 16;
/// After so many attempts the log says that it is not taken.
const PATIENCE: u32 = 5;
/// The longest pause between two attempts, in seconds.
const PAUSE: u64 = 600;
/// How often it is looked for messages.
const LOOK: Duration = Duration::from_secs(1);
/// Messages that are taken at once.
const BATCH: u32 = 16;
/// The answer does not matter.
const ANSWER: usize = 64 << 10;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// An https URL.
    pub url: String,
    /// The file of the secret by which messages are signed.
    pub secret_file: Option<PathBuf>,
    /// The secret itself, of the environment.
    pub secret: Option<Secret>,
    /// A CA for it in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The secret's file.
    #[error(transparent)]
    Secret(#[from] SettingError),
    /// The CA's file.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    /// There is no answer.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The answer is no success.
    #[error("it answers with status {0}")]
    Status(StatusCode),
    /// The URL is none.
    #[error("its URL cannot be asked")]
    Url,
}

/// Somebody's program that is told.
pub struct Webhook {
    url: String,
    key: Option<hmac::Key>,
    dialer: Dialer,
}

impl Webhook {
    /// Connects when it is needed. Reads the files; blocks.
    ///
    /// # Errors
    /// [`WebhookError`] names the file at fault.
    pub fn new(settings: &WebhookSettings) -> Result<Self, WebhookError> {
        let tls = common::tls::client_config(settings.ca_file.as_deref(), None)?;
        let secret = match (&settings.secret, &settings.secret_file) {
            (Some(secret), _) => Some(secret.clone()),
            (None, Some(path)) => Some(secret_file("the webhook's secret", path)?),
            (None, None) => None,
        };
        Ok(Self {
            url: settings.url.clone(),
            key: secret.map(|it| hmac::Key::new(hmac::HMAC_SHA256, it.expose().as_bytes())),
            dialer: Dialer::new(&tls),
        })
    }

    /// Tells of all that the registry has for it, for ever: what is about one request in its order. What
    /// it does not take is tried again, also after a restart of the hub, and given up in the end.
    pub(super) async fn run(&self, registry: &dyn Approvals, events: &Events) {
        loop {
            let found = registry.approval_news(unix_now(), BATCH).await;
            let told = match found {
                Ok(news) if news.is_empty() => {
                    sleep(LOOK).await;
                    continue;
                }
                Ok(news) => self.tell_all(&news, registry, events).await,
                Err(error) => Err(error),
            };
            if let Err(error) = told {
                events.emit(Event::Fault(Fault::ApprovalsNotFollowed(&error)));
                sleep(LOOK).await;
            }
        }
    }

    async fn tell_all(
        &self,
        news: &[ApprovalNews],
        registry: &dyn Approvals,
        events: &Events,
    ) -> Result<(), RegistryError> {
        for message in news {
            // As it was then: in the meantime it may have been asked for again.
            let request = &message.request;
            let at = match &request.state {
                ApprovalState::Waiting => request.asked,
                ApprovalState::Decided { at, .. } => *at,
            };
            let document = documents::approval::write(request, at);
            let failure = self.tell(&document.to_string()).await.err();
            let attempts = message.attempts.saturating_add(1);
            let is_over = attempts >= ATTEMPTS;
            if let Some(reason) = &failure
                && (is_over || attempts == PATIENCE)
            {
                events.emit(Event::Fault(Fault::WebhookNotTold {
                    reason,
                    is_given_up: is_over,
                }));
            }
            match failure {
                Some(_) if !is_over => {
                    let due = unix_now().saturating_add(delay(attempts));
                    registry.postpone_approval_news(message.id, due).await?;
                }
                _ => registry.forget_approval_news(Some(message.id)).await?,
            }
        }
        Ok(())
    }

    async fn tell(&self, body: &str) -> Result<(), NotTold> {
        let mut request = Request::post(&self.url).header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(SIGNATURE, sign(key, unix_now(), body));
        }
        let request = request
            .header(header::CONTENT_LENGTH, body.len())
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .map_err(|_| NotTold::Url)?;
        let answer = https(&self.dialer, request.map(Full::new), AGENT, ANSWER, LIMIT).await;
        let status = match answer {
            Ok(answer) => answer.status(),
            // It has taken the message, whatever became of the rest: many a small server closes its
            // connections without a word.
            Err(HttpsError::Body { status, .. }) => status,
            Err(error) => return Err(error.into()),
        };
        match status.is_success() {
            true => Ok(()),
            false => Err(NotTold::Status(status)),
        }
    }
}

/// How long to wait after so many attempts, in seconds.
fn delay(attempts: u32) -> u64 {
    let doubled = 1_u64.checked_shl(attempts.saturating_sub(1));
    doubled.unwrap_or(PAUSE).min(PAUSE)
}

fn sign(key: &hmac::Key, now: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{now}.{body}").as_bytes());
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={now},sha256={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_message_is_given_up_after_about_an_hour() {
        assert_eq!(
            [1, 2, 5, 10, 11, 40, 99].map(delay),
            [1, 2, 16, 512, 600, 600, 600]
        );
        let total: u64 = (1..ATTEMPTS).map(delay).sum();
        assert!((3600..5400).contains(&total), "{total}");
    }

    #[test]
    fn a_message_is_signed_with_its_time() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        let hex = "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163";
        let expected = format!("t=1700000000,sha256={hex}");
        assert_eq!(sign(&key, 1_700_000_000, "{}"), expected);
    }
}
