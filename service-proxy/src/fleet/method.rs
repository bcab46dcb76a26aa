//! `method`: one direct method of one device.

use common::identity::DeviceIdentity;
use serde_json::Value;

use super::print::Printer;
use super::{Fleet, FleetError};
use crate::cli::MethodArgs;
use crate::config::MethodLimits;
use crate::hub_api::MethodCall;

/// The first status that is no success.
const NO_SUCCESS: i64 = 300;

impl Fleet {
    pub(super) async fn method(
        &self,
        identity: &DeviceIdentity,
        method: MethodArgs,
        limits: MethodLimits,
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        let call = prepare(method, limits).await?;
        let failed = self.failed(format!("call method {} of {identity}", call.name));
        let result = self.api.invoke_method(identity, &call).await;
        let result = result.map_err(failed)?;
        out.json(&result.payload).await?;
        if result.status >= NO_SUCCESS {
            return Err(FleetError::MethodStatus {
                method: call.name,
                identity: identity.clone(),
                status: result.status,
            });
        }
        Ok(())
    }
}

/// Reads the payload.
pub(super) async fn prepare(
    method: MethodArgs,
    limits: MethodLimits,
) -> Result<MethodCall, FleetError> {
    let payload = match method.payload {
        Some(payload) => payload.read().await?,
        None => Value::Null,
    };
    Ok(MethodCall {
        name: method.name,
        payload,
        connect: limits.connect,
        response: method.timeout.unwrap_or(limits.response),
    })
}
