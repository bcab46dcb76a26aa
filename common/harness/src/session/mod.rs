//! Session mode under events of any kind, in any order.
//!
//! ```text
//! choices       random decisions, from a seed or from a fuzzer's bytes
//! frames        both decoders, on any bytes in any pieces
//! simulation    both ends, their applications, and carriers that break
//! hostile       one end, and a peer that violates the protocol
//! ```

mod application;
mod choices;
mod frames;
mod hostile;
mod link;
mod simulation;

#[cfg(test)]
mod tests;

pub use choices::Choices;
pub use frames::frames;
pub use hostile::{hostile, perturbed};
pub use simulation::simulate;

/// Runs one of the simulations; `input` makes all decisions.
///
/// # Panics
/// When the session misbehaves.
pub fn machine(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let mut choices = Choices::from_bytes(rest);
    match kind % 3 {
        0 => simulate(&mut choices),
        1 => hostile(&mut choices),
        _ => perturbed(&mut choices),
    }
}
