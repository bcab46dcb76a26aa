//! Who may resume a session: ids, secrets and proofs (`docs/session-protocol.md`, "Handshake"). A
//! proof answers the other side's fresh challenge with the session's secret, so that an intercepted
//! proof is useless.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use device_stream_websocket::random;
use zeroize::Zeroizing;

/// The version of session mode that this code supports.
pub const VERSION: u8 = 1;

/// Prefix of a target's name in the name of a session's stream.
pub const STREAM_PREFIX: &str = "_session.";

/// The target that a session's stream is for; `None` for a plain stream's name.
pub fn target_of(stream_name: &str) -> Option<&str> {
    stream_name
        .strip_prefix(STREAM_PREFIX)
        .filter(|target| !target.is_empty())
}

/// Names a session: 128 random bits, chosen by the service.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// A fresh one.
    pub fn random() -> Self {
        Self(random::bytes())
    }
}

/// The first eight hex digits: enough to tell sessions apart in logs.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(4) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// 256 random bits that both ends of a session know; wiped when dropped, never shown.
#[derive(Clone)]
pub struct ResumeSecret(Zeroizing<[u8; 32]>);

impl PartialEq for ResumeSecret {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&*self.0, &*other.0).is_ok()
    }
}

impl Eq for ResumeSecret {}

impl ResumeSecret {
    /// A fresh one.
    pub fn random() -> Self {
        Self(Zeroizing::new(random::bytes()))
    }

    /// The secret of these 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ResumeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeSecret")
    }
}

/// 128 random bits that a proof answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge(pub [u8; 16]);

impl Challenge {
    /// A fresh one.
    pub fn random() -> Self {
        Self(random::bytes())
    }
}

/// HMAC-SHA-256 with the session's secret.
#[derive(Clone, Copy)]
pub struct Proof(pub [u8; 32]);

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Proof {}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof")
    }
}

/// Whose proof it is, so that a proof cannot be sent back to its author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prover {
    /// In a resume.
    Service,
    /// In its answer.
    Device,
}

impl Proof {
    /// Proves knowledge of `secret`: answers the other side's `challenge`, and authenticates the
    /// offset `received` that is reported with it.
    pub fn new(
        prover: Prover,
        secret: &ResumeSecret,
        id: SessionId,
        challenge: Challenge,
        received: u64,
    ) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        let tag = hmac::sign(&key, &message(prover, id, challenge, received));
        let mut proof = [0; 32];
        proof.copy_from_slice(tag.as_ref());
        Self(proof)
    }

    /// Whether this is that proof; in constant time.
    pub fn holds(
        &self,
        prover: Prover,
        secret: &ResumeSecret,
        id: SessionId,
        challenge: Challenge,
        received: u64,
    ) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        hmac::verify(&key, &message(prover, id, challenge, received), &self.0).is_ok()
    }
}

fn message(prover: Prover, id: SessionId, challenge: Challenge, received: u64) -> Vec<u8> {
    let label: &[u8] = match prover {
        Prover::Service => b"device-streams session 1 service",
        Prover::Device => b"device-streams session 1 device",
    };
    [label, &id.0, &challenge.0, &received.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_bound_to_all_of_its_inputs() {
        let (id, secret) = (SessionId::random(), ResumeSecret::random());
        let challenge = Challenge::random();
        let proof = Proof::new(Prover::Service, &secret, id, challenge, 7);
        assert!(proof.holds(Prover::Service, &secret, id, challenge, 7));
        assert!(!proof.holds(Prover::Device, &secret, id, challenge, 7));
        assert!(!proof.holds(Prover::Service, &secret, id, challenge, 8));
        assert!(!proof.holds(Prover::Service, &secret, id, Challenge::random(), 7));
        assert!(!proof.holds(Prover::Service, &secret, SessionId::random(), challenge, 7));
        let other = ResumeSecret::random();
        assert!(!proof.holds(Prover::Service, &other, id, challenge, 7));
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = ResumeSecret::from_bytes([0xAB; 32]);
        assert_eq!(format!("{secret:?}"), "ResumeSecret");
        assert_eq!(
            format!("{:?}", SessionId([0xAB; 16])),
            "SessionId(abababab)"
        );
    }

    #[test]
    fn names_of_streams() {
        assert_eq!(target_of("_session.ssh"), Some("ssh"));
        assert_eq!(target_of("_session."), None);
        assert_eq!(target_of("ssh"), None);
    }
}
