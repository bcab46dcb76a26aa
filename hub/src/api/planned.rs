//! Parts of IoT Hub's REST API that this hub does not have. Who may call is judged first: a
//! stranger does not learn what there is. Then the answer is that the hub cannot do it, and not
//! that there is no such device, as SDKs would report a 404.

use common::wire::problem::{BodyFamily, ErrorCode};
use http::Method;

use crate::auth::Permission;
use crate::refusal::Refusal;

/// A part of the API that is missing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// What a call needs; `None`: it is a device's call, about itself.
    pub permission: Option<Permission>,
    /// The family of bodies that SDKs expect there.
    pub family: BodyFamily,
    what: &'static str,
}

impl Missing {
    /// The refusal.
    pub fn refusal(self) -> Refusal {
        Refusal::new(
            ErrorCode::NOT_IMPLEMENTED,
            format!("this hub does not have {} yet", self.what),
        )
    }
}

/// The missing part that a path belongs to. `segments` are the percent-decoded, non-empty parts
/// of the path (`docs/protocol.md`, "Errors over REST").
pub fn find(method: &Method, segments: &[&str]) -> Option<Missing> {
    let part = |permission: Option<Permission>, what| {
        Some(Missing {
            permission,
            family: BodyFamily::Registry,
            what,
        })
    };
    let is_read = method == Method::GET;
    let registry = if is_read {
        Permission::RegistryRead
    } else {
        Permission::RegistryWrite
    };
    match *segments {
        ["twins", _, "methods"] | ["twins", _, "modules", _, "methods"] => Some(Missing {
            permission: Some(Permission::ServiceConnect),
            family: BodyFamily::Nested,
            what: "direct methods",
        }),
        ["twins", _] | ["twins", _, "modules", _]
            if method == Method::PATCH || method == Method::PUT =>
        {
            part(Some(Permission::ServiceConnect), "writing of twins")
        }
        ["devices", "query"] if method == Method::POST => {
            part(Some(Permission::RegistryRead), "queries")
        }
        ["jobs", ..] => part(Some(registry), "jobs"),
        ["configurations", ..] | ["devices", _, "applyConfigurationContent"] => {
            part(Some(registry), "configurations")
        }
        ["digitaltwins", ..] => part(Some(Permission::ServiceConnect), "digital twins"),
        ["messages", ..] | ["devices", _, "commands"] => {
            part(Some(Permission::ServiceConnect), "cloud-to-device messages")
        }
        ["devices", _, "files", ..] => part(None, "file uploads"),
        ["devices", _, "messages", ..] | ["devices", _, "modules", _, "messages", ..] => {
            part(None, "messages over HTTPS")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_missing() {
        for (method, path) in [
            (Method::GET, "twins/d"),
            (Method::GET, "twins/d/modules/m"),
            (Method::GET, "devices"),
            (Method::PUT, "devices/query"),
            (Method::PUT, "devices/d"),
            (Method::GET, "devices/d/modules"),
            (Method::GET, "statistics/devices"),
            (Method::GET, "nothing"),
        ] {
            let segments: Vec<_> = path.split('/').collect();
            assert_eq!(find(&method, &segments), None, "{method} {path}");
        }
    }
}
