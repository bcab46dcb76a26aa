//! Where a request goes: method and path become, once, a typed [`Call`] with typed ids, and what
//! hangs off it: what the caller has to show, how much of a body is read, and in which form
//! refusals are written. No I/O; the handlers are below [`super::handle`].
//!
//! The order of judgement is the same for every path: who calls (401), whether the hub has that
//! part of the API (501), whether there is such a resource (404), whether it knows the method
//! (405), and what the ids are (400). So all of it but the first is in [`Target::call`], for who
//! may call.

use common::identity::{Leg, StreamId};
use common::session::STREAM_PREFIX;
use common::wire::problem::{BodyFamily, ErrorCode};
use common::wire::topics::MQTT_WEBSOCKET_PATH;
use http::Method;

use self::path::Path;
use self::table::{Ids, Resource};
use super::access::Access;
use super::missing::Missing;
use super::{approvals, identities, jobs, messages, methods, queries, reachable, streams, twins};
use crate::auth::{Permission, Scope};
use crate::refusal::Refusal;

mod path;
mod table;

/// What is behind a path.
#[derive(Debug)]
pub enum Route {
    /// MQTT over WebSocket, and the refusal of AMQP.
    Mqtt,
    /// A leg at the streaming endpoint. `None`: no leg has such a path.
    Leg(Option<(StreamId, Leg)>),
    /// Redeeming an enrolment code.
    Enrolment,
    /// Learning who the identity provider is.
    Provider,
    /// Showing what it says of somebody.
    Login,
    /// The REST API.
    Rest(Box<Target>),
}

/// A request to the REST API.
#[derive(Debug)]
pub struct Target {
    /// The resource's name, one of a fixed set: what requests are counted by.
    pub name: &'static str,
    /// What the caller has to show.
    pub access: Access,
    /// How refusals are written.
    pub family: BodyFamily,
    /// Whether a body may mean something; else it is not read.
    pub has_body: bool,
    /// What is to be done, or why the hub does not do it.
    pub call: Result<Call, Refusal>,
}

/// What a caller wants.
#[derive(Debug)]
pub enum Call {
    /// Devices and modules.
    Identities(identities::Call),
    /// Twins.
    Twins(twins::Call),
    /// Jobs.
    Jobs(jobs::Call),
    /// A query.
    Query(queries::Call),
    /// Messages.
    Messages(messages::Call),
    /// A direct method.
    Method(methods::Call),
    /// Access that somebody has to approve.
    Approvals(approvals::Call),
    /// The devices that the caller may reach.
    Reachable(reachable::Call),
    /// A stream to a device.
    Stream(streams::Call),
}

/// Finds what is behind a path. Any method and any path gives a call or a refusal.
///
/// # Errors
/// 400004 when the path is not UTF-8, which no SAS token can cover; 405000 for another method than
/// the one to redeem codes.
pub fn route(method: &Method, path: &str) -> Result<Route, Refusal> {
    if path == MQTT_WEBSOCKET_PATH {
        return Ok(Route::Mqtt);
    }
    if path == common::enrolment::PATH {
        return match *method {
            Method::POST => Ok(Route::Enrolment),
            _ => Err(Refusal::wrong_method("POST")),
        };
    }
    if path == common::wire::access::LOGIN_PATH {
        return match *method {
            Method::GET => Ok(Route::Provider),
            Method::POST => Ok(Route::Login),
            _ => Err(Refusal::wrong_method("GET, POST")),
        };
    }
    let Path { scope, canonical } = Path::parse(path)
        .ok_or_else(|| Refusal::new(ErrorCode::ARGUMENT_INVALID, "the path is not UTF-8"))?;
    let target = match table::find(&canonical) {
        Some((Resource::Leg, ids)) => return Ok(Route::Leg(ids.leg())),
        Some((Resource::NoLeg, _)) => return Ok(Route::Leg(None)),
        Some((resource, ids)) => target(resource, method, &ids, scope),
        None => nothing(scope),
    };
    Ok(Route::Rest(Box::new(target)))
}

/// A resource that the hub knows.
fn target(resource: Resource, method: &Method, ids: &Ids<'_>, scope: String) -> Target {
    let resource = match resource {
        // That is the query API, not a device of this name.
        Resource::Identity if is_query(method, ids) => Resource::Query,
        other => other,
    };
    let (permission, has_owner) = match resource {
        Resource::Missing(missing) => (missing.permission(method), false),
        Resource::Twin if method == Method::GET => (Some(Permission::TwinRead), false),
        Resource::Twin
        | Resource::Methods
        | Resource::Streams
        | Resource::Commands
        | Resource::Approvals
        | Resource::Approval
        | Resource::Reachable
        | Resource::Events => (Some(Permission::ServiceConnect), false),
        Resource::DeviceBound if method == Method::POST => {
            (Some(Permission::ServiceConnect), false)
        }
        // A device's own.
        Resource::DeviceBound | Resource::DeviceEvents => (None, false),
        Resource::Jobs | Resource::Job | Resource::JobCancel if method == Method::GET => {
            (Some(Permission::JobsRead), false)
        }
        Resource::Jobs | Resource::Job | Resource::JobCancel => (Some(Permission::Jobs), false),
        Resource::Query => (Some(Permission::Query), false),
        // A device owns its modules, and nothing else.
        Resource::Modules => (Some(Permission::of_registry(method)), true),
        Resource::Identity => (Some(Permission::of_registry(method)), ids.has_module()),
        _ => (Some(Permission::of_registry(method)), false),
    };
    // A device's call about itself needs no less than to change it, for anybody else.
    let owner = (has_owner || permission.is_none()).then(|| ids.device().ok());
    let owner = owner.flatten();
    let permission = permission.unwrap_or(match owner {
        Some(_) => Permission::RegistryWrite,
        None => Permission::Any,
    });
    let scope = match resource {
        Resource::Streams => of_streams(scope, ids),
        _ => Scope::of(scope),
    };
    let (family, has_body) = match resource {
        Resource::Missing(missing) => (missing.family(), false),
        Resource::Methods => (BodyFamily::Nested, true),
        Resource::Streams => (BodyFamily::Nested, false),
        _ => (BodyFamily::Registry, true),
    };
    Target {
        name: resource.name(),
        access: Access {
            permission,
            owner,
            scope,
        },
        family,
        has_body,
        call: call(resource, method, ids),
    }
}

/// What there is not, for who may call anything.
fn nothing(scope: String) -> Target {
    Target {
        name: "none",
        access: Access {
            permission: Permission::Any,
            owner: None,
            scope: Scope::of(scope),
        },
        family: BodyFamily::Registry,
        has_body: true,
        call: Err(no_such_resource()),
    }
}

fn call(resource: Resource, method: &Method, ids: &Ids<'_>) -> Result<Call, Refusal> {
    use identities::Call as OfIdentities;
    let of_identities = match (resource, method.as_str()) {
        (Resource::Devices, "GET") => OfIdentities::List,
        (Resource::Devices, "POST") => OfIdentities::Bulk,
        (Resource::Devices, _) => return Err(Refusal::wrong_method("GET, POST")),
        (Resource::Identity, "GET") => OfIdentities::Read(ids.identity()?),
        (Resource::Identity, "PUT") => OfIdentities::Write(ids.identity()?),
        (Resource::Identity, "DELETE") => OfIdentities::Delete(ids.identity()?),
        (Resource::Identity, _) => return Err(Refusal::wrong_method("GET, PUT, DELETE")),
        (Resource::Modules, "GET") => OfIdentities::Modules(ids.device()?),
        (Resource::DeviceStatistics, "GET") => OfIdentities::DeviceStatistics,
        (Resource::ServiceStatistics, "GET") => OfIdentities::ServiceStatistics,
        (Resource::Twin, "GET") => return Ok(Call::Twins(twins::Call::Read(ids.identity()?))),
        (Resource::Twin, "PATCH") => return Ok(Call::Twins(twins::Call::Merge(ids.identity()?))),
        (Resource::Twin, "PUT") => return Ok(Call::Twins(twins::Call::Replace(ids.identity()?))),
        (Resource::Twin, _) => return Err(Refusal::wrong_method("GET, PATCH, PUT")),
        (Resource::Modules, _) | (Resource::DeviceStatistics | Resource::ServiceStatistics, _) => {
            return Err(Refusal::wrong_method("GET"));
        }
        (Resource::Query, _) => return Ok(Call::Query(queries::Call)),
        (Resource::Methods, "POST") => {
            let identity = ids.identity()?;
            return Ok(Call::Method(methods::Call { identity }));
        }
        (Resource::Streams, "POST") => {
            return Ok(Call::Stream(streams::Call {
                identity: ids.identity()?,
                name: ids.stream_name()?,
            }));
        }
        (Resource::Approvals, "GET") => return Ok(Call::Approvals(approvals::Call::List)),
        (Resource::Approvals, "POST") => return Ok(Call::Approvals(approvals::Call::Ask)),
        (Resource::Approval, "GET") => {
            return Ok(Call::Approvals(approvals::Call::Read(ids.approval())));
        }
        (Resource::Approval, "POST") => {
            return Ok(Call::Approvals(approvals::Call::Decide(ids.approval())));
        }
        (Resource::Approvals | Resource::Approval, _) => {
            return Err(Refusal::wrong_method("GET, POST"));
        }
        (Resource::Reachable, "GET") => return Ok(Call::Reachable(reachable::Call)),
        (Resource::Reachable, _) => return Err(Refusal::wrong_method("GET")),
        (Resource::DeviceBound, "POST") => {
            return Ok(Call::Messages(messages::Call::Send(ids.device()?)));
        }
        // SDKs take them over MQTT; over HTTPS they would be locked and polled.
        (Resource::DeviceBound, _) => return Err(Missing::DeviceMessages.refusal()),
        (Resource::DeviceEvents, "POST") => {
            return Ok(Call::Messages(messages::Call::Report(ids.identity()?)));
        }
        (Resource::DeviceEvents, _) => return Err(Refusal::wrong_method("POST")),
        (Resource::Commands, "DELETE") => {
            return Ok(Call::Messages(messages::Call::Purge(ids.device()?)));
        }
        (Resource::Commands, _) => return Err(Refusal::wrong_method("DELETE")),
        (Resource::Events, "GET") => return Ok(Call::Messages(messages::Call::Recent)),
        (Resource::Events, _) => return Err(Refusal::wrong_method("GET")),
        (Resource::Jobs, "GET") => return Ok(Call::Jobs(jobs::Call::List)),
        (Resource::Jobs, _) => return Err(Refusal::wrong_method("GET")),
        (Resource::Job, "GET") => return Ok(Call::Jobs(jobs::Call::Read(ids.job()?))),
        (Resource::Job, "PUT") => return Ok(Call::Jobs(jobs::Call::Create(ids.job()?))),
        (Resource::Job, _) => return Err(Refusal::wrong_method("GET, PUT")),
        (Resource::JobCancel, "POST") => return Ok(Call::Jobs(jobs::Call::Cancel(ids.job()?))),
        (Resource::JobCancel | Resource::Methods | Resource::Streams, _) => {
            return Err(Refusal::wrong_method("POST"));
        }
        (Resource::Missing(missing), _) => return Err(missing.refusal()),
        // Not of the REST API: they are found before.
        (Resource::Leg | Resource::NoLeg, _) => return Err(no_such_resource()),
    };
    Ok(Call::Identities(of_identities))
}

/// A token for all streams of a device opens this one; and so does a token for exactly its name, or
/// of a session for the target that it leads to, and to no other (docs/session-protocol.md).
fn of_streams(scope: String, ids: &Ids<'_>) -> Scope {
    let Ok(name) = ids.stream_name() else {
        // There is no such stream: it is refused once the caller is known.
        return Scope::of(scope);
    };
    let name = name.as_str();
    let Some(streams) = scope.strip_suffix(name).map(|it| it.trim_end_matches('/')) else {
        return Scope::of(scope);
    };
    // No target's name begins like that.
    let target = name.strip_prefix(STREAM_PREFIX);
    let target = target.filter(|target| !target.starts_with(STREAM_PREFIX));
    let exactly = [Some(name), target].into_iter().flatten();
    Scope {
        below: streams.to_owned(),
        exactly: exactly.map(|name| format!("{streams}/{name}")).collect(),
    }
}

fn is_query(method: &Method, ids: &Ids<'_>) -> bool {
    method == Method::POST && !ids.has_module() && ids.is_device("query")
}

fn no_such_resource() -> Refusal {
    Refusal::new(ErrorCode::NOT_FOUND, "there is no such resource")
}

#[cfg(test)]
mod tests;
