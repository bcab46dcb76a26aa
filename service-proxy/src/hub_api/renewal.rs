//! A token that was got by logging in by name is renewed without the person: in the background when
//! two thirds of its life are over, and before a request that it would be too old for.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::clock::unix_now;
use common::hub_address::HubAddress;
use common::locks::lock;
use common::net::Dialer;
use common::report;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::token::TokenCache;
use crate::oidc;

/// How often it is looked whether it is time, and how soon a failure is tried again.
const LOOK: Duration = Duration::from_secs(20);
/// How long a request waits for a new token.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a refusal by the provider or the hub, it is asked again after this time at the soonest.
const REFUSED: Duration = Duration::from_secs(60);

/// Renews the token of one hub.
#[derive(Debug)]
pub(super) struct Renewal {
    hub: HubAddress,
    dialer: Dialer,
    /// The last refusal, in words.
    refused: Mutex<Option<(Instant, String)>>,
    /// One at a time.
    turn: tokio::sync::Mutex<()>,
}

/// Why there is no other token, in words.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// The provider or the hub says no: the person has to log in again.
    Refused(String),
    /// It may pass.
    Passing(String),
}

impl Failure {
    fn words(&self) -> &str {
        match self {
            Self::Refused(words) | Self::Passing(words) => words,
        }
    }
}

/// The task that renews in the background; dropped, it ends.
#[derive(Debug)]
pub(super) struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Renewal {
    pub(super) fn new(hub: HubAddress, dialer: Dialer) -> Self {
        Self {
            hub,
            dialer,
            refused: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Gets another token for the one of this id, and says whether there is one, or in words why not. What has begun is carried out when this is dropped.
    pub(super) async fn renew(
        &self,
        token: &TokenCache,
        file: &Path,
        known: &str,
    ) -> Result<(), Failure> {
        let _turn = self.turn.lock().await;
        if token.issued().is_some_and(|issued| issued.id != known) {
            return Ok(());
        }
        if let Some((at, words)) = &*lock(&self.refused)
            && at.elapsed() < REFUSED
        {
            return Err(Failure::Refused(words.clone()));
        }
        let (hub, path, dialer) = (self.hub.clone(), file.to_owned(), self.dialer.clone());
        let known = known.to_owned();
        // In a task of its own, that ends by itself: broken off, it could use up the refresh token. The
        // end of the program waits for that (`oidc::finish`).
        let renewing = tokio::spawn(async move { oidc::renew(&hub, &path, &known, &dialer).await });
        let result = match timeout(PATIENCE, renewing).await {
            Ok(Ok(result)) => result,
            _ => {
                let words = format!("the login at {} is not renewed in time", self.hub);
                return Err(Failure::Passing(words));
            }
        };
        match result {
            Ok(()) => {
                *lock(&self.refused) = None;
                token.reload().await;
                Ok(())
            }
            Err(error) => {
                let words = report::chain(&error);
                if !error.source.is_final() {
                    return Err(Failure::Passing(words));
                }
                *lock(&self.refused) = Some((Instant::now(), words.clone()));
                Err(Failure::Refused(words))
            }
        }
    }
}

/// Starts to renew in the background, where there is something to renew with.
pub(super) fn keep(renewal: &Arc<Renewal>, token: &Arc<TokenCache>) -> Option<Keeper> {
    token.issued()?;
    let (renewal, token) = (Arc::clone(renewal), Arc::clone(token));
    Some(Keeper(tokio::spawn(async move {
        let mut said = None;
        loop {
            sleep(LOOK).await;
            oidc::store_again().await;
            let Some(issued) = token.issued() else {
                continue;
            };
            let now = unix_now();
            if now < issued.renew_at {
                continue;
            }
            match renewal.renew(&token, &issued.file, &issued.id).await {
                Ok(()) => said = None,
                // Once for each token: open connections go on.
                Err(failure) if said != Some(issued.expires) => {
                    said = Some(issued.expires);
                    tracing::warn!("{}; what is open goes on", failure.words());
                }
                Err(_) => {}
            }
        }
    })))
}
