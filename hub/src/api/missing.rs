//! Parts of IoT Hub's REST API that this hub does not have. Who may call is judged first: a
//! stranger does not learn what there is. Then the answer is that the hub cannot do it, and not
//! that there is no such device, as SDKs would report a 404.

use common::identity::DeviceIdentity;
use common::wire::problem::{BodyFamily, ErrorCode};
use http::Method;

use crate::auth::Permission;
use crate::refusal::Refusal;

/// A part of the API that is missing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// `/jobs`, but for version 2: import and export of identities.
    Jobs,
    /// `/configurations`, and their content for one device.
    Configurations,
    /// `/digitaltwins`.
    DigitalTwins,
    /// `/messages`, and a device's queue of them.
    CloudToDeviceMessages,
    /// A device's uploads.
    FileUploads,
    /// A device's own messages.
    DeviceMessages,
}

impl Missing {
    /// What a call with this method needs; `None`: it is a device's call, about itself.
    pub fn permission(self, method: &Method) -> Option<Permission> {
        match self {
            Self::Jobs | Self::Configurations => Some(Permission::of_registry(method)),
            Self::DigitalTwins | Self::CloudToDeviceMessages => Some(Permission::ServiceConnect),
            Self::FileUploads | Self::DeviceMessages => None,
        }
    }

    /// The family of bodies that SDKs expect there.
    pub fn family(self) -> BodyFamily {
        BodyFamily::Registry
    }

    /// The refusal: 501000.
    pub fn refusal(self) -> Refusal {
        let what = match self {
            Self::Jobs => "import and export jobs",
            Self::Configurations => "configurations",
            Self::DigitalTwins => "digital twins",
            Self::CloudToDeviceMessages => "cloud-to-device messages",
            Self::FileUploads => "file uploads",
            Self::DeviceMessages => "messages over HTTPS",
        };
        Refusal::new(
            ErrorCode::NOT_IMPLEMENTED,
            format!("this hub does not have {what} yet"),
        )
    }
}

/// There is no such device or module, in the words of streams and direct methods.
pub(super) fn not_found(identity: &DeviceIdentity) -> Refusal {
    match &identity.module {
        None => Refusal::new(
            ErrorCode::DEVICE_NOT_FOUND,
            format!("Device {} not registered", identity.device),
        ),
        Some(_) => Refusal::new(
            ErrorCode::MODULE_NOT_FOUND,
            format!("Module {identity} not registered"),
        ),
    }
}
