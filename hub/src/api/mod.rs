//! The REST API: one file for each part of it.

pub mod answer;
pub mod bulk;
pub mod document;
pub mod identities;
