//! A self-hosted hub, wire-compatible with IoT Hub's device streams: it knows which
//! devices exist and which are here, brings the two legs of a stream together, and
//! relays bytes that it never looks at.
//!
//! ```text
//! server ─► listeners ─┬─► device_session ───► presence (be here) · pending (answer)
//!                      ├─► api ─► initiation ─► presence, pending (ask) · legs (expect)
//!                      └─► streaming ────────► legs (meet) · relay
//! jobs ─► registry, invocation
//! all of them ─► state (the shared handles) ─► auth ─► registry
//! ```
//!
//! Nothing points back: the layers stand in `docs/architecture.md`, and `scripts/arrows` keeps
//! them.

pub mod access;
pub mod activity;
pub mod admission;
pub mod answer;
pub mod api;
pub mod approvals;
pub mod auth;
pub mod cli;
pub mod commands;
pub mod config;
pub mod data_dir;
pub mod device_session;
pub mod documents;
pub mod events;
mod follow;
mod inherited;
pub mod initiation;
pub mod invocation;
pub mod iso8601;
pub mod jobs;
pub mod legs;
pub mod limits;
pub mod listen;
pub mod listeners;
pub mod local_login;
pub mod noted;
mod observed;
pub mod oidc;
pub mod pending;
pub mod presence;
pub mod query;
pub mod quotas;
pub mod refusal;
pub mod registry;
pub mod relay;
pub mod revocation;
pub mod schedule;
pub mod server;
pub mod state;
pub mod streaming;
pub mod telemetry;
pub mod tls;
pub mod usage;

pub use follow::Followed;
