//! The invariants of the log and its subscriptions, held against random scripts.
//!
//! A failure prints the shortest script that still fails and the seed of the run. `PROPTEST_RNG_SEED=… cargo test -p
//! tidewire-core --test invariants` runs it again; `PROPTEST_CASES` sets how many scripts are tried.

mod support;

use std::hash::{BuildHasher, RandomState};

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use support::script::{Script, script};
use support::world::World;

/// Runs a script to its end, then lets all be quiet and looks whether anything is left.
fn run(script: &Script) -> Result<(), TestCaseError> {
    let mut world = World::new(script.retention.clone());
    for (step, op) in script.ops.iter().enumerate() {
        world
            .step(op)
            .map_err(|broken| TestCaseError::fail(format!("step {step}: {broken}")))?;
    }
    world
        .finish()
        .map_err(|broken| TestCaseError::fail(format!("at the end: {broken}")))
}

fn hold(cases: u32, ops_max: usize) {
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 20_000,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(RandomState::new().hash_one(0));
    }
    let seed = config.rng_seed;
    println!("PROPTEST_RNG_SEED={seed} PROPTEST_CASES={}", config.cases);
    let outcome = TestRunner::new(config).run(&script(ops_max), |script| run(&script));
    if let Err(failure) = outcome {
        panic!("{failure}\nto run it again: PROPTEST_RNG_SEED={seed}");
    }
}

#[test]
fn every_client_gets_what_it_must_in_short_scripts() {
    hold(20_000, 40);
}

#[test]
fn every_client_gets_what_it_must_in_long_scripts() {
    hold(8_000, 400);
}
