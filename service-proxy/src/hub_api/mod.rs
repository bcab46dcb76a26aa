//! The service side of a hub over HTTPS: one client for all requests, with our SAS
//! token and our TLS configuration. [`streams`], [`twins`], [`methods`], [`queries`], [`jobs`] and
//! [`messages`] hold the calls.

mod approvals;
mod call;
mod client;
mod issued;
mod jobs;
mod messages;
mod methods;
mod problem;
mod queries;
mod renewal;
pub mod select;
mod streams;
mod token;
mod twins;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::connection_string::ServiceConnectionString;
use common::hub_address::HubAddress;
use common::locks::lock;
use common::net::Dialer;
use common::secret::Secret;
use common::wire::access::ISSUED;

pub use call::CallError;
use client::HttpClient;
pub use client::Unreachable;
use issued::IssuedToken;
pub use jobs::{Job, JobCounts, JobList, JobTask, NewJob};
pub use messages::{Message, Messages};
pub use methods::{MethodCall, MethodResult};
pub(crate) use problem::because;
pub use problem::{AnswerError, InitiateError, Skew};
pub use queries::Query;
use renewal::{Failure, Keeper, Renewal};
pub use streams::Endpoint;
use token::TokenCache;
pub use twins::TwinError;

/// A hub's service API, as one shared access policy.
#[derive(Debug)]
pub struct HubApi {
    http: HttpClient,
    hub: HubAddress,
    token: Arc<TokenCache>,
    renewal: Arc<Renewal>,
    keeper: Mutex<Option<Keeper>>,
}

impl HubApi {
    /// A client for the hub and the policy of this connection string; connects when it
    /// is used. When the hub refuses the credential, `file` is read again for another one.
    pub fn new(service: &ServiceConnectionString, file: Option<PathBuf>, dialer: &Dialer) -> Self {
        let token = Arc::new(TokenCache::new(service, file));
        let renewal = Arc::new(Renewal::new(service.host.clone(), dialer.clone()));
        Self {
            http: HttpClient::new(&service.host, dialer),
            hub: service.host.clone(),
            keeper: Mutex::new(renewal::keep(&renewal, &token)),
            renewal,
            token,
        }
    }

    /// From now on requests are made as the policy of this connection string, for the same hub.
    pub fn follow(&self, service: &ServiceConnectionString, file: Option<PathBuf>) {
        self.token.follow(service, file);
        let mut keeper = lock(&self.keeper);
        if keeper.is_none() {
            *keeper = renewal::keep(&self.renewal, &self.token);
        }
    }

    /// Sees to it that the token is young enough for a request, as far as it can be renewed without
    /// a person.
    ///
    /// # Errors
    /// [`InitiateError::LoggedOut`] when the person has to log in again.
    async fn ready(&self) -> Result<(), InitiateError> {
        match self.token.issued() {
            Some(issued) if issued.is_old() => self.renew(&issued).await,
            _ => Ok(()),
        }
    }

    async fn renew(&self, issued: &IssuedToken) -> Result<(), InitiateError> {
        let renewing = self.renewal.renew(&self.token, &issued.file, &issued.id);
        renewing.await.map_err(|failure| match failure {
            Failure::Refused(words) => InitiateError::LoggedOut(words),
            Failure::Passing(words) => InitiateError::NotRenewed(words),
        })
    }

    /// Whether there is another credential than the one that the hub has refused: in its file, or
    /// from the identity provider.
    ///
    /// # Errors
    /// [`InitiateError::LoggedOut`] when the person has to log in again.
    async fn another_credential(&self) -> Result<bool, InitiateError> {
        if self.token.reload().await {
            return Ok(true);
        }
        match self.token.issued() {
            Some(issued) => self.renew(&issued).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Whether the credential was issued to somebody by name.
    pub fn is_issued(&self) -> bool {
        self.token.policy().starts_with(ISSUED)
    }

    /// The hub.
    pub fn hub(&self) -> &HubAddress {
        &self.hub
    }

    /// The value of `Authorization`, never shown.
    fn authorization(&self) -> Result<http::HeaderValue, http::header::InvalidHeaderValue> {
        let token: Secret = self.token.current();
        let mut value = http::HeaderValue::from_str(token.expose())?;
        value.set_sensitive(true);
        Ok(value)
    }
}
