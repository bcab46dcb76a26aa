//! The limits by name: what is refused, counted and logged says which one it was.

use std::fmt;
use std::time::Duration;

/// What there is a limit of. The name is that of the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Streams at once.
    Streams,
    /// Stream initiations.
    Initiations,
    /// Calls of direct methods.
    Methods,
    /// Changes of twins by services.
    TwinWrites,
    /// All other requests of services.
    Requests,
    /// Devices that jobs begin to work on.
    JobDevices,
    /// Bytes of streams in a second, both ways together.
    BytesPerSecond,
    /// Bytes of streams in a day of UTC, both ways together.
    BytesPerDay,
    /// Telemetry messages of a device.
    Telemetry,
    /// Connections in sessions that a device reports for the audit log.
    Reports,
    /// What a device reads or reports of its twin.
    TwinRequests,
    /// Hub sessions that a device opens.
    Connects,
    /// Logins of a person.
    Logins,
    /// Requests that wait for a device's answer.
    Pending,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Streams,
        Self::Initiations,
        Self::Methods,
        Self::TwinWrites,
        Self::Requests,
        Self::JobDevices,
        Self::BytesPerSecond,
        Self::BytesPerDay,
        Self::Telemetry,
        Self::Reports,
        Self::TwinRequests,
        Self::Connects,
        Self::Logins,
        Self::Pending,
    ];

    /// The name of its setting, and in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Initiations => "initiations-per-second",
            Self::Methods => "methods-per-second",
            Self::TwinWrites => "twin-writes-per-second",
            Self::Requests => "requests-per-second",
            Self::JobDevices => "job-devices-per-second",
            Self::BytesPerSecond => "bytes-per-second",
            Self::BytesPerDay => "bytes-per-day",
            Self::Telemetry => "telemetry-per-second",
            Self::Reports => "reports-per-second",
            Self::TwinRequests => "twin-requests-per-second",
            Self::Connects => "connects-per-minute",
            Self::Logins => "logins-per-minute",
            Self::Pending => "pending-per-device",
        }
    }

    /// In which time so many may be, for those that are rates of something that is counted.
    pub(crate) const fn period(self) -> Option<Duration> {
        match self {
            Self::Initiations
            | Self::Methods
            | Self::TwinWrites
            | Self::Requests
            | Self::JobDevices
            | Self::Telemetry
            | Self::Reports
            | Self::TwinRequests => Some(Duration::from_secs(1)),
            Self::Connects | Self::Logins => Some(Duration::from_secs(60)),
            Self::Streams | Self::BytesPerSecond | Self::BytesPerDay | Self::Pending => None,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The whole hub's.
    Hub,
    /// That of a shared access policy.
    Policy,
    /// That of a device or module.
    Device,
}

impl Whose {
    /// In metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Policy => "policy",
            Self::Device => "device",
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Something is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {whose}'s limit {limit} is reached")]
pub struct Over {
    /// Which limit.
    pub limit: Limit,
    /// Whose.
    pub whose: Whose,
    /// After so long it may be tried again.
    pub retry_after: Duration,
}

impl Over {
    /// The same in whole seconds, at least one.
    pub fn retry_seconds(&self) -> u64 {
        let whole = self.retry_after.as_secs();
        let rest = u64::from(self.retry_after.subsec_nanos() > 0);
        whole.saturating_add(rest).max(1)
    }

    /// What a Close says that ends a stream, which only the bytes of a day do.
    pub const fn close_reason(&self) -> &'static str {
        match self.whose {
            Whose::Hub => "limit bytes-per-day of the hub",
            Whose::Policy => "limit bytes-per-day of the policy",
            Whose::Device => "limit bytes-per-day of the device",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_never_waits_too_short() {
        for (nanos, seconds) in [(0, 1), (1, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            let over = Over {
                limit: Limit::Initiations,
                whose: Whose::Device,
                retry_after: Duration::from_nanos(nanos),
            };
            assert_eq!(over.retry_seconds(), seconds, "{nanos}");
        }
    }

    #[test]
    fn a_close_names_the_limit() {
        for whose in [Whose::Hub, Whose::Policy, Whose::Device] {
            let over = Over {
                limit: Limit::BytesPerDay,
                whose,
                retry_after: Duration::ZERO,
            };
            let reason = format!("limit {} of the {whose}", over.limit);
            assert_eq!(over.close_reason(), reason);
        }
    }
}
