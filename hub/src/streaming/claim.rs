//! Which leg may come: its token names its stream and itself, and works once.

use common::identity::{Leg, StreamId};

use crate::legs::LegPlace;
use crate::state::{HubState, LegSocket};

/// Why a leg may not come. The peer does not learn which reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream token is not valid here, was used before, or the stream is over")]
pub struct ClaimRefused;

/// Gives a leg its place; from here on its token is used up. `bearer` is the header
/// `Authorization`.
///
/// # Errors
/// [`ClaimRefused`]; nothing has changed then.
pub fn claim(
    state: &HubState,
    bearer: Option<&str>,
    stream: StreamId,
    leg: Leg,
) -> Result<LegPlace<LegSocket>, ClaimRefused> {
    state
        .tokens
        .check(bearer, stream, leg)
        .map_err(|_| ClaimRefused)?;
    state.legs.claim(stream, leg).map_err(|_| ClaimRefused)
}
