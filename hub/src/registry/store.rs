//! Why the registry's store fails, by what a person does about it.

use std::error::Error;
use std::sync::Arc;

use crate::data_dir::DataDirError;

/// What the store itself reports. It is shared, as all who wait for one transaction get it.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why the registry's store failed. All of it is for the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The data folder does not have the database.
    #[error(transparent)]
    DataDir(Arc<DataDirError>),
    /// Another process is at work on it for too long.
    #[error("another process keeps the database locked; try again")]
    Locked(#[source] Cause),
    /// There is no room on the disk.
    #[error("the disk of the data folder is full; make room on it")]
    DiskFull(#[source] Cause),
    /// The file is no database, or not a whole one.
    #[error("the database file is damaged; restore it from a backup")]
    Damaged(#[source] Cause),
    /// The system does not let this process at it.
    #[error("the database cannot be opened or written; does the data folder belong to this user?")]
    Inaccessible(#[source] Cause),
    /// It has tables that this program does not know.
    #[error("a newer stream-hub made this database; use that one")]
    Newer,
    /// A query was broken off, by a mistake of ours or at the end of the process.
    #[error("a query did not finish")]
    QueryUnfinished,
    /// The same with a write of a device.
    #[error("a write did not finish")]
    WriteUnfinished,
    /// Anything else; nothing is known that a person could do.
    #[error(transparent)]
    Other(Cause),
}
