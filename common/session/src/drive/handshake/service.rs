//! The service's side of the handshake: it waits for the greeting, and begins a session or resumes
//! one.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Duration;

use super::{Exchange, HandshakeError};
use crate::limits;
use crate::proto::frame::{Frame, Greeting};
use crate::proto::proof::{Challenge, Proof, Prover, ResumeSecret, SessionId, VERSION};

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Waits for the device's greeting, for `limit` at most.
    ///
    /// Not to be dropped before its end, as [`Exchange`] says.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn greeting(&mut self, limit: Duration) -> Result<Greeting, HandshakeError> {
        match self.next(limit).await? {
            Frame::Greeting(greeting) => {
                let Greeting {
                    lowest, highest, ..
                } = greeting;
                if (lowest..=highest).contains(&VERSION) {
                    Ok(greeting)
                } else {
                    Err(HandshakeError::Version { lowest, highest })
                }
            }
            Frame::Refused { code, text } => Err(HandshakeError::Refused { code, text }),
            _ => Err(HandshakeError::OutOfTurn),
        }
    }

    /// Begins a session; the session itself receives the answer.
    ///
    /// Not to be dropped before its end, as [`Exchange`] says.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn hello(
        &mut self,
        id: SessionId,
        secret: &ResumeSecret,
        grace: Duration,
    ) -> Result<(), HandshakeError> {
        let hello = Frame::Hello {
            version: VERSION,
            id,
            secret: secret.clone(),
            grace,
        };
        self.send(&hello).await
    }

    /// Resumes a session of which this end has received `received` bytes; returns how many the
    /// device has received. Takes at most [`limits::RESUME`] for each step.
    ///
    /// Not to be dropped before its end, as [`Exchange`] says.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn resume(
        &mut self,
        greeting: &Greeting,
        id: SessionId,
        secret: &ResumeSecret,
        received: u64,
    ) -> Result<u64, HandshakeError> {
        let challenge = Challenge::random();
        let asked = greeting.challenge;
        self.send(&Frame::Resume {
            version: VERSION,
            id,
            received,
            challenge,
            proof: Proof::new(Prover::Service, secret, id, asked, received),
        })
        .await?;
        match self.next(limits::RESUME).await? {
            Frame::Resumed { received, proof } => {
                if proof.holds(Prover::Device, secret, id, challenge, received) {
                    Ok(received)
                } else {
                    Err(HandshakeError::Proof)
                }
            }
            Frame::Refused { code, text } => Err(HandshakeError::Refused { code, text }),
            _ => Err(HandshakeError::OutOfTurn),
        }
    }
}
