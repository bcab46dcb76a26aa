//! stub
use super::answer::*; use crate::auth::Permission; use crate::registry::Registry; use common::identity::DeviceIdentity;
pub trait Connections: Send + Sync { fn is_connected(&self, id: &DeviceIdentity) -> bool; fn connected_devices(&self) -> u64; }
pub fn permission(_m: &http::Method, _s: &[&str]) -> Option<Permission> { None }
pub async fn route(_r: &dyn Registry, _p: &dyn Connections, _m: &http::Method, _s: &[&str], _q: &str, _h: &http::HeaderMap, _b: &[u8]) -> Option<Result<Answer, Refusal>> { None }
