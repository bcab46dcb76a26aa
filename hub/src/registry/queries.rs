//! Twins read in great number, for queries: of each only what a query asks for, and of many none
//! at all, where an index tells that.

use std::ops::ControlFlow;

use async_trait::async_trait;
use common::identity::DeviceIdentity;
use serde_json::Value;

use super::{DeviceTwin, Members, RegistryError};
use crate::query::{Fields, Narrowing};

/// Reading for queries.
#[async_trait]
pub trait TwinQueries: Send + Sync + 'static {
    /// Carries out `work` on one moment of the registry, on a thread where it may block. Other
    /// calls do not wait for it, but for a few others of this kind. Dropped, work that has begun
    /// goes on to its end.
    ///
    /// # Errors
    /// [`RegistryError::Busy`] when too many others are at work for too long, and those of `work`.
    async fn query_twins(&self, work: QueryWork) -> Result<(), RegistryError>;
}

/// What a query does with a moment of the registry.
pub type QueryWork =
    Box<dyn FnOnce(&mut dyn TwinSnapshot) -> Result<(), RegistryError> + Send + 'static>;

/// The twins of one moment.
pub trait TwinSnapshot {
    /// Shows twins in the order of their ids until `visit` breaks. One that is damaged is left
    /// out, and the log names it once.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    fn scan(
        &mut self,
        scan: &Scan<'_>,
        visit: &mut dyn FnMut(DeviceTwin) -> ControlFlow<()>,
    ) -> Result<(), RegistryError>;

    /// One twin, with these fields; `None` when there is no such identity.
    ///
    /// # Errors
    /// [`RegistryError::Store`], or [`RegistryError::Damaged`].
    fn find(
        &mut self,
        id: &DeviceIdentity,
        fields: &Fields,
    ) -> Result<Option<DeviceTwin>, RegistryError>;
}

/// Which twins are read, and what of each.
#[derive(Debug)]
pub struct Scan<'a> {
    /// Devices or modules.
    pub members: Members,
    /// Others than these may be left out.
    pub narrowing: &'a Narrowing,
    /// Only those behind this one.
    pub after: Option<&'a DeviceIdentity>,
    /// The fields of a twin's document that are needed; everything else in what is read is empty
    /// or some default.
    pub fields: &'a Fields,
}

/// What jobs did, as rows of `devices.jobs`.
#[async_trait]
pub trait JobRows: Send + Sync + 'static {
    /// The rows behind one, or from the first one, in the order of their keys: at most `limit`,
    /// and none only at the end. `narrowing` tells which others may be left out: it is about
    /// `jobId` or `deviceId`, or [`Narrowing::All`]. May be dropped.
    ///
    /// # Errors
    /// [`RegistryError::Store`].
    async fn job_rows(
        &self,
        narrowing: &Narrowing,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<JobRow>, RegistryError>;
}

/// What a job did to one device.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Tells it from all others, and does not change: at most 512 bytes.
    pub key: String,
    /// The row as services read it.
    pub document: Value,
}
