use proptest::prelude::*;

use super::*;

/// Names the seed of a story that fails.
struct Announced(u64);

impl Drop for Announced {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SESSION_SEED={} replays this", self.0);
        }
    }
}

/// Plays stories of any seed: `SESSION_SEED` names the only one, `SESSION_CASES` says how
/// many.
fn stories(cases: u32, story: fn(&mut Choices<'_>)) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let play = |seed: u64| {
        let _announced = Announced(seed);
        story(&mut Choices::from_seed(seed));
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
fn two_ends_keep_their_promises_over_bad_carriers() {
    stories(300, simulate);
}

#[test]
fn a_hostile_peer_can_do_no_more_than_end_the_session() {
    stories(300, hostile);
}

#[test]
fn perturbed_words_can_do_no_more_than_end_the_session() {
    stories(300, perturbed);
}

/// What the fuzzers found worth keeping is played in every run of the tests.
#[test]
fn the_corpus_of_the_fuzz_targets() {
    crate::corpus::play("session_frames", frames);
    crate::corpus::play("session_machine", machine);
}
