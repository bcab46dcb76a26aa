//! What SQLite reports, by what a person does about it.

use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::registry::store::Cause;
use crate::registry::{RegistryError, StoreError};

/// SQLite's own words. They name tables and columns, never the values in them, and say already
/// what their causes would: so this has none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Reported(rusqlite::Error);

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let cause: Cause = Arc::new(Reported(error));
        match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked(cause),
            Some(ErrorCode::DiskFull) => Self::DiskFull(cause),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged(cause),
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::Inaccessible(cause)
            }
            _ => Self::Other(cause),
        }
    }
}

impl From<rusqlite::Error> for RegistryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}
