//! The harness of the stories in `tests/`: real sockets on loopback, free ports, no
//! sleeping.
//!
//! A story starts a [`TestHub`], gives it devices, and lets a [`device::TestDevice`]
//! and a [`service::TestService`] meet; or a [`RawDevice`] and a [`RawService`], which
//! say what ours never would. A [`SlowLink`] before the hub is late, silent or gone
//! when a story wants it so. Whatever must come true is awaited with [`wait`], whose
//! deadline fails the story with a message. Everything ends when it is dropped.

pub mod device;
pub mod holdings;
pub mod hub;
pub mod logs;
pub mod noise;
pub mod program_hub;
pub mod programs;
pub mod raw_device;
pub mod raw_hub;
pub mod raw_service;
pub mod raw_session;
pub mod service;
pub mod session_story;
pub mod slow_link;
pub mod target;
pub mod wait;

pub use device::TestDevice;
pub use hub::TestHub;
pub use raw_device::RawDevice;
pub use raw_hub::RawHub;
pub use raw_service::RawService;
pub use raw_session::RawSession;
pub use service::TestService;
pub use session_story::SessionStory;
pub use slow_link::SlowLink;
pub use target::Target;
pub use wait::{soon, wait};
