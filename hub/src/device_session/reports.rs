//! What a device reports of the connections in its sessions, for the audit log. It is the device's
//! word: it says nothing about other devices.

use std::time::Duration;

use common::identity::StreamId;
use common::wire::message::Properties;
use common::wire::report::{self, ConnectionReport, Phase};
use tokio::time::Instant;

use crate::auth::DevicePrincipal;
use crate::events::{ConnectionPhase, DeviceReport, Event};
use crate::limits::Limit;
use crate::state::HubState;

/// How often it is recorded that reports are missing.
const LOST: Duration = Duration::from_secs(1);

/// The reports of one session.
#[derive(Default)]
pub(super) struct Reports {
    /// How many are missing, and not recorded so.
    lost: u64,
    /// When it was last recorded that some are.
    told: Option<Instant>,
}

impl Reports {
    /// Takes a message, if it is a report; else it is telemetry.
    pub(super) fn take(
        &mut self,
        state: &HubState,
        principal: &DevicePrincipal,
        properties: &str,
        payload: &[u8],
    ) -> bool {
        if !properties.contains(report::PROPERTY)
            || Properties::from_text(properties).get(report::PROPERTY) != Some(report::VERSION)
        {
            return false;
        }
        let Some(report) = report::read(payload) else {
            return false;
        };
        self.lost = self.lost.saturating_add(report.lost);
        let mut over = None;
        for connection in &report.connections {
            match state
                .quotas
                .judge(Limit::Reports, None, Some(&principal.identity))
            {
                Ok(()) => {
                    let report = described(state, principal, connection);
                    state
                        .events
                        .emit(Event::DeviceReport(&principal.identity, report));
                }
                Err(reached) => {
                    self.lost = self.lost.saturating_add(1);
                    over = Some(reached);
                }
            }
        }
        if let Some(over) = over {
            state.quotas.report(&over, None, Some(&principal.identity));
        }
        if self.told.is_none_or(|told| told.elapsed() >= LOST) {
            self.finish(state, principal);
        }
        true
    }

    /// Records how many reports are missing so far.
    pub(super) fn finish(&mut self, state: &HubState, principal: &DevicePrincipal) {
        let count = std::mem::take(&mut self.lost);
        if count > 0 {
            self.told = Some(Instant::now());
            let report = DeviceReport::Lost { count };
            state
                .events
                .emit(Event::DeviceReport(&principal.identity, report));
        }
    }
}

fn described<'a>(
    state: &HubState,
    principal: &DevicePrincipal,
    report: &'a ConnectionReport,
) -> DeviceReport<'a> {
    // A stream of another device is none of this one's.
    let stream = report.stream.as_deref().filter(|stream| {
        let id = StreamId::parse(stream);
        id.is_some_and(|id| {
            let identity = state.legs.identity_of(id);
            identity.is_none_or(|identity| identity == principal.identity)
        })
    });
    DeviceReport::Connection {
        target: &report.target,
        session: &report.session,
        stream,
        connection: report.connection,
        time_ms: report.time_ms,
        phase: match &report.phase {
            Phase::Opened => ConnectionPhase::Opened,
            Phase::Ended {
                to_device,
                to_service,
                duration_ms,
                ended_by,
                reason,
            } => ConnectionPhase::Ended {
                to_device: *to_device,
                to_service: *to_service,
                duration_ms: *duration_ms,
                ended_by,
                reason,
            },
        },
    }
}
