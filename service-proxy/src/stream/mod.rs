//! Opening one stream: initiate it at the hub, wait when the hub throttles, open our leg
//! at the streaming endpoint; and one line for a person who waits.

mod progress;
mod throttle;

use std::fmt;
use std::time::Duration;

use common::identity::{DeviceIdentity, StreamName};
use common::net::{ConnectError, Dialer, Leg, LegOpener};
use common::session::handshake::GreetError;
use common::streaming_hosts::{EndpointError, Patterns, StreamingHosts};
use common::telemetry::AUDIT;
use common::tls::{self, TlsConfigError};
use common::tunnel::{Outcome, Traffic};
use common::wire::initiation::Timeouts;
use tokio::time::sleep;

use crate::config::HubConfig;
use crate::hub_api::{HubApi, InitiateError};
use crate::sample_output::SampleOutput;
use progress::{Progress, Step};
use throttle::retry_throttled;

/// Our leg of an open stream.
pub type ServiceLeg = Leg;

/// After how long the log says what is being waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why streams cannot be opened at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The CA file, or TLS otherwise.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
}

/// A stream that could not be opened: one sentence for a person.
#[derive(Debug, thiserror::Error)]
#[error("no stream to {identity} ({name}): {failure}")]
pub struct StreamError {
    /// The device, or a module of it.
    pub identity: DeviceIdentity,
    /// The stream's name.
    pub name: StreamName,
    /// What failed.
    #[source]
    pub failure: StreamFailure,
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
    /// The stream is there, but no session came to be on it.
    #[error("session mode does not work with the device: {0}")]
    Session(#[source] GreetError),
    /// The device accepted, but the hub names an endpoint that is not allowed.
    #[error("the device accepted it, but {0}")]
    Place(#[source] EndpointError),
    /// The device accepted, but our leg could not be opened.
    #[error(
        "the device accepted it, but its streaming endpoint does not work: {}; check that this machine may reach it",
        common::report::chain(.0)
    )]
    Endpoint(#[source] ConnectError),
}

/// Opens streams through one hub. One is enough for a whole program: it keeps the SAS
/// token, the HTTPS connections and the TLS sessions.
#[derive(Debug)]
pub struct StreamOpener {
    api: HubApi,
    legs: LegOpener,
    timeouts: Timeouts,
    sample_output: SampleOutput,
    /// Where streams may lead instead of what the hub's name allows.
    streaming_hosts: Option<Patterns>,
}

impl StreamOpener {
    /// For a hub as it is configured.
    ///
    /// # Errors
    /// [`SetupError`] names the file at fault.
    pub fn new(hub: &HubConfig, sample_output: SampleOutput) -> Result<Self, SetupError> {
        let dialer = Dialer::new(&tls::client_config(hub.ca_file.as_deref(), None)?);
        Ok(Self {
            api: HubApi::new(&hub.service, hub.connection_file.clone(), &dialer),
            legs: LegOpener::new(dialer),
            timeouts: hub.timeouts,
            sample_output,
            streaming_hosts: hub.streaming_hosts.clone(),
        })
    }

    /// The hub's service API.
    pub fn api(&self) -> &HubApi {
        &self.api
    }

    /// What everything is dialled with.
    pub(crate) fn dialer(&self) -> &Dialer {
        self.legs.dialer()
    }

    /// Opens a stream; ends by itself, after the time limits of its steps. Dropping the
    /// future gives the stream up.
    ///
    /// # Errors
    /// [`StreamError`] is one sentence: what failed, and what to do next.
    pub async fn open(
        &self,
        identity: &DeviceIdentity,
        name: &StreamName,
    ) -> Result<ServiceLeg, StreamError> {
        self.open_within(identity, name, self.timeouts).await
    }

    /// The same with time limits of its own.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open_within(
        &self,
        identity: &DeviceIdentity,
        name: &StreamName,
        timeouts: Timeouts,
    ) -> Result<ServiceLeg, StreamError> {
        let step = Progress::new(Step::Answer);
        let opening = self.steps(identity, name, timeouts, &step);
        tokio::pin!(opening);
        let opened = tokio::select! {
            biased;
            opened = &mut opening => opened,
            () = sleep(PATIENCE) => {
                tracing::info!(
                    "stream to {identity} ({name}): waiting for {}",
                    step.get().describe(timeouts)
                );
                opening.await
            }
        };
        opened.map_err(|failure| StreamError {
            identity: identity.clone(),
            name: name.clone(),
            failure,
        })
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
                tracing::warn!("{again}");
            } else {
                tracing::debug!("{again}");
            }
        };
        let asking = retry_throttled(patience, attempt, throttled);
        let dialling = self.legs.dial_ahead();
        tokio::pin!(asking, dialling);
        // Dialling the endpoint does not wait for the device, nor the device for it.
        let mut ahead = None;
        let accepted = loop {
            tokio::select! {
                biased;
                accepted = &mut asking => break accepted,
                dialled = &mut dialling, if ahead.is_none() => ahead = Some(dialled),
            }
        };
        if matches!(
            accepted,
            Err(StreamFailure::Initiate(InitiateError::Rejected))
        ) {
            self.sample_output.response(name, false);
        }
        let accepted = accepted?;
        let endpoint = StreamingHosts::new([self.api.hub()], self.streaming_hosts.as_ref())
            .check(&accepted.url)
            .map_err(StreamFailure::Place)?;
        self.sample_output.response(name, true);
        step.set(Step::Endpoint);
        let ahead = match ahead {
            Some(dialled) => dialled,
            None if self.legs.is_known(&endpoint) => dialling.await,
            None => None,
        };
        self.legs
            .open(&endpoint, &accepted.token, ahead)
            .await
            .map_err(StreamFailure::Endpoint)
    }

    /// How the official samples' lines are printed.
    pub fn sample_output(&self) -> SampleOutput {
        self.sample_output
    }
}

/// One line for a tunnel that is over: info when it is to be seen, else debug.
pub(crate) fn report_outcome(
    identity: &DeviceIdentity,
    name: &StreamName,
    peer: &dyn fmt::Display,
    outcome: &Outcome,
    shown: bool,
) {
    let end = common::report::chain(&outcome.end);
    let (sent, received) = (outcome.sent, outcome.received);
    let seconds = outcome.duration.as_secs_f32();
    if shown {
        tracing::info!(name: AUDIT, device = %identity, %name, %peer, sent, received, seconds, "tunnel closed: {end}");
    } else {
        tracing::debug!(device = %identity, %name, %peer, sent, received, seconds, "tunnel closed: {end}");
    }
}

/// Runs a tunnel, and prints the samples' lines around it.
pub(crate) async fn carry<L: common::tunnel::LocalSocket>(
    local: L,
    leg: ServiceLeg,
    stop: &tokio_util::sync::CancellationToken,
    sample_output: SampleOutput,
) -> Outcome {
    sample_output.starting();
    let traffic = Traffic::default();
    let outcome = tokio::select! {
        biased;
        outcome = common::tunnel::pump(local, leg, &traffic, stop) => outcome,
        never = sample_output.count(&traffic) => match never {},
    };
    sample_output.done();
    outcome
}
