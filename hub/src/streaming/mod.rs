//! The streaming endpoint: one leg arrives at its URL, shows its token, meets the other, and the
//! first of the two runs the relay.

mod claim;
mod serve;
mod url;

pub use claim::{ClaimRefused, claim};
pub use serve::serve;
pub use url::{PATH, url};
