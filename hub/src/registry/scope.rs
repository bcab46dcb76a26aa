//! Scopes: how edge devices become parents of other devices. An edge device has a scope of
//! its own, `ms-azure-iot-edge://{id}-{generation}`; a device below it names that scope.
//! A leaf device has its parent's as `deviceScope` and in `parentScopes`, an edge device
//! below another one only in `parentScopes`.

use common::identity::{DeviceId, DeviceIdentity};

use super::{IdentitySettings, RegistryError};

const SCHEME: &str = "ms-azure-iot-edge://";
/// IoT Hub knows one parent only.
const PARENTS: usize = 1;

/// Why a device cannot have the parent that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The text is no scope.
    #[error(
        "a scope must be the deviceScope of an edge device: ms-azure-iot-edge:// and its id, - and its generationId"
    )]
    NotAScope,
    /// There is no edge device with this scope.
    #[error("there is no edge device with this scope; it may have been deleted and made anew")]
    NoParent,
    /// The device would be its own parent.
    #[error("a device cannot be its own parent")]
    Itself,
    /// There is room for one.
    #[error("parentScopes may have one element")]
    TooMany,
}

/// The scope of the edge device of this name and generation.
pub(super) fn of_edge_device(id: &DeviceId, generation: &str) -> String {
    format!("{SCHEME}{id}-{generation}")
}

/// `deviceScope` and `parentScopes` of a device with these settings. The scopes that it has
/// already, `known`, are not looked up again.
pub(super) fn resolve(
    id: &DeviceIdentity,
    generation: &str,
    wanted: &IdentitySettings,
    known: &[String],
    is_edge_device: impl Fn(&DeviceId, &str) -> Result<bool, RegistryError>,
) -> Result<(Option<String>, Vec<String>), RegistryError> {
    if id.module.is_some() {
        return Ok((None, Vec::new()));
    }
    let mut parents = wanted.parent_scopes.clone();
    parents.retain(|scope| !scope.is_empty());
    if !wanted.iot_edge {
        // For a leaf device, `deviceScope` decides; an empty one takes it from its parent.
        match wanted.device_scope.as_deref() {
            Some("") => parents.clear(),
            Some(scope) => parents = vec![scope.to_owned()],
            None => {}
        }
    }
    if parents.len() > PARENTS {
        return Err(ScopeError::TooMany.into());
    }
    for scope in &parents {
        if !known.contains(scope) {
            check(id, scope, &is_edge_device)?;
        }
    }
    let own = if wanted.iot_edge {
        Some(of_edge_device(&id.device, generation))
    } else {
        parents.first().cloned()
    };
    Ok((own, parents))
}

fn check(
    id: &DeviceIdentity,
    scope: &str,
    is_edge_device: impl Fn(&DeviceId, &str) -> Result<bool, RegistryError>,
) -> Result<(), RegistryError> {
    let (device, generation) = scope
        .strip_prefix(SCHEME)
        .and_then(|rest| rest.rsplit_once('-'))
        .ok_or(ScopeError::NotAScope)?;
    let device = DeviceId::parse(device).map_err(|_| ScopeError::NotAScope)?;
    if device == id.device {
        return Err(ScopeError::Itself.into());
    }
    if is_edge_device(&device, generation)? {
        Ok(())
    } else {
        Err(ScopeError::NoParent.into())
    }
}
