//! The device's side of the handshake: it sends the greeting, and accepts or refuses what the service
//! requests then.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Duration;

use super::{Exchange, HandshakeError};
use crate::limits;
use crate::proto::boot_id::BootId;
use crate::proto::frame::{Code, Frame, Greeting};
use crate::proto::proof::{Challenge, Proof, Prover, ResumeSecret, SessionId, VERSION};

/// The service's request.
#[derive(Debug)]
pub enum SessionRequest {
    /// A new session.
    New {
        /// Its id.
        id: SessionId,
        /// Proves later that a resume is the service's.
        secret: ResumeSecret,
        /// How long the service keeps it while it is detached.
        grace: Duration,
    },
    /// To resume one.
    Resume(ResumeRequest),
}

/// The request to resume a session.
#[derive(Debug)]
pub struct ResumeRequest {
    /// Which.
    pub id: SessionId,
    /// Bytes that the service has received.
    pub received: u64,
    challenge: Challenge,
    proof: Proof,
    asked: Challenge,
}

impl ResumeRequest {
    /// Whether the sender knows the secret.
    pub fn is_proven(&self, secret: &ResumeSecret) -> bool {
        self.proof
            .holds(Prover::Service, secret, self.id, self.asked, self.received)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Sends the greeting, and waits for the service's request, for [`limits::RESUME`] at most.
    ///
    /// Not to be dropped before its end, as [`Exchange`] says.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn greet(&mut self, boot_id: BootId) -> Result<SessionRequest, HandshakeError> {
        let asked = Challenge::random();
        self.send(&Frame::Greeting(Greeting {
            lowest: VERSION,
            highest: VERSION,
            boot_id,
            challenge: asked,
        }))
        .await?;
        let (version, request) = match self.next(limits::RESUME).await? {
            Frame::Hello {
                version,
                id,
                secret,
                grace,
            } => (version, SessionRequest::New { id, secret, grace }),
            Frame::Resume {
                version,
                id,
                received,
                challenge,
                proof,
            } => (
                version,
                SessionRequest::Resume(ResumeRequest {
                    id,
                    received,
                    challenge,
                    proof,
                    asked,
                }),
            ),
            _ => return Err(HandshakeError::OutOfTurn),
        };
        if version != VERSION {
            self.refuse(Code::Version, "").await?;
            return Err(HandshakeError::Version {
                lowest: version,
                highest: version,
            });
        }
        Ok(request)
    }

    /// Accepts a new session.
    ///
    /// Not to be dropped before its end, as [`Exchange`] says.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn welcome(&mut self, grace: Duration) -> Result<(), HandshakeError> {
        self.send(&Frame::Welcome { grace }).await
    }

    /// Accepts a resume: this end has received `received` bytes, and accepts nothing more from an
    /// older carrier.
    ///
    /// Not to be dropped before its end, as [`Exchange`] says.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn resumed(
        &mut self,
        request: &ResumeRequest,
        secret: &ResumeSecret,
        received: u64,
    ) -> Result<(), HandshakeError> {
        let proof = Proof::new(
            Prover::Device,
            secret,
            request.id,
            request.challenge,
            received,
        );
        self.send(&Frame::Resumed { received, proof }).await
    }

    /// Refuses the service's request.
    ///
    /// Not to be dropped before its end, as [`Exchange`] says.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn refuse(&mut self, code: Code, text: &str) -> Result<(), HandshakeError> {
        let text = text.to_owned();
        self.send(&Frame::Refused { code, text }).await
    }
}
