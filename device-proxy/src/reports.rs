//! What a hub is told about the connections in sessions, for its audit log: it carries them, and
//! cannot see them (`docs/audit.md`). Reports are messages, of which an IoT Hub makes something to
//! pay for, so by default only a hub of ours gets them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use common::identity::{DeviceIdentity, StreamId};
use common::locks::lock;
use common::wire::report::{self, ConnectionReport, Phase, Report};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Reports that wait for the hub. When there are more, they are lost, and counted.
const WAITING: usize = 1_024;
/// So many go in one message.
const BATCH: usize = 64;
/// How long the first one waits for more.
const GATHER: Duration = Duration::from_secs(1);

/// Whether connections in sessions are reported to the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ReportConnections {
    /// To a stream-hub.
    #[default]
    Auto,
    /// To any hub, as telemetry messages.
    Always,
    /// To none.
    Never,
}

/// What is still to be reported.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    state: Mutex<State>,
    wake: Notify,
    /// The messages' topic.
    topic: String,
}

#[derive(Debug, Default)]
struct State {
    mode: ReportConnections,
    /// The hub has sent what only ours sends.
    is_ours: bool,
    waiting: VecDeque<ConnectionReport>,
    lost: u64,
    /// When the first of them came.
    since: Option<Instant>,
}

impl State {
    fn is_wanted(&self) -> bool {
        match self.mode {
            ReportConnections::Auto => self.is_ours,
            ReportConnections::Always => true,
            ReportConnections::Never => false,
        }
    }
}

/// A connection, as reports name it.
#[derive(Debug, Clone)]
pub(crate) struct Reported {
    pub(crate) target: String,
    pub(crate) session: String,
    pub(crate) stream: Option<StreamId>,
    pub(crate) connection: u64,
}

impl Reports {
    /// Nothing yet of this device.
    pub(crate) fn new(mode: ReportConnections, identity: &DeviceIdentity) -> Self {
        let reports = Self {
            topic: report::topic(identity),
            ..Self::default()
        };
        reports.follow(mode);
        reports
    }

    /// The topic of the messages.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// From now on this holds. What waits and is no longer wanted is dropped.
    pub(crate) fn follow(&self, mode: ReportConnections) {
        let mut state = self.state();
        state.mode = mode;
        if !state.is_wanted() {
            *state = State {
                mode,
                is_ours: state.is_ours,
                ..State::default()
            };
        }
    }

    /// The hub is one of ours: it has sent what no other sends.
    pub(crate) fn is_ours(&self) {
        self.state().is_ours = true;
    }

    /// A connection has begun.
    pub(crate) fn opened(&self, connection: &Reported) {
        self.push(connection, Phase::Opened);
    }

    /// It has ended.
    pub(crate) fn ended(
        &self,
        connection: &Reported,
        (to_device, to_service): (u64, u64),
        duration: Duration,
        ended_by: &str,
        reason: String,
    ) {
        let phase = Phase::Ended {
            to_device,
            to_service,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            ended_by: ended_by.to_owned(),
            reason,
        };
        self.push(connection, phase);
    }

    fn push(&self, connection: &Reported, phase: Phase) {
        let mut state = self.state();
        if !state.is_wanted() {
            return;
        }
        if state.waiting.len() >= WAITING {
            state.lost += 1;
            return;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        state.waiting.push_back(ConnectionReport {
            target: connection.target.clone(),
            session: connection.session.clone(),
            stream: connection.stream.map(|stream| stream.to_string()),
            connection: connection.connection,
            time_ms: u64::try_from(now).unwrap_or(u64::MAX),
            phase,
        });
        if state.since.is_none() {
            state.since = Some(Instant::now());
            self.wake.notify_one();
        }
    }

    /// Waits until there is something to report. May be dropped.
    pub(crate) async fn any(&self) {
        self.wake.notified().await;
    }

    /// When the next message is to be sent.
    pub(crate) fn due(&self) -> Option<Instant> {
        let state = self.state();
        match state.waiting.len() >= BATCH {
            true => state.since,
            false => state.since.map(|since| since + GATHER),
        }
    }

    /// The next message's content; `None`: there is nothing to report.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        let count = state.waiting.len().min(BATCH);
        if count == 0 && state.lost == 0 {
            state.since = None;
            return None;
        }
        let report = Report {
            connections: state.waiting.drain(..count).collect(),
            lost: std::mem::take(&mut state.lost),
        };
        state.since = (!state.waiting.is_empty()).then(Instant::now);
        Some(report::write(&report))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use common::identity::DeviceId;

    use super::*;

    fn reports_of(mode: ReportConnections) -> Reports {
        let device = DeviceId::parse("MyDevice").unwrap();
        Reports::new(mode, &DeviceIdentity::of_device(device))
    }

    fn connection(number: u64) -> Reported {
        Reported {
            target: "ssh".into(),
            session: "abababab".into(),
            stream: None,
            connection: number,
        }
    }

    #[tokio::test]
    async fn only_a_hub_of_ours_is_told_unless_it_is_wanted() {
        let reports = reports_of(ReportConnections::Auto);
        reports.opened(&connection(1));
        assert_eq!(reports.take(), None);
        reports.is_ours();
        reports.opened(&connection(1));
        assert!(reports.take().is_some());

        let always = reports_of(ReportConnections::Always);
        always.opened(&connection(1));
        assert!(always.due().is_some());
        always.follow(ReportConnections::Never);
        assert_eq!((always.take(), always.due()), (None, None));
    }

    #[tokio::test]
    async fn what_has_no_room_is_counted() {
        let reports = reports_of(ReportConnections::Always);
        for number in 0..(WAITING as u64 + 7) {
            reports.opened(&connection(number));
        }
        let first = report::read(&reports.take().unwrap()).unwrap();
        assert_eq!((first.connections.len(), first.lost), (BATCH, 7));
        let mut count = first.connections.len();
        while let Some(next) = reports.take() {
            let next = report::read(&next).unwrap();
            assert_eq!(next.lost, 0);
            count += next.connections.len();
        }
        assert_eq!(count, WAITING);
    }
}
