//! The writer alone: one task inserts rows into the buffers, and a store that keeps nothing takes the batches.

use std::hint::black_box;

use barge::{Database, Record};
use barge_testkit::NullStore;

use crate::measure::{median, rate, timed};
use crate::rows::{Task, tasks};

const ROWS: usize = 1_000_000;

pub(crate) fn run(rounds: usize) {
    println!("\n### The writer's own cost\n");
    println!("Typed inserts of the six-column task row into the buffers, one core, no store.\n");
    println!("| row | rows/s |\n|---|---|");
    // One thread, so that the flusher's share is counted too.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rows = tasks(10_000, false);
    let one_run = |owned: bool| {
        runtime.block_on(async {
            let writer = Database::new(NullStore::new([Task::table()])).writer().start();
            let started = std::time::Instant::now();
            for _ in 0..ROWS / rows.len() {
                for task in &rows {
                    let receipt = if owned {
                        // What an application does that makes its rows as it goes: the strings are part of the cost.
                        writer.insert(&black_box(task.clone())).await
                    } else {
                        writer.insert(&task.borrowed()).await
                    };
                    drop(receipt.unwrap());
                }
            }
            let statistics = writer.close().await.unwrap().into_result().unwrap();
            assert_eq!(statistics.committed, ROWS as u64);
            started.elapsed()
        })
    };
    let borrowed = median((0..rounds).map(|_| one_run(false)));
    let owned = median((0..rounds).map(|_| one_run(true)));
    let bare = median((0..rounds).map(|_| {
        timed(|| {
            for _ in 0..ROWS / rows.len() {
                rows.iter().for_each(|task| drop(black_box(task.clone())));
            }
        })
    }));
    println!("| borrowed fields | {} |", rate(ROWS, borrowed));
    println!("| owned, each row made for the insert | {} |", rate(ROWS, owned));
    println!("| (making and dropping the owned row alone) | {} |", rate(ROWS, bare));
}
