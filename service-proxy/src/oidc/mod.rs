//! Logging in by name: the hub says who the organisation's identity provider is, the provider asks
//! the person in a browser (the device flow, RFC 8628), and the hub gives a SAS token for what the
//! provider says (`docs/protocol.md`, "Operators by name"). What renews the token without the person
//! is kept in a file beside it.

mod error;
mod http;
mod hub;
mod kept;
mod provider;
mod renew;
mod turn;

pub use self::error::{HubRefusal, LoginError, NotRenewed};
pub use self::hub::{Issued, Parameters, exchange, parameters};
pub use self::kept::{Kept, file_of};
pub use self::provider::{Identity, Provider, Renewed};
pub use self::renew::renew;
pub use self::turn::{finish, store_again};
