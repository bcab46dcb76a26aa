//! `endpoints`: where streams are opened, as IoT Hub's documentation shows it.

use serde_json::json;

use super::{CommandError, Session};

pub(super) fn run(session: &mut Session<'_>) -> Result<(), CommandError> {
    session.warn_of_default_address();
    let endpoint = format!("https://{}", session.address);
    session.line(&json!({ "streamingEndpoints": [endpoint] }).to_string())
}
