//! The service side of a hub over HTTPS: one client for all requests, with our SAS
//! token and our TLS configuration. [`streams`] and [`twins`] hold the calls.

mod problem;
mod streams;
mod token;
mod twins;

use std::sync::Arc;

use common::connection_string::ServiceConnectionString;
use common::hub_address::HubAddress;
use common::limits;
use common::secret::Secret;
use reqwest::redirect;
use rustls::ClientConfig;

pub use problem::{InitiateError, Skew};
pub use streams::Endpoint;
use token::TokenCache;
pub use twins::TwinError;

/// Idle HTTP connections end before a hub or something between would end them.
const POOL_IDLE: std::time::Duration = std::time::Duration::from_secs(20);
/// So many are kept for the next streams, some 20 KiB each; what a burst needed beyond
/// goes at once, and the next one shakes hands again.
const IDLE_CONNECTIONS: usize = 32;

/// The HTTPS client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("the HTTPS client cannot be made")]
pub struct HubApiError(#[source] reqwest::Error);

/// A hub's service API, as one shared access policy.
#[derive(Debug)]
pub struct HubApi {
    http: reqwest::Client,
    hub: HubAddress,
    token: TokenCache,
}

impl HubApi {
    /// A client for the hub and the policy of this connection string; connects when it
    /// is used.
    ///
    /// # Errors
    /// [`HubApiError`] when the TLS configuration cannot be used.
    pub fn new(
        service: &ServiceConnectionString,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self, HubApiError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(tls))
            .http1_only()
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(limits::DIAL)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            .user_agent(concat!("service-proxy/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(HubApiError)?;
        Ok(Self {
            http,
            hub: service.host.clone(),
            token: TokenCache::new(service),
        })
    }

    /// The hub.
    pub fn hub(&self) -> &HubAddress {
        &self.hub
    }

    /// The URL of a path at the hub.
    fn url(&self, path: &str) -> String {
        format!(
            "https://{}:{}{path}",
            self.hub.url_host(),
            self.hub.https_port()
        )
    }

    /// The value of `Authorization`, never shown.
    fn authorization(&self) -> Result<http::HeaderValue, http::header::InvalidHeaderValue> {
        let token: Secret = self.token.current();
        let mut value = http::HeaderValue::from_str(token.expose())?;
        value.set_sensitive(true);
        Ok(value)
    }
}
