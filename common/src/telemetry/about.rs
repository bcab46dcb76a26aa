//! What a line of the log is about, under one name and in one format for each field: `device`,
//! `name`, `target`, `stream`, `session`, `connection`, `policy`, `person`, `peer`, `transport`.
//!
//! These are no spans of `tracing`: one around a stream's future is entered and left each time
//! that the future is polled, which is once for every few frames; its fields are printed before
//! the message, and what sums up repeated lines does not see them. Here they are fields of the
//! line itself, and cost nothing but when it is written.

use std::fmt;
use std::time::Duration;

use device_stream_session::{ConnectionId, SessionId};
use tracing::field::{DisplayValue, display};

use crate::identity::{DeviceIdentity, StreamId};

/// What can stand in a field.
type Text<'a> = &'a (dyn fmt::Display + Sync);

/// The fields that say what a line is about; those that are not known are not in the line. Given
/// to [`log_about!`](crate::log_about).
#[derive(Clone, Copy, Default)]
pub struct About<'a> {
    device: Option<Text<'a>>,
    name: Option<Text<'a>>,
    target: Option<Text<'a>>,
    stream: Option<StreamId>,
    session: Option<SessionId>,
    connection: Option<ConnectionId>,
    policy: Option<Text<'a>>,
    person: Option<Text<'a>>,
    peer: Option<Text<'a>>,
    transport: Option<Text<'a>>,
}

impl<'a> About<'a> {
    /// A connection from somewhere.
    pub fn connection_from(peer: Text<'a>) -> Self {
        Self::default().peer(peer)
    }

    /// A device or module.
    pub fn device(identity: &'a DeviceIdentity) -> Self {
        Self {
            device: Some(identity),
            ..Self::default()
        }
    }

    /// A stream of this name; its id is in the URLs of both legs ([`StreamId::of_url`]), and so in
    /// the logs of all three programs.
    pub fn stream(id: Option<&StreamId>, name: Text<'a>) -> Self {
        Self {
            stream: id.copied(),
            name: Some(name),
            ..Self::default()
        }
    }

    /// The device or module that it has to do with.
    #[must_use]
    pub fn of(mut self, identity: &'a DeviceIdentity) -> Self {
        self.device = Some(identity);
        self
    }

    /// What device-proxy dials.
    #[must_use]
    pub fn target(mut self, target: Text<'a>) -> Self {
        self.target = Some(target);
        self
    }

    /// The session that carries it, and its connection there, as far as there is one.
    #[must_use]
    pub fn within(
        mut self,
        session: Option<&SessionId>,
        connection: Option<&ConnectionId>,
    ) -> Self {
        self.session = session.copied();
        self.connection = connection.copied();
        self
    }

    /// The shared access policy of who has asked for it.
    #[must_use]
    pub fn policy(mut self, policy: Text<'a>) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Who it is by name.
    #[must_use]
    pub fn person(mut self, person: Text<'a>) -> Self {
        self.person = Some(person);
        self
    }

    /// The stream's name, or what else has one.
    #[must_use]
    pub fn name(mut self, name: Text<'a>) -> Self {
        self.name = Some(name);
        self
    }

    /// The address of who is at the other end, or has asked for it.
    #[must_use]
    pub fn peer(mut self, peer: Text<'a>) -> Self {
        self.peer = Some(peer);
        self
    }

    /// What carries it.
    #[must_use]
    pub fn transport(mut self, transport: Text<'a>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// The values of the fields, in the order of a line: for [`log_about!`](crate::log_about).
    #[doc(hidden)]
    pub fn values(&self) -> [Option<DisplayValue<Unquoted<'_>>>; 10] {
        [
            self.device,
            self.name,
            self.target,
            text(&self.stream),
            text(&self.session),
            text(&self.connection),
            self.policy,
            self.person,
            self.peer,
            self.transport,
        ]
        .map(|value| value.map(|text| display(Unquoted(text))))
    }
}

fn text<T: fmt::Display + Sync>(id: &Option<T>) -> Option<Text<'_>> {
    id.as_ref().map(|id| id as Text<'_>)
}

/// Text as it is; only what could be taken for more than one field is put in quotes, unless the
/// alternate form is asked for: that is for a value that stands alone.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Unquoted<'a>(pub(super) Text<'a>);

impl fmt::Display for Unquoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let is_one = |c: char| !c.is_whitespace() && c != '"';
        if f.alternate() || (!text.is_empty() && text.chars().all(is_one)) {
            f.write_str(&text)
        } else {
            write!(f, "{text:?}")
        }
    }
}

/// Writes a line of the log about something: the level, an [`About`], then fields and message as
/// in `tracing`'s macros. `audit` before the level gives it the name [`AUDIT`](super::AUDIT).
///
/// ```
/// use common::log_about;
/// use common::telemetry::About;
///
/// let about = About::connection_from(&"192.0.2.1:1883").transport(&"mqtt");
/// log_about!(audit info, about, packets = 7, "device disconnected: {}", "it has left");
/// ```
#[macro_export]
macro_rules! log_about {
    (audit $level:ident, $about:expr, $($rest:tt)+) => {
        $crate::log_about!(@ [name: $crate::telemetry::AUDIT,] $level, $about, $($rest)+)
    };
    ($level:ident, $about:expr, $($rest:tt)+) => {
        $crate::log_about!(@ [] $level, $about, $($rest)+)
    };
    (@ [$($name:tt)*] $level:ident, $about:expr, $($rest:tt)+) => {{
        let about: $crate::telemetry::About<'_> = $about;
        let [device, name, target, stream, session, connection, policy, person, peer, transport] =
            about.values();
        ::tracing::$level!(
            $($name)*
            device, name, target = target, stream, session, connection, policy, person, peer,
            transport,
            $($rest)+
        )
    }};
}

/// A time as the field `seconds`, with one decimal.
pub fn seconds(time: Duration) -> DisplayValue<impl fmt::Display> {
    display(Seconds(time))
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::DeviceId;

    fn written(about: &About<'_>) -> Vec<Option<String>> {
        let values = about.values().into_iter();
        values
            .map(|value| value.map(|value| value.to_string()))
            .collect()
    }

    #[test]
    fn seconds_have_one_decimal() {
        assert_eq!(seconds(Duration::from_millis(3_034)).to_string(), "3.0");
        assert_eq!(seconds(Duration::from_secs(86_400)).to_string(), "86400.0");
    }

    #[test]
    fn fields_have_one_order_and_no_quotes() {
        let device = DeviceIdentity::of_device(DeviceId::parse("a+b").unwrap());
        let id = StreamId::random();
        let about = About::stream(Some(&id), &"ssh").of(&device).policy(&"p=q");
        let about = about.person(&"ada@example.com");
        let id = id.to_string();
        let expected = [
            Some("a+b"),
            Some("ssh"),
            None,
            Some(&id),
            None,
            None,
            Some("p=q"),
            Some("ada@example.com"),
            None,
            None,
        ];
        let expected = expected.map(|value| value.map(str::to_owned));
        assert_eq!(written(&about), expected);
        let session = SessionId([7; 16]);
        let about = About::stream(None, &"ssh")
            .target(&"[::1]:22")
            .within(Some(&session), Some(&ConnectionId(1)))
            .peer(&"stdio");
        assert_eq!(
            written(&about.transport(&"mqtt")),
            [
                None,
                Some("ssh"),
                Some("[::1]:22"),
                None,
                Some(session.to_string().as_str()),
                Some("1"),
                None,
                None,
                Some("stdio"),
                Some("mqtt"),
            ]
            .map(|value| value.map(str::to_owned))
        );
    }

    #[test]
    fn nothing_in_a_field_reads_as_another_field() {
        for text in ["", "x stream=1", "a\"b", "a\tb"] {
            let about = About::connection_from(&text);
            assert_eq!(written(&about)[8], Some(format!("{text:?}")));
        }
    }
}
