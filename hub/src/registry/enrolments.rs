//! Enrolment codes: what a code that was not redeemed yet is good for.

use async_trait::async_trait;
use common::identity::{DeviceId, DeviceIdentity};

use super::{Policy, RegistryError, Thumbprint};

/// Which codes are valid. Of a code only its digest is kept.
#[async_trait]
pub trait Enrolments: Send + Sync + 'static {
    /// Adds a code. Codes that have expired are removed. May be dropped: it is then added all the
    /// same.
    async fn add_enrolment(
        &self,
        digest: [u8; 32],
        enrolment: Enrolment,
        now: u64,
    ) -> Result<(), RegistryError>;

    /// Redeems a code for this claim, at most once: a device's also again for the same certificate,
    /// whose first answer may have been lost. `now` is in Unix seconds. May be dropped: it is then
    /// redeemed all the same.
    ///
    /// # Errors
    /// [`RegistryError::Enrolment`]; [`RegistryError::AlreadyExists`] when the code names no device
    /// and the claimed one exists. The code is then still valid.
    async fn redeem_enrolment(
        &self,
        digest: [u8; 32],
        claim: Claim,
        now: u64,
    ) -> Result<Redeemed, RegistryError>;

    /// Removes all codes, and says how many were valid at `now`, in Unix seconds.
    async fn revoke_enrolments(&self, now: u64) -> Result<u64, RegistryError>;
}

/// What a code is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Who may redeem it.
    pub of: EnrolmentOf,
    /// Until when, Unix seconds.
    pub expires: u64,
}

/// Who may redeem a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnrolmentOf {
    /// A device: this one, which gets a new certificate if it exists, or any that does not exist.
    Device(Option<DeviceId>),
    /// An operator, who gets the connection string of this shared access policy.
    Operator {
        /// The policy's name.
        policy: String,
    },
}

/// What comes with a code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The id that the device wants.
    pub device: Option<DeviceId>,
    /// The id that it takes if neither it nor the code names one.
    pub suggested: Option<DeviceId>,
    /// The certificate that it shows, whose key it has proven to hold.
    pub thumbprint: Option<Thumbprint>,
}

/// What a code was redeemed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// This device is registered with the claim's certificate.
    Device(DeviceIdentity),
    /// An operator gets this policy's key.
    Operator(Policy),
}

/// Why a code is not redeemed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// There is no such code; it is not said which of these holds.
    #[error("the code is unknown, was used or has expired")]
    Unknown,
    /// It is for a device, which has to show its certificate.
    #[error("the code is for a device; redeem it with `device-proxy enrol`")]
    ForDevice,
    /// It is for an operator.
    #[error("the code is for an operator; redeem it with `service-proxy login`")]
    ForOperator,
    /// It names no device, and neither does the claim.
    #[error("the code names no device; give its id")]
    NoDevice,
    /// It names another device.
    #[error("the code is for another device than {0}")]
    OtherDevice(DeviceId),
    /// The policy was removed.
    #[error("the code's shared access policy does not exist")]
    NoPolicy,
}
