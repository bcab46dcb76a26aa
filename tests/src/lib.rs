//! The harness of the tests in `tests/`: real sockets on loopback and free ports. A test starts a
//! [`TestHub`], creates devices on it, and connects a [`device::TestDevice`] and a
//! [`service::TestService`], or a [`RawDevice`] and a [`RawService`], which send what the real
//! programs never would. A [`SlowLink`] before the hub delays, freezes or resets connections. Tests
//! wait for conditions with [`wait`], whose deadline fails the test with a message. Everything
//! stops when it is dropped.

pub mod admin;
pub mod authority;
pub mod commands;
pub mod device;
pub mod echo;
pub mod fake_hub;
pub mod forward_proxy;
pub mod holdings;
pub mod hours;
pub mod hub;
pub mod jobs;
pub mod logs;
pub mod messages;
pub mod method_devices;
pub mod noise;
pub mod people;
pub mod program_hub;
pub mod programs;
pub mod provider;
pub mod raw_device;
pub mod raw_hub;
pub mod raw_service;
pub mod raw_session;
pub mod service;
pub mod session_setup;
pub mod slow_link;
pub mod target;
pub mod wait;

pub use authority::TestAuthority;
pub use device::TestDevice;
pub use fake_hub::FakeHub;
pub use forward_proxy::ForwardProxy;
pub use hub::TestHub;
pub use provider::TestProvider;
pub use raw_device::RawDevice;
pub use raw_hub::RawHub;
pub use raw_service::RawService;
pub use raw_session::RawSession;
pub use service::TestService;
pub use session_setup::SessionSetup;
pub use slow_link::SlowLink;
pub use target::Target;
pub use wait::{soon, wait};
