//! What is opened towards a hub.

mod exchange;
mod leg;

pub use exchange::{ExchangeError, exchange};
pub use leg::{ConnectError, Endpoint, connect, connect_mqtt, connect_over};
