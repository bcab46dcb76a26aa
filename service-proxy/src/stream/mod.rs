//! Opening one stream: initiate it at the hub, wait when the hub throttles, open our leg
//! at the streaming endpoint; and one log line when that takes long.

mod approval;
mod progress;
mod throttle;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use common::identity::{DeviceIdentity, StreamId, StreamName};
use common::locks::lock;
use common::log_about;
use common::net::{ConnectError, Dialer, Leg, LegOpener};
use common::session::handshake::HandshakeError;
use common::streaming_hosts::{EndpointError, Patterns, StreamingHosts};
use common::telemetry::About;
use common::tls::TlsConfigError;
use common::verdict::Verdict;
use common::wire::initiation::Timeouts;
use tokio::time::sleep;

use crate::config::HubConfig;
use crate::counts::counts;
use crate::hub_api::{HubApi, InitiateError, because};
use crate::sample_output::SampleOutput;
use approval::wait_for_approval;
use progress::{Progress, Step};
use throttle::retry_throttled;

/// Our leg of an open stream.
pub type ServiceLeg = Leg;

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
        "the hub throttled it (429{}) for {} s; try again later, or open fewer streams at once",
        because(.why),
        waited.as_secs()
    )]
    Throttled {
        /// What the hub says about it: which limit it is.
        why: Option<String>,
        /// How long it was tried.
        waited: Duration,
    },
    /// Nobody has approved it for as long as was to be waited.
    #[error(
        "nobody has approved request {id} within {} s; it may still be approved, try again then, or wait longer with --approval-wait",
        waited.as_secs()
    )]
    Unapproved {
        /// The request.
        id: String,
        /// How long it was waited.
        waited: Duration,
    },
    /// The stream is open, but no session could be begun on it.
    #[error("session mode does not work with the device")]
    Session(#[source] HandshakeError),
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
            Self::Throttled { .. }
            | Self::Unapproved { .. }
            | Self::Session(_)
            | Self::Place(_)
            | Self::Endpoint(_) => Verdict::Retry,
        }
    }

    /// Names it among a fixed set of reasons.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Initiate(error) => error.kind(),
            Self::Throttled { .. } => "throttled",
            Self::Unapproved { .. } => "unapproved",
            Self::Session(_) => "session",
            Self::Place(_) | Self::Endpoint(_) => "endpoint",
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

    /// Whether the hub does not know the device.
    pub fn is_unknown_device(&self) -> bool {
        matches!(self, Self::Initiate(InitiateError::UnknownDevice(_)))
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
    legs: LegOpener,
    sample_output: SampleOutput,
    settings: Mutex<Settings>,
}

/// What may change while the program runs.
#[derive(Debug, Clone)]
struct Settings {
    timeouts: Timeouts,
    /// How long an approver is waited for.
    approval_wait: Duration,
    /// Where streams may lead instead of what the hub's name allows.
    streaming_hosts: Option<Patterns>,
}

impl Settings {
    fn of(hub: &HubConfig) -> Self {
        Self {
            timeouts: hub.timeouts,
            approval_wait: hub.approval_wait,
            streaming_hosts: hub.streaming_hosts.clone(),
        }
    }
}

impl StreamOpener {
    /// For a hub as it is configured.
    ///
    /// # Errors
    /// [`SetupError`] names the file at fault.
    pub fn new(hub: &HubConfig, sample_output: SampleOutput) -> Result<Self, SetupError> {
        let dialer = hub.dialer()?;
        Ok(Self {
            api: HubApi::new(&hub.service, hub.connection_file.clone(), &dialer),
            legs: LegOpener::new(dialer),
            sample_output,
            settings: Mutex::new(Settings::of(hub)),
        })
    }

    /// From now on the same hub is used as this configuration says, and reached as `dialer` does it,
    /// if there is one. What is open stays open.
    pub fn follow(&self, hub: &HubConfig, dialer: Option<&Dialer>) {
        *lock(&self.settings) = Settings::of(hub);
        self.api.follow(&hub.service, hub.connection_file.clone());
        if let Some(dialer) = dialer {
            self.dialer().follow(dialer);
        }
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    /// The hub's service API.
    pub fn api(&self) -> &HubApi {
        &self.api
    }

    /// Whether and where the samples' lines are printed.
    pub(crate) fn sample_output(&self) -> SampleOutput {
        self.sample_output
    }

    /// A plain stream was opened: for some seconds a connection to the streaming endpoint is kept
    /// ready for the next one. Needs a runtime.
    pub(crate) fn expect_another(&self) {
        self.legs.expect_another();
    }

    /// What everything is dialled with.
    pub(crate) fn dialer(&self) -> &Dialer {
        self.legs.dialer()
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
        let timeouts = self.settings().timeouts;
        self.open_within(identity, name, timeouts).await
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
                log_about!(
                    info,
                    About::stream(step.stream().as_ref(), name).of(identity),
                    "stream to {identity} ({name}): waiting for {}", step.describe(timeouts)
                );
                opening.await
            }
        };
        counts().stream(opened.is_ok());
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
        let has_waited = AtomicBool::new(false);
        let attempt = || {
            if !has_waited.load(Ordering::Relaxed) {
                step.set(Step::Answer);
            }
            self.api.initiate(identity, name, timeouts)
        };
        let throttled = |why: &Option<String>, delay: Duration, first: bool| {
            step.set(Step::Throttled);
            let again = format!(
                "stream to {identity} ({name}): the hub throttles (429{}); trying again in {:.1} s, for {} s at most",
                because(why),
                delay.as_secs_f32(),
                patience.as_secs_f32(),
            );
            let about = About::stream(None, name).of(identity);
            // One line a stream, however often the hub refuses.
            if first {
                log_about!(warn, about, "{again}");
            } else {
                log_about!(debug, about, "{again}");
            }
        };
        let wait = self.settings().approval_wait;
        let asking = wait_for_approval(
            wait,
            || retry_throttled(patience, attempt, throttled),
            |id, first| {
                step.set(Step::Approval);
                has_waited.store(true, Ordering::Relaxed);
                // One line a stream, for a person who waits for it.
                if first {
                    log_about!(
                        warn,
                        About::stream(None, name).of(identity),
                        "stream to {identity} ({name}): request {id} waits for somebody to approve it, for up to {} s",
                        wait.as_secs()
                    );
                }
            },
        );
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
        if accepted.as_ref().is_err_and(StreamFailure::is_reject) {
            self.sample_output.response(name, false);
        }
        let accepted = accepted?;
        // What was dialled so long ago may have been closed since.
        if has_waited.load(Ordering::Relaxed) && ahead.is_some() {
            ahead = Some(None);
        }
        step.set(Step::Endpoint(StreamId::of_url(&accepted.url)));
        let streaming_hosts = self.settings().streaming_hosts.clone();
        let endpoint = StreamingHosts::new([self.api.hub()], streaming_hosts.as_ref())
            .check(&accepted.url)
            .map_err(StreamFailure::Place)?;
        self.sample_output.response(name, true);
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
}
