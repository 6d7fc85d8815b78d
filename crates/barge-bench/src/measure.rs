//! Alternating runs and their medians.

use std::time::{Duration, Instant};

/// What a comparison came to.
pub(crate) struct Comparison {
    /// Barge's median time.
    pub(crate) barge: Duration,
    /// The peer's median time.
    pub(crate) peer: Duration,
    /// The median of the rounds' ratios, peer time by Barge's: above 1, Barge is faster.
    pub(crate) ratio: f64,
}

/// Runs both in turn, once to warm up and then `rounds` times. Each gives the time that counts.
pub(crate) fn compare(
    rounds: usize,
    mut barge: impl FnMut() -> Duration,
    mut peer: impl FnMut() -> Duration,
) -> Comparison {
    barge();
    peer();
    let mut times: Vec<(Duration, Duration)> = Vec::new();
    for round in 0..rounds {
        // Who goes first alternates too.
        times.push(if round % 2 == 0 {
            let own = barge();
            (own, peer())
        } else {
            let other = peer();
            (barge(), other)
        });
    }
    Comparison {
        barge: median(times.iter().map(|(barge, _)| *barge)),
        peer: median(times.iter().map(|(_, peer)| *peer)),
        ratio: median(times.iter().map(|(barge, peer)| peer.as_secs_f64() / barge.as_secs_f64())),
    }
}

pub(crate) fn median<T: PartialOrd + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// Rows per second, readable: `1.72 M/s`, `310 k/s`.
pub(crate) fn rate(rows: usize, time: Duration) -> String {
    let rate = rows as f64 / time.as_secs_f64();
    match rate {
        1_000_000.0.. => format!("{:.2} M/s", rate / 1e6),
        10_000.0.. => format!("{:.0} k/s", rate / 1e3),
        _ => format!("{rate:.0} /s"),
    }
}
