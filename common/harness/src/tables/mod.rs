//! Random histories of the hub's tables of legs and of pending requests, compared with a simple
//! model. Only public items of the hub are used.

mod legs;
mod pending;

use common::identity::{DeviceId, DeviceIdentity};

pub use legs::legs_table;
pub use pending::pending_table;

/// More steps find nothing new, and take longer.
const STEPS: usize = 200;

fn identity(number: u8) -> DeviceIdentity {
    let device = DeviceId::parse(&format!("d{}", number % 3)).expect("an id");
    DeviceIdentity::of_device(device)
}
