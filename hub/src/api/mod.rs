//! The REST API for services. [`router`] finds what a request wants, [`access`] judges who wants
//! it, [`handle()`] does it. No HTTP server inside: method, path, headers and body in, answer out.

pub mod access;
pub mod approvals;
pub mod bulk;
pub mod condition;
pub mod connections;
pub mod draft;
pub mod enrolments;
pub mod gate;
mod handle;
pub mod identities;
pub mod jobs;
pub mod login;
pub mod messages;
pub mod methods;
pub mod missing;
mod paging;
pub mod queries;
pub mod reachable;
pub mod router;
pub mod streams;
pub mod twins;

pub use handle::{Request, handle};
