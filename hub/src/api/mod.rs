//! The REST API: one file for each part of it.

pub mod answer;
