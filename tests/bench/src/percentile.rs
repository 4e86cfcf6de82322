//! Exact percentiles of a sorted list: a run has at most some millions of samples.

use serde::Serialize;

/// Two percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Latency {
    /// Returns the percentiles of `nanos`, or `None` when there are no samples.
    pub(crate) fn of(mut nanos: Vec<u64>) -> Option<Self> {
        nanos.sort_unstable();
        let milliseconds = |percent| nearest_rank(&nanos, percent).map(|nanos| nanos as f64 / 1e6);
        Some(Self { p50_ms: milliseconds(50)?, p99_ms: milliseconds(99)? })
    }
}

/// Returns the smallest sample such that `percent` of all are not larger; `sorted` is ascending.
fn nearest_rank(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(nearest_rank(&hundred, 50), Some(50));
        assert_eq!(nearest_rank(&hundred, 99), Some(99));
        assert_eq!(nearest_rank(&hundred, 100), Some(100));
        assert_eq!(nearest_rank(&[1, 2, 3], 50), Some(2));
        assert_eq!(nearest_rank(&[5], 0), Some(5));
        assert_eq!(nearest_rank(&[], 50), None);
    }

    #[test]
    fn sorts_and_converts() {
        let latency = Latency::of(vec![3_000_000, 1_000_000, 2_000_000]).unwrap();
        assert_eq!(latency, Latency { p50_ms: 2.0, p99_ms: 3.0 });
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
