//! Columns to values and back.

use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::secret::{Secret, SharedKey};
use rusqlite::Row;

use super::Result;
use crate::registry::{
    Activity, Authentication, Identity, Owner, RegistryError, Status, Thumbprint,
};

/// The two credential columns.
pub(super) fn credentials(authentication: &Authentication) -> (Option<Secret>, Option<Secret>) {
    let thumbprint = |t: &Option<Thumbprint>| t.as_ref().map(|t| Secret::new(t.as_str()));
    match authentication {
        Authentication::Sas { primary, secondary } => {
            (Some(primary.to_base64()), Some(secondary.to_base64()))
        }
        Authentication::SelfSigned { primary, secondary } => {
            (thumbprint(primary), thumbprint(secondary))
        }
        Authentication::CertificateAuthority | Authentication::None => (None, None),
    }
}

/// A column does not hold what we write there.
pub(super) fn damaged(owner: Owner, what: &'static str) -> RegistryError {
    RegistryError::Damaged { owner, what }
}

/// A number of ours in a column; there are none so large that SQLite has no room for them.
pub(super) fn column(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An identity's two columns.
pub(super) fn id(device: &str, module: &str) -> Result<DeviceIdentity> {
    let unreadable = || damaged(Owner::Unknown, "the id");
    let device = DeviceId::parse(device).map_err(|_| unreadable())?;
    let module = match module {
        "" => None,
        text => Some(ModuleId::parse(text).map_err(|_| unreadable())?),
    };
    Ok(DeviceIdentity { device, module })
}

/// A key's column.
pub(super) fn key(column: Option<String>) -> Option<SharedKey> {
    let text = Secret::new(column.unwrap_or_default());
    SharedKey::parse(text.expose()).ok()
}

/// A row that begins with [`super::identities::COLUMNS`].
pub(super) fn identity(row: &Row<'_>) -> Result<Identity> {
    let id = id(&row.get::<_, String>(0)?, &row.get::<_, String>(1)?)?;
    let damaged = |what| damaged(Owner::Identity(id.clone()), what);
    // A column of another type is as damaged as one with another content.
    let credential = |index| row.get(index).map_err(|_| damaged("a key"));
    let (primary, secondary) = (credential(8)?, credential(9)?);
    let key = |column| key(column).ok_or_else(|| damaged("a key"));
    let thumbprint = |column: Option<String>| {
        column
            .map(|text| Thumbprint::parse(&text).ok_or_else(|| damaged("a thumbprint")))
            .transpose()
    };
    let authentication = match row.get::<_, String>(7)?.as_str() {
        "sas" => Authentication::Sas {
            primary: key(primary)?,
            secondary: key(secondary)?,
        },
        "selfSigned" => Authentication::SelfSigned {
            primary: thumbprint(primary)?,
            secondary: thumbprint(secondary)?,
        },
        "certificateAuthority" => Authentication::CertificateAuthority,
        "none" => Authentication::None,
        _ => return Err(damaged("the kind of authentication")),
    };
    let parent_scopes =
        serde_json::from_str(&row.get::<_, String>(12)?).map_err(|_| damaged("parentScopes"))?;
    Ok(Identity {
        id,
        generation_id: row.get(2)?,
        etag: row.get(3)?,
        status: if row.get(4)? {
            Status::Enabled
        } else {
            Status::Disabled
        },
        status_reason: row.get(5)?,
        status_updated: row.get::<_, Option<i64>>(6)?.map(i64::unsigned_abs),
        authentication,
        iot_edge: row.get(10)?,
        device_scope: row.get(11)?,
        parent_scopes,
        managed_by: row.get(13)?,
        activity: Activity {
            connected: row.get(14)?,
            connection_state_updated: row.get::<_, Option<i64>>(15)?.map(i64::unsigned_abs),
            last_activity: row.get::<_, Option<i64>>(16)?.map(i64::unsigned_abs),
        },
        messages: row.get::<_, i64>(17)?.unsigned_abs(),
    })
}
