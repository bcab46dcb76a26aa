//! The SAS token of our requests: minted when needed, used for most of its life. Its key is read
//! again from the connection string's file when the hub refuses it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use common::clock;
use common::connection_string::{ServiceConnectionString, ServiceCredential};
use common::limits;
use common::locks::lock;
use common::report;
use common::sas_token::{self, SasToken};
use common::secret::Secret;
use common::settings::connection_string;
use common::wire::access::ISSUED;

use super::issued::IssuedToken;
use crate::oidc;

/// The part of a token's life during which it is used.
const USED: f64 = 0.8;

/// Mints SAS tokens for the whole hub, and keeps each for most of its life.
#[derive(Debug)]
pub(super) struct TokenCache {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where the connection string was read from.
    file: Option<PathBuf>,
    service: ServiceConnectionString,
    /// Whether there is something to renew it with.
    is_renewable: bool,
    /// Since when it is used, Unix seconds.
    since: u64,
    last: Option<Minted>,
}

impl State {
    fn new(service: &ServiceConnectionString, file: Option<PathBuf>) -> Self {
        let login_file = file.as_deref().map(oidc::file_of);
        Self {
            is_renewable: login_file.is_some_and(|file| file.exists()),
            since: clock::unix_now(),
            service: service.clone(),
            file,
            last: None,
        }
    }
}

#[derive(Debug, Clone)]
struct Minted {
    token: Secret,
    /// Unix seconds.
    at: u64,
}

impl TokenCache {
    pub(super) fn new(service: &ServiceConnectionString, file: Option<PathBuf>) -> Self {
        Self {
            state: Mutex::new(State::new(service, file)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Reads the connection string's file again: its key may have been rotated. Returns whether
    /// there is another credential for the same hub now; what cannot be used is logged, and the
    /// old one stays. Dropping the future changes nothing.
    pub(super) async fn reload(&self) -> bool {
        let Some(path) = self.state().file.clone() else {
            return false;
        };
        let file = path.display().to_string();
        let reading = tokio::task::spawn_blocking(move || connection_string::again(&path));
        let text = match reading.await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => {
                tracing::warn!("{}", report::chain(&error));
                return false;
            }
            Err(_) => return false,
        };
        let fresh = match ServiceConnectionString::parse(text.expose()) {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!("in {file}: {}", report::chain(&error));
                return false;
            }
        };
        let mut state = self.state();
        if fresh == state.service {
            return false;
        }
        if fresh.host != state.service.host {
            tracing::warn!(
                "the connection string in {file} is for another hub, {}; restart service-proxy to use that",
                fresh.host
            );
            return false;
        }
        // A login is renewed many times a day.
        if fresh.policy.starts_with(ISSUED) {
            tracing::debug!("read a renewed token from {file}");
        } else {
            tracing::info!(
                policy = fresh.policy,
                "read a changed connection string from {file}"
            );
        }
        let path = state.file.take();
        *state = State::new(&fresh, path);
        true
    }

    /// From now on tokens are those of this connection string, which was read from `file`.
    pub(super) fn follow(&self, service: &ServiceConnectionString, file: Option<PathBuf>) {
        let mut state = self.state();
        if state.service != *service {
            *state = State::new(service, file);
        } else {
            state.file = file;
        }
    }

    /// A token that is good for a while.
    pub(super) fn current(&self) -> Secret {
        self.at(clock::unix_now())
    }

    /// Whose key signs the tokens.
    pub(super) fn policy(&self) -> String {
        self.state().service.policy.clone()
    }

    /// Whether the connection string brought a ready-made token whose time is over.
    pub(super) fn is_expired(&self) -> bool {
        self.ready_made()
            .is_some_and(|token| token.expiry() <= clock::unix_now())
    }

    /// The token, if it was issued by name and can be renewed.
    pub(super) fn issued(&self) -> Option<IssuedToken> {
        let expires = self.ready_made()?.expiry();
        let state = self.state();
        let is_issued = state.service.policy.starts_with(ISSUED);
        let file = state
            .file
            .as_ref()
            .filter(|_| is_issued && state.is_renewable)?;
        let id = state.service.policy.clone();
        Some(IssuedToken::new(id, file.clone(), expires, state.since))
    }

    /// What a ready-made token is for, if that is not the whole hub.
    pub(super) fn path(&self) -> Option<String> {
        let token = self.ready_made()?;
        Some(token.path())
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
    }

    fn ready_made(&self) -> Option<SasToken> {
        match &self.state().service.credential {
            ServiceCredential::Key(_) => None,
            ServiceCredential::Token(token) => SasToken::parse(token.expose()).ok(),
        }
    }

    fn at(&self, now: u64) -> Secret {
        let mut state = self.state();
        let State { service, last, .. } = &mut *state;
        let key = match &service.credential {
            ServiceCredential::Token(token) => return token.clone(),
            ServiceCredential::Key(key) => key,
        };
        let used = limits::SAS_TOKEN_LIFE.mul_f64(USED).as_secs();
        // A clock that was set back makes the token's life longer than it should be.
        if let Some(minted) = last
            .as_ref()
            .filter(|minted| (minted.at..minted.at + used).contains(&now))
        {
            return minted.token.clone();
        }
        let token = sas_token::mint(
            &service.host.url_host(),
            key,
            Some(&service.policy),
            now + limits::SAS_TOKEN_LIFE.as_secs(),
        );
        *last = Some(Minted {
            token: token.clone(),
            at: now,
        });
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K2: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    fn cache(credential: &str) -> TokenCache {
        let text =
            format!("HostName=myhub.example.net:8443;SharedAccessKeyName=service;{credential}");
        TokenCache::new(&ServiceConnectionString::parse(&text).unwrap(), None)
    }

    #[test]
    fn tokens_are_those_of_the_sdks() {
        let token = cache(&format!("SharedAccessKey={K2}")).at(1_700_000_002 - 3600);
        assert_eq!(
            token.expose(),
            "SharedAccessSignature sr=myhub.example.net&sig=SnfvaV%2B9G%2BalslnYj5DzlPWG2G%2Bdvy%2F9ZE5%2FBkxJ4to%3D&se=1700000002&skn=service"
        );
    }

    #[test]
    fn a_token_is_used_for_most_of_its_life() {
        let cache = cache(&format!("SharedAccessKey={K2}"));
        let first = cache.at(10_000);
        assert_eq!(cache.at(10_000 + 2_879), first);
        let second = cache.at(10_000 + 2_880);
        assert_ne!(second, first);
        // The clock was set back.
        assert_ne!(cache.at(9_999), second);
    }

    #[test]
    fn ready_made_tokens_are_used_as_they_are() {
        let text = "SharedAccessSignature sr=myhub.example.net&sig=AA==&se=1&skn=service";
        let cache = cache(&format!("SharedAccessSignature={text}"));
        assert_eq!(cache.current().expose(), text);
        assert!(cache.is_expired());
    }
}
