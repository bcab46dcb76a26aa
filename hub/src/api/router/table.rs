//! Which resource stands behind which path.

use std::borrow::Cow;
use std::sync::LazyLock;

use common::identity::{DeviceId, DeviceIdentity, Leg, StreamId, StreamName};
use matchit::{Params, Router};
use percent_encoding::percent_decode_str;

use crate::api::missing::Missing;
use crate::documents::{self, invalid};
use crate::events::{Event, Fault};
use crate::refusal::Refusal;
use crate::registry::JobId;
use crate::streaming;

/// What a path names. `{module}` is there or not: a device and a module are one kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Devices,
    Identity,
    Modules,
    DeviceStatistics,
    ServiceStatistics,
    Twin,
    /// Found by the method: it has the path of a device.
    Query,
    Methods,
    /// Messages to a device, which services send.
    DeviceBound,
    /// Telemetry over HTTPS, which devices send.
    DeviceEvents,
    /// A device's queue of messages.
    Commands,
    /// What devices have sent lately.
    Events,
    Jobs,
    Job,
    JobCancel,
    Streams,
    /// Requests for access.
    Approvals,
    /// One of them.
    Approval,
    /// The devices that the caller may reach.
    Reachable,
    Missing(Missing),
    /// One leg of a stream.
    Leg,
    /// What else is at the streaming endpoint.
    NoLeg,
}

impl Resource {
    /// Its name, for who counts: one of this fixed set.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Identity => "identity",
            Self::Modules => "modules",
            Self::DeviceStatistics | Self::ServiceStatistics => "statistics",
            Self::Twin => "twin",
            Self::Query => "query",
            Self::Methods => "method",
            Self::DeviceBound | Self::DeviceEvents | Self::Commands | Self::Events => "messages",
            Self::Jobs | Self::Job | Self::JobCancel => "jobs",
            Self::Streams => "stream",
            Self::Approvals | Self::Approval => "approvals",
            Self::Reachable => "reachable",
            Self::Missing(_) => "missing",
            Self::Leg | Self::NoLeg => "leg",
        }
    }
}

/// What there is, by the pattern of its path.
const PATTERNS: &[(&str, Resource)] = &[
    ("/devices", Resource::Devices),
    ("/devices/{device}", Resource::Identity),
    ("/devices/{device}/modules", Resource::Modules),
    ("/devices/{device}/modules/{module}", Resource::Identity),
    ("/statistics/devices", Resource::DeviceStatistics),
    ("/statistics/service", Resource::ServiceStatistics),
    ("/twins/{device}", Resource::Twin),
    ("/twins/{device}/modules/{module}", Resource::Twin),
    ("/twins/{device}/methods", Resource::Methods),
    (
        "/twins/{device}/modules/{module}/methods",
        Resource::Methods,
    ),
    // As in topics, and as in IoT Hub's REST API for devices.
    (
        "/devices/{device}/messages/devicebound",
        Resource::DeviceBound,
    ),
    (
        "/devices/{device}/messages/deviceBound",
        Resource::DeviceBound,
    ),
    ("/devices/{device}/messages/events", Resource::DeviceEvents),
    (
        "/devices/{device}/modules/{module}/messages/events",
        Resource::DeviceEvents,
    ),
    ("/devices/{device}/commands", Resource::Commands),
    ("/messages/events", Resource::Events),
    ("/jobs/v2", Resource::Jobs),
    ("/jobs/v2/query", Resource::Jobs),
    ("/jobs/v2/{job}", Resource::Job),
    ("/jobs/v2/{job}/cancel", Resource::JobCancel),
    ("/twins/{device}/streams/{name}", Resource::Streams),
    (
        "/twins/{device}/modules/{module}/streams/{name}",
        Resource::Streams,
    ),
    ("/access/approvals", Resource::Approvals),
    ("/access/approvals/{approval}", Resource::Approval),
    ("/access/devices", Resource::Reachable),
    (streaming::PATH, Resource::Leg),
    ("/bridges", Resource::NoLeg),
    ("/bridges/{*rest}", Resource::NoLeg),
];

/// What there is not yet, whatever the method.
const MISSING: &[(&str, Missing)] = &[
    ("/jobs", Missing::Jobs),
    ("/jobs/{*rest}", Missing::Jobs),
    ("/configurations", Missing::Configurations),
    ("/configurations/{*rest}", Missing::Configurations),
    (
        "/devices/{device}/applyConfigurationContent",
        Missing::Configurations,
    ),
    ("/digitaltwins", Missing::DigitalTwins),
    ("/digitaltwins/{*rest}", Missing::DigitalTwins),
    ("/messages", Missing::CloudToDeviceMessages),
    ("/messages/{*rest}", Missing::CloudToDeviceMessages),
    ("/devices/{device}/files", Missing::FileUploads),
    ("/devices/{device}/files/{*rest}", Missing::FileUploads),
    ("/devices/{device}/messages", Missing::DeviceMessages),
    (
        "/devices/{device}/messages/{*rest}",
        Missing::DeviceMessages,
    ),
    (
        "/devices/{device}/modules/{module}/messages",
        Missing::DeviceMessages,
    ),
    (
        "/devices/{device}/modules/{module}/messages/{*rest}",
        Missing::DeviceMessages,
    ),
];

static TABLE: LazyLock<Router<Resource>> = LazyLock::new(|| {
    let mut table = Router::new();
    for (pattern, resource) in patterns() {
        // A pattern that contradicts another is a mistake of ours, which the tests see.
        if let Err(error) = table.insert(pattern, resource) {
            let reason = &error;
            Event::Fault(Fault::Pattern { pattern, reason }).log();
        }
    }
    table
});

/// Every pattern, with what is behind it.
pub(super) fn patterns() -> impl Iterator<Item = (&'static str, Resource)> {
    let missing = MISSING.iter();
    let missing = missing.map(|(pattern, missing)| (*pattern, Resource::Missing(*missing)));
    PATTERNS.iter().copied().chain(missing)
}

/// The resource of a path in its canonical form, and the ids in it.
pub(super) fn find(canonical: &str) -> Option<(Resource, Ids<'_>)> {
    let found = TABLE.at(canonical).ok()?;
    Some((*found.value, Ids(found.params)))
}

/// The ids in a path, each still to be read.
pub(super) struct Ids<'a>(Params<'static, 'a>);

impl Ids<'_> {
    /// Whether the path names a module.
    pub(super) fn has_module(&self) -> bool {
        self.0.get("module").is_some()
    }

    /// Whether this stands in the device's place, module or not.
    pub(super) fn is_device(&self, name: &str) -> bool {
        self.text("device") == name
    }

    /// The device or module.
    ///
    /// # Errors
    /// 400004 says which rule an id breaks.
    pub(super) fn identity(&self) -> Result<DeviceIdentity, Refusal> {
        let module = self.has_module().then(|| self.text("module"));
        documents::id(&self.text("device"), module.as_deref())
    }

    /// The device, also of a module.
    ///
    /// # Errors
    /// 400004 says which rule the id breaks.
    pub(super) fn device(&self) -> Result<DeviceId, Refusal> {
        Ok(documents::id(&self.text("device"), None)?.device)
    }

    /// The job.
    ///
    /// # Errors
    /// 400004 when it is no id.
    pub(super) fn job(&self) -> Result<JobId, Refusal> {
        JobId::parse(&self.text("job"))
            .ok_or_else(|| invalid("Bad id: a job's has 1 to 128 letters, digits and - . _ : = @ ( ) , ! $ ' * + %, and is not query.".to_owned()))
    }

    /// The request for access, whatever it is called.
    pub(super) fn approval(&self) -> String {
        self.text("approval").into_owned()
    }

    /// The stream's name.
    ///
    /// # Errors
    /// 400004 says which rule the name breaks.
    pub(super) fn stream_name(&self) -> Result<StreamName, Refusal> {
        StreamName::parse(&self.text("name")).map_err(|error| invalid(error.to_string()))
    }

    /// Stream and leg of a path at the streaming endpoint.
    pub(super) fn leg(&self) -> Option<(StreamId, Leg)> {
        Some((
            StreamId::parse(&self.text("stream"))?,
            Leg::parse(&self.text("leg"))?,
        ))
    }

    /// A part of the path; empty, which no id is, if there is none of this name.
    fn text(&self, name: &str) -> Cow<'_, str> {
        percent_decode_str(self.0.get(name).unwrap_or_default()).decode_utf8_lossy()
    }
}
