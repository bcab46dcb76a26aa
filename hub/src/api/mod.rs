//! The REST API for services.

pub mod bulk;
pub mod condition;
pub mod connections;
pub mod draft;
pub mod identities;
pub mod planned;
pub mod streams;
pub mod twins;
