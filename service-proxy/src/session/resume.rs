//! One attempt to go on with a session over a new stream.

use common::identity::{DeviceIdentity, StreamId, StreamName};
use common::session::frame::Greeting;
use common::session::handshake::{Exchange, HandshakeError};
use common::session::proof::ResumeSecret;
use common::session::{AttachError, SharedSession};
use common::verdict::Verdict;
use common::wire::initiation::Timeouts;
use tokio::time::{Duration, Instant};

use super::Shared;
use super::begin::Carrier;
use crate::limits;
use crate::stream::StreamFailure;

/// Time limits of the requests that open a session again: what is lost in a half-dead
/// hub session of the device costs seconds.
const AGAIN: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    response: Duration::from_secs(5),
};

/// Why a session does not go on over a new stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResumeError {
    /// The stream could not be opened.
    #[error(transparent)]
    Stream(StreamFailure),
    /// The device may not connect: its operator may have seen to that.
    #[error("the device {0} is disabled at the hub; once it is enabled again, connect anew")]
    Disabled(DeviceIdentity),
    /// The device has not greeted.
    #[error(transparent)]
    Greeting(HandshakeError),
    /// The session was with another run of the device's program.
    #[error("the device-proxy was started anew")]
    OtherBoot,
    /// The device does not go on with it.
    #[error(transparent)]
    Refused(HandshakeError),
    /// Our end does not.
    #[error(transparent)]
    Attach(AttachError),
}

impl ResumeError {
    /// What can cure it.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Stream(failure) => failure.verdict(),
            Self::Disabled(_) => Verdict::AskPerson,
            Self::Greeting(HandshakeError::Version { .. })
            | Self::OtherBoot
            | Self::Refused(HandshakeError::Refused { .. } | HandshakeError::Proof) => {
                Verdict::Never
            }
            Self::Greeting(_) | Self::Refused(_) | Self::Attach(_) => Verdict::Retry,
        }
    }

    /// Whether the device does not take the stream.
    pub(super) fn is_reject(&self) -> bool {
        matches!(self, Self::Stream(failure) if failure.is_reject())
    }
}

/// An attempt that failed.
pub(super) struct Failed {
    /// The stream, if it had an id already.
    pub(super) stream: Option<StreamId>,
    pub(super) error: ResumeError,
}

/// What a resume has to prove and to agree with.
pub(super) struct Resume<'a> {
    pub(super) shared: &'a Shared,
    /// What the target's carriers are called.
    pub(super) stream_name: StreamName,
    pub(super) live: SharedSession,
    pub(super) secret: ResumeSecret,
    /// Of the first stream: a resume is for the same run of the device's program.
    pub(super) greeting: Greeting,
}

impl Resume<'_> {
    /// Opens a stream, and asks the device to go on with the session over it, which was `lost`
    /// then. Ends by itself; dropping the future gives the stream up.
    pub(super) async fn attempt(&self, lost: Instant) -> Result<Carrier, Failed> {
        let Shared {
            opener, identity, ..
        } = self.shared;
        let opening = opener.open_within(identity, &self.stream_name, AGAIN);
        let mut stream = match opening.await {
            Ok(stream) => stream,
            Err(error) => {
                // It will not come back by itself.
                let is_disabled = error.failure.is_offline() && self.is_disabled(lost).await;
                return Err(Failed {
                    stream: error.stream,
                    error: if is_disabled {
                        ResumeError::Disabled(identity.clone())
                    } else {
                        ResumeError::Stream(*error.failure)
                    },
                });
            }
        };
        stream.leg.get_mut().get_mut().steady();
        let failed = |error| Failed {
            stream: stream.id,
            error,
        };
        let mut exchange = Exchange::new(stream.leg);
        // It is known to speak session mode, and may be at the end of a bad path.
        let greeting = exchange
            .greeting(limits::SESSION_RESUME)
            .await
            .map_err(|error| failed(ResumeError::Greeting(error)))?;
        if greeting.boot_id != self.greeting.boot_id {
            exchange.close().await;
            return Err(failed(ResumeError::OtherBoot));
        }
        let frozen = self.live.freeze();
        let received = exchange
            .resume(&greeting, self.live.id(), &self.secret, frozen.received)
            .await
            .map_err(|error| failed(ResumeError::Refused(error)))?;
        let carrier = self
            .live
            .attach(&frozen, received)
            .map_err(|error| failed(ResumeError::Attach(error)))?;
        let (leg, already_read) = exchange.into_parts();
        Ok(Carrier {
            id: carrier,
            stream: stream.id,
            leg,
            already_read,
        })
    }

    async fn is_disabled(&self, lost: Instant) -> bool {
        let Shared {
            support,
            opener,
            identity,
            ..
        } = self.shared;
        support
            .is_disabled(opener.api(), identity, lost.elapsed())
            .await
    }
}
