//! Opening one stream: initiate it at the hub, wait when the hub throttles, open our leg
//! at the streaming endpoint; and one log line when that takes long.

mod progress;
mod throttle;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::dial;
use common::identity::{DeviceIdentity, StreamId, StreamName};
use common::session::handshake::GreetError;
use common::streaming_hosts::{EndpointError, Patterns, StreamingHosts};
use common::tls::{self, TlsConfigError};
use common::verdict::Verdict;
use common::websocket::{self, ConnectError, WebSocket};
use common::wire::initiation::Timeouts;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use crate::config::HubConfig;
use crate::hub_api::{Endpoint, HubApi, InitiateError};
use crate::sample_output::SampleOutput;
use progress::{Progress, Step};
use throttle::retry_throttled;

/// Our leg of an open stream.
pub type ServiceLeg = WebSocket<TlsStream<TcpStream>>;

/// An open stream.
pub struct OpenStream {
    /// Its id, by which its lines are found in all logs; `None` if its URL has none.
    pub id: Option<StreamId>,
    /// Our end of it.
    pub leg: ServiceLeg,
}

/// After how long the log says what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why streams cannot be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The CA file, or TLS otherwise.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// A stream that could not be opened: with its causes one sentence for a person.
#[derive(Debug, thiserror::Error)]
#[error("no stream to {identity} ({name})")]
pub struct StreamError {
    /// The device, or a module of it.
    pub identity: DeviceIdentity,
    /// The stream's name.
    pub name: StreamName,
    /// The stream's id, if it had one already.
    pub stream: Option<StreamId>,
    /// What failed.
    #[source]
    pub failure: Box<StreamFailure>,
}

/// What failed while a stream was being opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamFailure {
    /// The hub, or the device through it, did not give the stream.
    #[error(transparent)]
    Initiate(#[from] InitiateError),
    /// The hub throttled for as long as was to be waited.
    #[error(
        "the hub throttled it (429) for {} s; try again later, or open fewer streams at once",
        waited.as_secs()
    )]
    Throttled {
        /// How long it was tried.
        waited: Duration,
    },
    /// The stream is open, but no session could be begun on it.
    #[error("session mode does not work with the device")]
    Session(#[source] GreetError),
    /// The device accepted, but the hub names an endpoint that is not allowed.
    #[error("the device accepted it, but its streaming endpoint may not be used")]
    Place(#[source] EndpointError),
    /// The device accepted, but our leg could not be opened.
    #[error(
        "the device accepted it, but its streaming endpoint does not work (check that this machine may reach it)"
    )]
    Endpoint(#[source] ConnectError),
}

impl StreamFailure {
    /// What can cure it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Initiate(error) => error.verdict(),
            Self::Throttled { .. } | Self::Session(_) | Self::Place(_) | Self::Endpoint(_) => {
                Verdict::Retry
            }
        }
    }

    /// Whether the device does not take the stream.
    pub fn is_reject(&self) -> bool {
        matches!(self, Self::Initiate(InitiateError::Rejected))
    }

    /// Whether the device has no hub session, as far as the hub knows.
    pub fn is_offline(&self) -> bool {
        matches!(self, Self::Initiate(InitiateError::DeviceOffline { .. }))
    }

    /// Whether the device had left the stream before we came.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Endpoint(ConnectError::Refused { .. }))
    }
}

/// Opens streams through one hub. One is enough for a whole program: it keeps the SAS
/// token, the HTTPS connections and the TLS sessions.
#[derive(Debug)]
pub struct StreamOpener {
    api: HubApi,
    tls: Arc<ClientConfig>,
    timeouts: Timeouts,
    sample_output: SampleOutput,
    /// Where streams may lead instead of what the hub's name allows.
    streaming_hosts: Option<Patterns>,
    /// Where the last stream's endpoint was: the next one's is likely to be there too.
    endpoint: Mutex<Option<(String, u16)>>,
}

impl StreamOpener {
    /// For a hub as it is configured.
    ///
    /// # Errors
    /// [`SetupError`] names the file at fault.
    pub fn new(hub: &HubConfig, sample_output: SampleOutput) -> Result<Self, SetupError> {
        let tls = tls::client_config(hub.ca_file.as_deref(), None)?;
        Ok(Self {
            api: HubApi::new(&hub.service, hub.connection_file.clone(), &tls),
            tls,
            timeouts: hub.timeouts,
            sample_output,
            streaming_hosts: hub.streaming_hosts.clone(),
            endpoint: Mutex::default(),
        })
    }

    /// The hub's service API.
    pub fn api(&self) -> &HubApi {
        &self.api
    }

    /// Opens a stream; ends by itself, after the time limits of its steps. Dropping the
    /// future gives the stream up.
    ///
    /// # Errors
    /// [`StreamError`]: what failed, and what to do next.
    pub async fn open(
        &self,
        identity: &DeviceIdentity,
        name: &StreamName,
    ) -> Result<OpenStream, StreamError> {
        self.open_within(identity, name, self.timeouts).await
    }

    /// The same with time limits of its own. Dropping the future gives the stream up.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open_within(
        &self,
        identity: &DeviceIdentity,
        name: &StreamName,
        timeouts: Timeouts,
    ) -> Result<OpenStream, StreamError> {
        let step = Progress::new(Step::Answer);
        let opening = self.steps(identity, name, timeouts, &step);
        tokio::pin!(opening);
        let opened = tokio::select! {
            biased;
            opened = &mut opening => opened,
            () = sleep(PATIENCE) => {
                let step = step.get();
                tracing::info!(
                    device = %identity, %name, stream = step.stream().map(display),
                    "stream to {identity} ({name}): waiting for {}", step.describe(timeouts)
                );
                opening.await
            }
        };
        let id = step.get().stream();
        match opened {
            Ok(leg) => Ok(OpenStream { id, leg }),
            Err(failure) => Err(StreamError {
                identity: identity.clone(),
                name: name.clone(),
                stream: id,
                failure: Box::new(failure),
            }),
        }
    }

    async fn steps(
        &self,
        identity: &DeviceIdentity,
        name: &StreamName,
        timeouts: Timeouts,
        step: &Progress,
    ) -> Result<ServiceLeg, StreamFailure> {
        let patience = timeouts.connect + timeouts.response;
        let attempt = || {
            step.set(Step::Answer);
            self.api.initiate(identity, name, timeouts)
        };
        let throttled = |delay: Duration, first: bool| {
            step.set(Step::Throttled);
            let again = format!(
                "stream to {identity} ({name}): the hub throttles (429); trying again in {:.1} s, for {} s at most",
                delay.as_secs_f32(),
                patience.as_secs_f32(),
            );
            // One line a stream, however often the hub refuses.
            if first {
                tracing::warn!(device = %identity, %name, "{again}");
            } else {
                tracing::debug!(device = %identity, %name, "{again}");
            }
        };
        let asking = retry_throttled(patience, attempt, throttled);
        let dialling = self.dial_ahead();
        tokio::pin!(asking, dialling);
        // Dialling the endpoint does not wait for the device, nor the device for it.
        let mut ahead = None;
        let endpoint = loop {
            tokio::select! {
                biased;
                endpoint = &mut asking => break endpoint,
                dialled = &mut dialling, if ahead.is_none() => ahead = Some(dialled),
            }
        };
        if endpoint.as_ref().is_err_and(StreamFailure::is_reject) {
            self.sample_output.response(name, false);
        }
        let endpoint = endpoint?;
        step.set(Step::Endpoint(StreamId::of_url(&endpoint.url)));
        StreamingHosts::new([self.api.hub()], self.streaming_hosts.as_ref())
            .check(&endpoint.url)
            .map_err(StreamFailure::Place)?;
        self.sample_output.response(name, true);
        let ahead = match ahead {
            Some(dialled) => dialled,
            None if self.is_ahead(&endpoint.url) => dialling.await,
            None => None,
        };
        self.open_leg(&endpoint, ahead)
            .await
            .map_err(StreamFailure::Endpoint)
    }

    fn last_endpoint(&self) -> Option<(String, u16)> {
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
        endpoint.clone()
    }

    /// Whether what was dialled ahead leads to this URL's host.
    fn is_ahead(&self, url: &str) -> bool {
        let found = websocket::Endpoint::of(url);
        found.is_ok_and(|it| self.last_endpoint() == Some((it.host, it.port)))
    }

    /// A TLS connection to where the last stream's endpoint was.
    async fn dial_ahead(&self) -> Option<TlsStream<TcpStream>> {
        let (host, port) = self.last_endpoint()?;
        dial::tls(&host, port, &self.tls).await.ok()
    }

    async fn open_leg(
        &self,
        endpoint: &Endpoint,
        ahead: Option<TlsStream<TcpStream>>,
    ) -> Result<ServiceLeg, ConnectError> {
        let Endpoint { url, token } = endpoint;
        if let Some(stream) = ahead.filter(|_| self.is_ahead(url)) {
            match websocket::connect_over(stream, url, token).await {
                // It may have waited for too long: a fresh one is tried.
                Err(ConnectError::Handshake { .. }) => {}
                result => return result,
            }
        }
        let leg = websocket::connect(url, token, &self.tls).await?;
        if let Ok(found) = websocket::Endpoint::of(url) {
            let mut last = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((found.host, found.port));
        }
        Ok(leg)
    }
}
