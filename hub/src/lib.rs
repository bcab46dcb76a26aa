//! The hub: registry, identity registry REST, TLS material and the command line.

pub mod api;
pub mod cli;
pub mod commands;
pub mod data_dir;
pub mod files;
pub mod pki;
pub mod registry;
