//! The service side of a hub over HTTPS: one client for all requests, with our SAS
//! token and our TLS configuration. [`streams`], [`twins`], [`methods`], [`queries`], [`jobs`] and
//! [`messages`] hold the calls.

mod call;
mod client;
mod jobs;
mod messages;
mod methods;
mod problem;
mod queries;
pub mod select;
mod streams;
mod token;
mod twins;

use std::path::PathBuf;

use common::connection_string::ServiceConnectionString;
use common::hub_address::HubAddress;
use common::net::Dialer;
use common::secret::Secret;

pub use call::CallError;
use client::HttpClient;
pub use client::Unreachable;
pub use jobs::{Job, JobCounts, JobList, JobTask, NewJob};
pub use messages::{Message, Messages};
pub use methods::{MethodCall, MethodResult};
pub use problem::{AnswerError, InitiateError, Skew};
pub use queries::Query;
pub use streams::Endpoint;
use token::TokenCache;
pub use twins::TwinError;

/// A hub's service API, as one shared access policy.
#[derive(Debug)]
pub struct HubApi {
    http: HttpClient,
    hub: HubAddress,
    token: TokenCache,
}

impl HubApi {
    /// A client for the hub and the policy of this connection string; connects when it
    /// is used. When the hub refuses the credential, `file` is read again for another one.
    pub fn new(service: &ServiceConnectionString, file: Option<PathBuf>, dialer: &Dialer) -> Self {
        Self {
            http: HttpClient::new(&service.host, dialer),
            hub: service.host.clone(),
            token: TokenCache::new(service, file),
        }
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
