//! SAS tokens and client certificates against the registry (`docs/protocol.md`, "SAS tokens and
//! policies").

use std::sync::Arc;

use common::clock::unix_now;
use common::hub_address::HubAddress;
use common::identity::{DeviceId, DeviceIdentity};
use common::sas_token::SasToken;
use common::secret::SharedKey;
use common::wire::access;

use super::{
    AuthError, Caller, ClientChain, Credential, DeviceAuthorities, DevicePrincipal, Permission,
    Scope, ServicePrincipal,
};
use crate::limits;
use crate::registry::{
    Authentication, Holder, Identity, Permissions, Policy, Registry, Status, Thumbprint,
};

/// What stands before the name of a person in the place of a policy's.
const OIDC: &str = "oidc:";

/// What a device brings to its CONNECT.
pub enum DeviceProof<'a> {
    /// The MQTT password.
    Token(&'a str),
    /// The TLS client certificate.
    Certificate(&'a ClientChain),
}

/// Asks the registry and judges.
#[derive(Clone)]
pub struct Authenticator {
    registry: Arc<dyn Registry>,
    authorities: DeviceAuthorities,
    hub: HubAddress,
}

impl Authenticator {
    /// Judges for the hub of this name. No CA is known before [`DeviceAuthorities::read`].
    pub fn new(registry: Arc<dyn Registry>, hub: HubAddress) -> Self {
        Self {
            registry,
            authorities: DeviceAuthorities::default(),
            hub,
        }
    }

    /// The CAs whose certificates devices may show.
    pub fn authorities(&self) -> &DeviceAuthorities {
        &self.authorities
    }

    /// Authenticates a device or module; `now` is Unix seconds.
    ///
    /// The future may be dropped: it only reads.
    ///
    /// # Errors
    /// [`AuthError`]; the device itself sees no more than "not authorised".
    pub async fn device(
        &self,
        id: &DeviceIdentity,
        proof: DeviceProof<'_>,
        now: u64,
    ) -> Result<DevicePrincipal, AuthError> {
        // A token is judged before the registry is asked: strangers cost no look-up.
        let token = match proof {
            DeviceProof::Token(text) => {
                Some(self.token(text, &Scope::of(id.resource_path()), now)?)
            }
            DeviceProof::Certificate(_) => None,
        };
        let identity = self
            .registry
            .identity(id)
            .await?
            .ok_or(AuthError::UnknownIdentity)?;
        let mut expires = token.as_ref().map(|token| session_end(token, now));
        let credential = match (&token, proof) {
            (Some(token), _) => match token.policy() {
                Some(policy) => {
                    let policy = self.policy(policy).await?;
                    let key = signer(token, [&policy.primary, &policy.secondary])?;
                    if !policy.permissions.device_connect {
                        return Err(AuthError::Permission);
                    }
                    let key = key.fingerprint();
                    Credential::PolicyKey(policy.name, key)
                }
                None if token.names_only_host() => return Err(AuthError::Scope),
                None => self.own_key(&identity, token).await?,
            },
            (None, DeviceProof::Certificate(chain)) => {
                let (credential, end) = self.certificate(&identity, chain, now)?;
                expires = end;
                credential
            }
            (None, DeviceProof::Token(_)) => return Err(AuthError::Missing),
        };
        // Only now: who does not hold the key learns nothing about the identity.
        if identity.status == Status::Disabled {
            return Err(AuthError::Disabled);
        }
        Ok(DevicePrincipal {
            identity: identity.id,
            expires,
            credential,
            generation_id: identity.generation_id,
        })
    }

    /// Authenticates a service by its `Authorization` header, whose token has to be for `scope`;
    /// `now` is Unix seconds.
    ///
    /// The future may be dropped: it only reads.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn service(
        &self,
        header: Option<&str>,
        needed: Permission,
        scope: &Scope,
        now: u64,
    ) -> Result<ServicePrincipal, AuthError> {
        let token = self.token(header.ok_or(AuthError::Missing)?, scope, now)?;
        let name = token.policy().ok_or(AuthError::Scope)?;
        let principal = if name.starts_with(access::ISSUED) {
            self.issued(name, &token, now).await?
        } else {
            let policy = self.policy(name).await?;
            signer(&token, [&policy.primary, &policy.secondary])?;
            ServicePrincipal {
                policy: policy.name,
                permissions: policy.permissions,
                person: None,
                token: None,
                login: None,
            }
        };
        if !needed.is_met_by(principal.permissions) {
            return Err(AuthError::Permission);
        }
        Ok(principal)
    }

    /// Who has a token that was issued by name.
    async fn issued(
        &self,
        id: &str,
        token: &SasToken,
        now: u64,
    ) -> Result<ServicePrincipal, AuthError> {
        let revoked = || AuthError::Revoked(id.to_owned());
        let row = self.registry.issued_token(id).await?.ok_or_else(revoked)?;
        signer(token, [&row.key, &row.key])?;
        if row.revoked.is_some() {
            return Err(revoked());
        }
        if row.expires.saturating_add(limits::CLOCK_SKEW.as_secs()) <= now {
            return Err(AuthError::Expired);
        }
        let person: Arc<str> = row.holder.name().into();
        let token = Some(row.id.into());
        Ok(match row.holder {
            Holder::Named { policy, .. } => {
                let policy = self.policy(&policy).await?;
                ServicePrincipal {
                    policy: policy.name,
                    permissions: policy.permissions,
                    person: Some(person),
                    token,
                    login: None,
                }
            }
            Holder::Person(login) => ServicePrincipal {
                policy: format!("{OIDC}{person}"),
                permissions: Permissions {
                    service_connect: true,
                    ..Permissions::default()
                },
                person: Some(person),
                token,
                login: Some(Arc::new(login)),
            },
        })
    }

    /// Authenticates a call about the modules of a device: by a service, as in
    /// [`Authenticator::service`], or by the device itself. Its token names the device and
    /// nothing else, and is signed with its own key; without a token, its TLS client
    /// certificate counts.
    ///
    /// The future may be dropped: it only reads.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn service_or_device(
        &self,
        header: Option<&str>,
        certificate: Option<&ClientChain>,
        needed: Permission,
        scope: &Scope,
        device: &DeviceId,
        now: u64,
    ) -> Result<Caller, AuthError> {
        let id = DeviceIdentity::of_device(device.clone());
        let token = header.map(SasToken::parse).transpose()?;
        if let Some(token) = &token {
            if token.policy().is_some() {
                let service = self.service(header, needed, scope, now).await?;
                return Ok(Caller::Service(service));
            }
            check_expiry(token, now)?;
            if !token.is_for(&self.hub, &id.resource_path()) {
                return Err(AuthError::Scope);
            }
        } else if certificate.is_none() {
            return Err(AuthError::Missing);
        }
        let identity = self.registry.identity(&id).await?;
        let identity = identity.ok_or(AuthError::UnknownIdentity)?;
        match (&token, certificate) {
            (Some(token), _) => drop(signing_key(&identity, token)?),
            (None, Some(chain)) => drop(self.certificate(&identity, chain, now)?),
            (None, None) => return Err(AuthError::Missing),
        }
        // Only now: who does not hold the key learns nothing about the identity.
        match identity.status {
            Status::Enabled => Ok(Caller::Device(id.device)),
            Status::Disabled => Err(AuthError::Disabled),
        }
    }

    /// What a certificate proves of this identity, and when it stops to, Unix seconds.
    fn certificate(
        &self,
        identity: &Identity,
        chain: &ClientChain,
        now: u64,
    ) -> Result<(Credential, Option<u64>), AuthError> {
        if identity.authentication == Authentication::CertificateAuthority {
            let end = self.authorities.verify(chain, &identity.id, now)?;
            return Ok((Credential::Issued(chain.clone()), Some(end)));
        }
        let credential = Credential::Certificate(chain.fingerprints());
        match holds(identity, &credential) {
            true => Ok((credential, None)),
            false => Err(AuthError::WrongKey),
        }
    }

    /// The key of this identity that has signed a token. A module may use a key of its
    /// device as well, whatever its own authentication is (docs/protocol.md, Modules).
    async fn own_key(
        &self,
        identity: &Identity,
        token: &SasToken,
    ) -> Result<Credential, AuthError> {
        match signing_key(identity, token) {
            Ok(key) => Ok(Credential::Key(key.fingerprint())),
            Err(error) if identity.id.module.is_none() => Err(error),
            Err(_) => {
                let device = self.device_of(&identity.id).await?;
                let key = signing_key(&device, token)?;
                Ok(Credential::DeviceKey(key.fingerprint()))
            }
        }
    }

    /// The device itself, or the one that a module belongs to.
    async fn device_of(&self, id: &DeviceIdentity) -> Result<Identity, AuthError> {
        let device = DeviceIdentity::of_device(id.device.clone());
        let found = self.registry.identity(&device).await?;
        found.ok_or(AuthError::UnknownIdentity)
    }

    /// Whether a session that was opened with this credential may go on.
    ///
    /// The future may be dropped: it only reads.
    ///
    /// # Errors
    /// [`AuthError`] says why not.
    pub async fn still_valid(
        &self,
        id: &DeviceIdentity,
        credential: &Credential,
    ) -> Result<(), AuthError> {
        let identity = self
            .registry
            .identity(id)
            .await?
            .ok_or(AuthError::UnknownIdentity)?;
        if identity.status == Status::Disabled {
            return Err(AuthError::Disabled);
        }
        let holds = match credential {
            Credential::DeviceKey(digest) => {
                holds(&self.device_of(id).await?, &Credential::Key(*digest))
            }
            Credential::PolicyKey(name, digest) => {
                let policy = self.policy(name).await?;
                let keys = [&policy.primary, &policy.secondary];
                policy.permissions.device_connect
                    && keys.iter().any(|key| key.fingerprint() == *digest)
            }
            Credential::Issued(chain) => {
                if identity.authentication != Authentication::CertificateAuthority {
                    return Err(AuthError::WrongKey);
                }
                self.authorities.verify(chain, id, unix_now())?;
                true
            }
            own => holds(&identity, own),
        };
        if holds {
            Ok(())
        } else {
            Err(AuthError::WrongKey)
        }
    }

    fn token(&self, text: &str, scope: &Scope, now: u64) -> Result<SasToken, AuthError> {
        let token = SasToken::parse(text)?;
        check_expiry(&token, now)?;
        let is_for = |path: &String| token.is_for(&self.hub, path);
        if token.covers(&self.hub, &scope.below) || scope.exactly.iter().any(is_for) {
            Ok(token)
        } else {
            Err(AuthError::Scope)
        }
    }

    async fn policy(&self, name: &str) -> Result<Policy, AuthError> {
        self.registry
            .policy(name)
            .await?
            .ok_or(AuthError::UnknownPolicy)
    }
}

fn check_expiry(token: &SasToken, now: u64) -> Result<(), AuthError> {
    if token.expiry().saturating_add(limits::CLOCK_SKEW.as_secs()) <= now {
        Err(AuthError::Expired)
    } else {
        Ok(())
    }
}

/// A session ends with its token; one that is in its grace already gets the grace.
fn session_end(token: &SasToken, now: u64) -> u64 {
    if token.expiry() > now {
        token.expiry()
    } else {
        token.expiry().saturating_add(limits::CLOCK_SKEW.as_secs())
    }
}

fn signer<'a>(token: &SasToken, keys: [&'a SharedKey; 2]) -> Result<&'a SharedKey, AuthError> {
    keys.into_iter()
        .find(|key| token.is_signed_by(key))
        .ok_or(AuthError::WrongKey)
}

/// The identity's own key that has signed a token.
fn signing_key<'a>(identity: &'a Identity, token: &SasToken) -> Result<&'a SharedKey, AuthError> {
    match &identity.authentication {
        Authentication::Sas { primary, secondary } => signer(token, [primary, secondary]),
        _ => Err(AuthError::WrongKey),
    }
}

fn holds(identity: &Identity, credential: &Credential) -> bool {
    match (credential, &identity.authentication) {
        (Credential::Key(digest), Authentication::Sas { primary, secondary }) => {
            primary.fingerprint() == *digest || secondary.fingerprint() == *digest
        }
        (Credential::Certificate(digests), Authentication::SelfSigned { primary, secondary }) => {
            [primary, secondary]
                .into_iter()
                .flatten()
                .map(Thumbprint::as_str)
                .any(|thumbprint| digests.iter().any(|digest| digest == thumbprint))
        }
        _ => false,
    }
}
