//! Latencies, in buckets that are at most 3% wide: fixed memory, and a count is one addition.

/// Buckets for each power of two.
const STEPS: usize = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Enough for 2^40 ns, 18 minutes.
const BUCKETS: usize = STEPS * 40;

/// Counts of durations in nanoseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            max_ns: 0,
        }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, ns: u64) {
        self.counts[bucket(ns).min(BUCKETS - 1)] += 1;
        self.total += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The duration that this share (0 to 1) of all did not exceed, in milliseconds; 0 where nothing was counted.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                return upper(bucket).min(self.max_ns) as f64 / 1e6;
            }
        }
        0.0
    }

    /// The longest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.max_ns as f64 / 1e6
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() - STEP_BITS;
    (shift as usize + 1) * STEPS + ((ns >> shift) as usize - STEPS)
}

/// The largest duration of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    (((STEPS + bucket % STEPS + 1) as u64) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_durations() {
        for ns in (0..2_000).chain([1 << 20, (1 << 33) + 12_345]) {
            let bucket = bucket(ns);
            assert!(
                upper(bucket) >= ns && (bucket == 0 || upper(bucket - 1) < ns),
                "{ns}"
            );
        }
    }

    #[test]
    fn quantiles_are_within_three_percent() {
        let mut histogram = Histogram::default();
        for us in 1..=1_000 {
            histogram.add(us * 1_000);
        }
        assert!((histogram.quantile_ms(0.5) / 0.5 - 1.0).abs() < 0.04);
        assert!((histogram.quantile_ms(0.99) / 0.99 - 1.0).abs() < 0.04);
        assert!((histogram.max_ms() - 1.0).abs() < 1e-9);
    }
}
