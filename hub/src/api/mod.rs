//! The REST API for services.

pub mod answer;
pub mod bulk;
pub mod document;
pub mod draft;
pub mod identities;
pub mod planned;
pub mod streams;
pub mod twins;

use common::wire::problem::ErrorCode;

use crate::registry::RegistryError;
use answer::Refusal;

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        let code = match &error {
            RegistryError::NotFound(id) if id.module.is_some() => ErrorCode::MODULE_NOT_FOUND,
            RegistryError::NotFound(_) => ErrorCode::DEVICE_NOT_FOUND,
            RegistryError::AlreadyExists(id) if id.module.is_some() => {
                ErrorCode::MODULE_ALREADY_EXISTS
            }
            RegistryError::AlreadyExists(_) => ErrorCode::DEVICE_ALREADY_EXISTS,
            RegistryError::PreconditionFailed(_) => ErrorCode::PRECONDITION_FAILED,
            RegistryError::TwinRule(rule) => rule.code(),
            RegistryError::Damaged { .. } => {
                tracing::error!("{error}");
                return Self::new(ErrorCode::SERVER_ERROR, error.to_string());
            }
            RegistryError::Scope(_) => ErrorCode::ARGUMENT_INVALID,
            RegistryError::Store(reason) => {
                // The reason is for the operator, not for the client.
                tracing::error!("the registry failed: {reason}");
                return Self::new(ErrorCode::SERVER_ERROR, "the registry failed");
            }
        };
        Self::new(code, error.to_string())
    }
}
