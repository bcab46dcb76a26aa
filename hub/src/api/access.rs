//! Who may make a call.

use common::clock::unix_now;
use common::identity::DeviceId;
use http::{HeaderMap, header};

use crate::auth::{AuthError, Authenticator, Caller, ClientChain, Permission, Scope};

/// What the caller of a resource has to show.
#[derive(Debug)]
pub struct Access {
    /// What its shared access policy has to allow.
    pub permission: Permission,
    /// The device whose own credential is enough.
    pub owner: Option<DeviceId>,
    /// What its SAS token has to cover.
    pub scope: Scope,
}

impl Access {
    /// Authenticates the caller by the header `Authorization`, or a device by its TLS client
    /// certificate. May be dropped.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authorise(
        &self,
        auth: &Authenticator,
        headers: &HeaderMap,
        certificate: Option<&ClientChain>,
    ) -> Result<Caller, AuthError> {
        let (header, now) = (authorization(headers), unix_now());
        let Self {
            permission,
            owner,
            scope,
        } = self;
        match owner {
            Some(device) => {
                auth.service_or_device(header, certificate, *permission, scope, device, now)
                    .await
            }
            None => {
                let service = auth.service(header, *permission, scope, now).await?;
                Ok(Caller::Service(service))
            }
        }
    }
}

/// The header `Authorization`, if it is text.
pub fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}
