//! Values of labels that have a type of their own.

/// Who was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A device, which wanted to open its session.
    Device,
    /// A service, which sent a request.
    Service,
    /// Who brought a leg of a stream.
    Leg,
}

impl Who {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Service => "service",
            Self::Leg => "leg",
        }
    }
}

/// A limit of the configuration of which no policy or device has a share of its own. Those that
/// have one are [`limits::Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Accepted streams that wait for their legs.
    Unjoined,
    /// Connections that have not shown who they are.
    Strangers,
    /// Refusals of one connection or address.
    Refusals,
    /// Connections at once.
    Connections,
}

impl Bound {
    pub(super) const ALL: [Self; 4] = [
        Self::Unjoined,
        Self::Strangers,
        Self::Refusals,
        Self::Connections,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unjoined => "unjoined",
            Self::Strangers => "strangers",
            Self::Refusals => "refusals",
            Self::Connections => "connections",
        }
    }
}
