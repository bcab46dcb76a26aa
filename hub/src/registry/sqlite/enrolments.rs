//! Enrolment codes in their table.

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::rows::{column, damaged};
use super::{Result, SqliteRegistry, identities, policies, writes};
use crate::registry::{
    Authentication, Claim, Enrolment, EnrolmentError, EnrolmentOf, Enrolments, Identity,
    IdentitySettings, IfMatch, Owner, Redeemed, RegistryError, Thumbprint,
};

#[async_trait]
impl Enrolments for SqliteRegistry {
    async fn add_enrolment(&self, digest: [u8; 32], enrolment: Enrolment, now: u64) -> Result<()> {
        self.write(move |connection| {
            connection
                .prepare_cached("DELETE FROM enrolments WHERE expires <= ?1")?
                .execute([column(now)])?;
            let (device, policy) = match &enrolment.of {
                EnrolmentOf::Device(device) => (device.as_ref().map(DeviceId::as_str), None),
                EnrolmentOf::Operator { policy } => (None, Some(policy)),
            };
            connection
                .prepare_cached(
                    "INSERT INTO enrolments (digest, device, policy, expires) \
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![digest, device, policy, column(enrolment.expires)])?;
            Ok(())
        })
        .await
    }

    async fn redeem_enrolment(&self, digest: [u8; 32], claim: Claim, now: u64) -> Result<Redeemed> {
        self.write(move |connection| redeem(connection, &digest, &claim, now))
            .await
    }

    async fn revoke_enrolments(&self, now: u64) -> Result<u64> {
        self.write(move |connection| {
            let valid: i64 = connection
                .prepare_cached(
                    "SELECT count(*) FROM enrolments WHERE expires > ?1 AND used_by IS NULL",
                )?
                .query_row([column(now)], |row| row.get(0))?;
            connection
                .prepare_cached("DELETE FROM enrolments")?
                .execute([])?;
            Ok(valid.unsigned_abs())
        })
        .await
    }
}

/// A row of the table.
struct Row {
    device: Option<String>,
    policy: Option<String>,
    /// The thumbprint of the device that has redeemed it.
    used_by: Option<String>,
}

fn redeem(connection: &Connection, digest: &[u8; 32], claim: &Claim, now: u64) -> Result<Redeemed> {
    let row = connection
        .prepare_cached(
            "SELECT device, policy, used_by FROM enrolments WHERE digest = ?1 AND expires > ?2",
        )?
        .query_row(params![digest, column(now)], |row| {
            Ok(Row {
                device: row.get(0)?,
                policy: row.get(1)?,
                used_by: row.get(2)?,
            })
        })
        .optional()?
        .ok_or(EnrolmentError::Unknown)?;
    if let Some(policy) = row.policy {
        if claim.thumbprint.is_some() {
            return Err(EnrolmentError::ForOperator.into());
        }
        let policy = policies::find(connection, &policy)?.ok_or(EnrolmentError::NoPolicy)?;
        connection
            .prepare_cached("DELETE FROM enrolments WHERE digest = ?1")?
            .execute([digest])?;
        return Ok(Redeemed::Operator(policy));
    }
    let thumbprint = claim.thumbprint.as_ref().ok_or(EnrolmentError::ForDevice)?;
    let device = match (row.device, claim.device.as_ref()) {
        (Some(named), wanted) => {
            let named = DeviceId::parse(&named)
                .map_err(|_| damaged(Owner::Unknown, "the device of an enrolment code"))?;
            if let Some(wanted) = wanted.filter(|wanted| **wanted != named) {
                return Err(EnrolmentError::OtherDevice(wanted.clone()).into());
            }
            (DeviceIdentity::of_device(named), true)
        }
        (None, wanted) => {
            let wanted = wanted.or(claim.suggested.as_ref());
            let wanted = wanted.ok_or(EnrolmentError::NoDevice)?;
            (DeviceIdentity::of_device(wanted.clone()), false)
        }
    };
    let (id, is_named) = device;
    if let Some(used_by) = row.used_by {
        // Its answer may have been lost; anybody else finds a code that was used.
        return again(connection, &id, &used_by, thumbprint);
    }
    let authentication = Authentication::SelfSigned {
        primary: Some(thumbprint.clone()),
        secondary: None,
    };
    match identities::find(connection, &id)? {
        None => writes::create(connection, &id, &IdentitySettings::new(authentication))?,
        Some(present) if is_named => {
            let settings = IdentitySettings {
                authentication,
                ..present.settings()
            };
            writes::update(connection, &id, &settings, IfMatch::Any)?;
        }
        Some(_) => return Err(RegistryError::AlreadyExists(id)),
    }
    connection
        .prepare_cached("UPDATE enrolments SET used_by = ?2, device = ?3 WHERE digest = ?1")?
        .execute(params![digest, thumbprint.as_str(), id.device.as_str()])?;
    Ok(Redeemed::Device(id))
}

/// The device that a code was redeemed for, if this is its certificate and still its only one.
fn again(
    connection: &Connection,
    id: &DeviceIdentity,
    used_by: &str,
    thumbprint: &Thumbprint,
) -> Result<Redeemed> {
    let is_same = |identity: &Identity| {
        identity.authentication
            == Authentication::SelfSigned {
                primary: Some(thumbprint.clone()),
                secondary: None,
            }
    };
    identities::find(connection, id)?
        .filter(|identity| used_by == thumbprint.as_str() && is_same(identity))
        .map(|identity| Redeemed::Device(identity.id))
        .ok_or_else(|| EnrolmentError::Unknown.into())
}
