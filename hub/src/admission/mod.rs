//! Who may hold a connection before it is known who they are, how much they may send, and what
//! a refusal costs them.

mod guarded;
mod refusals;
mod strangers;

pub use guarded::{Allowance, Beyond, Guarded};
pub use refusals::Verdict;
pub use strangers::{Place, Strangers};
