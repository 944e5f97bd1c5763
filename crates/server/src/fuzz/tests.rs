//! The targets in short: on their corpus, on what once failed, and on random changes of both.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{TARGETS, Target};

/// Random inputs of each target. A seed of them that fails is printed with the input.
const RUNS_MAX: usize = 50_000;
/// A slow machine tries fewer.
const TIME_MAX: Duration = Duration::from_secs(1);
const SEED: u64 = 20_261_125;
const INPUT_BYTES_MAX: usize = 1_024;

/// What is kept in `fuzz/` for a target.
fn inputs(folder: &str, target: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let Ok(entries) = fs::read_dir(path.join(folder).join(target)) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn run(name: &str, target: Target, input: &[u8]) {
    let stands = catch_unwind(|| target(input)).is_ok();
    assert!(stands, "`{name}` fails on b\"{}\"", input.escape_ascii());
}

/// One of the inputs with a few changes: bytes, cuts, and parts of another one.
fn changed(random: &mut fastrand::Rng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut input = inputs[random.usize(..inputs.len())].clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=input.len());
        match random.u8(..6) {
            0 => input.insert(at, random.u8(..)),
            1 => input.insert(at, random.choice(*b"\r\n\0\":*/.{}[],%=&;- ").unwrap()),
            2 => input.truncate(at),
            3 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            4 if at < input.len() => drop(input.remove(at)),
            _ => {
                let other = &inputs[random.usize(..inputs.len())];
                let (from, to) = (random.usize(..=other.len()), random.usize(..=other.len()));
                input.splice(at..at, other[from.min(to)..from.max(to)].iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

#[test]
fn every_target_stands_its_corpus_and_random_changes_of_it() {
    for &(name, target) in TARGETS {
        let mut inputs = inputs("corpus", name);
        assert!(!inputs.is_empty(), "`{name}` has a corpus");
        inputs.extend(self::inputs("regressions", name));
        for input in &inputs {
            run(name, target, input);
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        let began = Instant::now();
        let mut runs = 0;
        while runs < RUNS_MAX && began.elapsed() < TIME_MAX {
            run(name, target, &changed(&mut random, &inputs));
            runs += 1;
        }
        println!("{name}: {} inputs, {runs} random ones", inputs.len());
    }
}
