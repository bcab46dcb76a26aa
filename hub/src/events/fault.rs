//! What the hub could not do, by a mistake of its own or for want of what the machine should give.

use std::time::Duration;

use super::Reason;

/// Something that failed, and that an operator should look at.
#[derive(Clone, Copy)]
pub enum Fault<'a> {
    /// A connection could not be accepted; the listener goes on after a while.
    NotAccepted {
        /// How long it waits.
        delay: Duration,
        /// Why not.
        reason: Reason<'a>,
    },
    /// The pattern of a path contradicts another one: what it names cannot be reached.
    Pattern {
        /// Which.
        pattern: &'a str,
        /// How it contradicts.
        reason: Reason<'a>,
    },
    /// What the hub has for a device has no form in MQTT: it is not sent.
    NotInMqtt(Reason<'a>),
    /// The registry could not do its part of a request.
    Registry(Reason<'a>),
    /// What a request is about is damaged in the registry.
    Damaged(Reason<'a>),
    /// Lists leave out what is damaged; this comes once for each.
    LeftOut(Reason<'a>),
    /// The registry cannot be asked what has changed; it is asked again.
    ChangesNotFollowed(Reason<'a>),
    /// Jobs cannot go on; they are tried again.
    JobsNotRun(Reason<'a>),
    /// When devices were connected is not in the registry.
    ActivityNotStored {
        /// Why not.
        reason: Reason<'a>,
        /// Whether the hub tries again; else it stops, and it is lost.
        is_retried: bool,
    },
    /// What devices have written last is not in the registry at the hub's end.
    WritesNotStored,
}
