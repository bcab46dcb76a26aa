//! Reasons, as numbers on the wire and as text for people.

/// Defines an enum of reasons, each with its number and its text; unknown numbers are kept.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal: $words:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// One that this version does not know.
            Other(u8),
        }

        impl $name {
            /// Its number on the wire.
            pub fn to_u8(self) -> u8 {
                match self {
                    $(Self::$variant => $number,)*
                    Self::Other(number) => number,
                }
            }

            /// The reason of this number.
            pub fn from_u8(number: u8) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    number => Self::Other(number),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($words),)*
                    Self::Other(number) => write!(f, "reason {number}"),
                }
            }
        }
    };
}

codes!(
    /// Why a session ends early, or a request for one is refused.
    Code {
        /// The peer violated the protocol.
        Protocol = 1: "the session protocol was broken",
        /// No session has this id: it has ended, was evicted, or the program was restarted.
        Unknown = 2: "the session is not known there any more",
        /// The proof is wrong, or the session belongs to another target.
        Foreign = 3: "the session is another's",
        /// None of the offered versions is supported here.
        Version = 4: "the versions of session mode do not match",
        /// Too many sessions.
        Limit = 5: "there are too many sessions",
        /// The program stops.
        Stopping = 6: "the program there stops",
        /// The session was detached for longer than its grace.
        Expired = 7: "the session was without a stream for too long",
        /// The session was evicted to make room for others.
        Evicted = 8: "the session made room for others",
        /// Another carrier has taken over.
        Superseded = 9: "another stream took over",
        /// The device no longer offers the target.
        Withdrawn = 10: "the device does not offer this target any more",
    }
);

codes!(
    /// Why the device does not open a connection.
    RefusedCode {
        /// The target refuses connections: nothing listens there.
        TargetRefused = 1: "nothing listens at the target",
        /// The target does not answer.
        TimedOut = 2: "the target does not answer",
        /// Too many connections.
        Limit = 3: "the device has too many connections open",
        /// The target is withdrawn, or the device-proxy stops.
        Withdrawn = 4: "the device does not offer this target any more",
        /// The target cannot be reached for another reason.
        Unreachable = 5: "the target cannot be reached",
        /// A rule of the device forbids it: hours, an approval, or an address.
        Denied = 6: "the device does not allow it",
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_round_trips() {
        for number in 0..=255 {
            assert_eq!(Code::from_u8(number).to_u8(), number);
            assert_eq!(RefusedCode::from_u8(number).to_u8(), number);
        }
        assert_eq!(Code::from_u8(9), Code::Superseded);
        assert_eq!(RefusedCode::from_u8(200).to_string(), "reason 200");
    }
}
