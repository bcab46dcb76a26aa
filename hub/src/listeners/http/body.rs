//! The body of a request.

use bytes::{Bytes, BytesMut};
use common::wire::problem::ErrorCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::limits::Limits;
use crate::refusal::Refusal;

/// Reads it to its end, within the limits of its size and time.
pub(super) async fn read_body(body: &mut Incoming, limits: &Limits) -> Result<Bytes, Refusal> {
    let mut whole = BytesMut::new();
    let mut is_too_large = false;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| ())?.into_data() else {
                continue;
            };
            is_too_large |= whole.len() + data.len() > limits.body;
            // A client that is still sending would not see the answer: what is too much
            // is read, for a while, and dropped.
            if is_too_large {
                whole.clear();
            } else {
                whole.extend_from_slice(&data);
            }
        }
        Ok::<(), ()>(())
    };
    let read = timeout(limits.body_time, reading).await;
    if is_too_large {
        return Err(Refusal::new(
            ErrorCode::MESSAGE_TOO_LARGE,
            format!("the body is larger than {} bytes", limits.body),
        ));
    }
    match read {
        Ok(Ok(())) => Ok(whole.freeze()),
        _ => Err(Refusal::new(
            ErrorCode::FORMAT_ERROR,
            "the body did not come",
        )),
    }
}
