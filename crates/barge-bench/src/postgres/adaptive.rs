//! The adaptive cap on rows against fixed ones.

use std::time::Duration;

use super::Bench;
use crate::measure::Contest;

const SIZES: [usize; 7] = [10, 30, 100, 300, 1_000, 3_000, 10_000];
/// What a full flush may take: more than the largest fixed size needs, so that nothing but the growth of the cap is measured.
const TARGET: Duration = Duration::from_millis(200);
/// Batches of the small sizes, enough to tell their speed.
const SMALL_BATCHES: usize = 1_000;

pub(super) fn run(bench: &Bench) {
    let rows = bench.many;
    println!("\n### The adaptive cap (latency target {TARGET:?}) against fixed sizes, {rows} rows\n");
    let tasks = bench.rows(rows);
    let mut contest = Contest::new();
    contest.add("adaptive", || {
        bench.insert(&tasks, |database| database.writer().max_rows(10_000).latency_target(TARGET).start())
    });
    for size in SIZES {
        let tasks = &tasks[..rows.min(size * SMALL_BATCHES)];
        contest.add(format!("{size}"), move || {
            bench.insert(tasks, |database| database.writer().max_rows(size).start())
        });
    }
    contest.hold(bench.rounds).print(1);
}
