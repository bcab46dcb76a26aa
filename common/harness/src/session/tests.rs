use proptest::prelude::*;

use super::*;

/// Prints the seed of a simulation that fails.
struct Announced(u64);

impl Drop for Announced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SESSION_SEED={} repeats this", self.0);
        }
    }
}

/// Runs simulations from random seeds: `SESSION_SEED` gives the only seed, `SESSION_CASES` the
/// number of runs.
fn simulations(cases: u32, simulation: fn(&mut Choices<'_>)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let play = |seed: u64| {
        let _announced = Announced(seed);
        simulation(&mut Choices::from_seed(seed));
    };
    if let Some(seed) = number("SESSION_SEED") {
        return play(seed);
    }
    let config = ProptestConfig {
        cases: number("SESSION_CASES").map_or(cases, |cases| cases as u32),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(seed in any::<u64>().no_shrink())| play(seed));
}

#[test]
fn two_ends_deliver_everything_over_bad_carriers() {
    simulations(300, simulate);
}

#[test]
fn a_hostile_peer_can_do_no_more_than_end_the_session() {
    simulations(300, hostile);
}

#[test]
fn corrupted_messages_can_do_no_more_than_end_the_session() {
    simulations(300, perturbed);
}

#[test]
fn the_corpus_of_the_fuzz_targets() {
    crate::corpus::play("session_frames", frames);
    crate::corpus::play("session_machine", machine);
}
