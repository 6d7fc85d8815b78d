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

/// Several that do the same, run in turn.
pub(crate) struct Contest<'a> {
    contenders: Vec<(String, Box<dyn FnMut() -> Run + 'a>)>,
}

/// What one run of a contender did.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) rows: usize,
    /// The time that counts.
    pub(crate) time: Duration,
}

impl<'a> Contest<'a> {
    pub(crate) fn new() -> Self {
        Contest { contenders: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, run: impl FnMut() -> Run + 'a) {
        self.contenders.push((name.into(), Box::new(run)));
    }

    /// Runs everyone once to warm up and then `rounds` times, each time beginning with another.
    pub(crate) fn hold(mut self, rounds: usize) -> Results {
        let count = self.contenders.len();
        let mut row_times = vec![Vec::new(); count];
        for round in 0..=rounds {
            for place in 0..count {
                let place = (place + round) % count;
                let (_, run) = &mut self.contenders[place];
                let Run { rows, time } = run();
                if round > 0 {
                    row_times[place].push(time.as_secs_f64() / rows as f64);
                }
            }
        }
        Results { names: self.contenders.into_iter().map(|(name, _)| name).collect(), row_times }
    }
}

/// What a contest came to: for each contender, by place, the seconds a row of each round.
pub(crate) struct Results {
    names: Vec<String>,
    row_times: Vec<Vec<f64>>,
}

impl Results {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The median of a contender's speed, readable.
    pub(crate) fn rate(&self, place: usize) -> String {
        rate(1, Duration::from_secs_f64(median(self.row_times[place].iter().copied())))
    }

    /// How many times as fast one is as another: the median of the rounds' ratios.
    pub(crate) fn ratio(&self, one: usize, other: usize) -> f64 {
        median(self.row_times[other].iter().zip(&self.row_times[one]).map(|(other, one)| other / one))
    }

    /// A Markdown table: everyone's speed, and how many times as fast the first `own` contenders are as each of the others.
    pub(crate) fn print(&self, own: usize) {
        let names: Vec<&str> = self.names().collect();
        let against: String = names[..own].iter().map(|name| format!(" {name} against it |")).collect();
        println!("| | rows/s |{against}\n|---|---|{}", "---|".repeat(own));
        for (place, name) in names.iter().enumerate() {
            let ratios: String = (0..own)
                .map(|own| match own == place {
                    true => " |".to_owned(),
                    false => format!(" **{:.2}** |", self.ratio(own, place)),
                })
                .collect();
            println!("| {name} | {} |{ratios}", self.rate(place));
        }
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
