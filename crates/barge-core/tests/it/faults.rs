//! The writer over a store that fails by plan: no row lost, none written twice, every receipt answered.
//!
//! Each seed means one plan of faults, which the message of a failure prints. To run one seed again:
//! `BARGE_FAULT_SEED=4711 cargo test -p barge-core faults`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barge_core::store::Token;
use barge_core::{Database, Operation, Outcome, Record, Report, Result};
use barge_testkit::{Effect, FaultPlan, FaultStore, MemoryStore, MemoryTable, Value};

/// A line of a log: the table has no key, so that a row written twice is there twice.
#[derive(Clone, Debug, PartialEq, Record)]
#[record(table = "lines")]
struct Line {
    id: i64,
}

/// A row that is written with all operations.
#[derive(Clone, Debug, PartialEq, Record)]
#[record(table = "counters")]
struct Counter {
    #[record(key)]
    id: i64,
    n: i64,
}

const TASKS: i64 = 3;
const LINES: i64 = 12;

/// What became of a run.
struct Run {
    /// Each line's answer.
    lines: BTreeMap<i64, Result<Outcome>>,
    /// Each task's counter operations, in order, with their answers.
    counters: Vec<Vec<(Operation, i64, Result<Outcome>)>>,
    report: Report,
    store: MemoryStore,
    /// Whether a commit was cut off, so that an error leaves a row in doubt.
    cut: bool,
    faults: FaultStore,
}

fn seeds(seeds: std::ops::Range<u64>) -> impl Iterator<Item = u64> {
    let only: Option<u64> = std::env::var("BARGE_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    seeds.filter(move |seed| only.is_none_or(|only| only == *seed))
}

/// Writes lines and counters from several tasks at once, with so many flushes in flight at most. Where there are several, most batches hold
/// lines alone, so that they may go beside each other.
async fn run(plan: FaultPlan, seed: u64, flushes_in_flight: usize) -> Run {
    let memory = MemoryStore::new().commit_time(Duration::from_millis(1));
    let memory = if seed.is_multiple_of(2) { memory } else { memory.failure_ends_transaction() };
    memory.create(MemoryTable::new(Line::table())).unwrap();
    memory.create(MemoryTable::new(Counter::table())).unwrap();
    let faults = FaultStore::new(Arc::new(memory.clone()), plan);
    let db = Database::new(faults.clone());
    let writer = db.writer().max_rows(1 + seed as usize % 9).unordered(flushes_in_flight).start();
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let writer = writer.clone();
        tasks.push(tokio::spawn(async move {
            let (mut lines, mut counters) = (Vec::new(), Vec::new());
            for line in 0..LINES {
                // A poisoned writer takes no more rows: those were not accepted, and have no receipt.
                let id = task * LINES + line;
                if let Ok(receipt) = writer.insert(&Line { id }).await {
                    lines.push((id, receipt));
                }
                if flushes_in_flight > 1 && line % 4 > 0 {
                    continue;
                }
                let operation = [Operation::Insert, Operation::Update, Operation::Upsert, Operation::Delete]
                    [(line / if flushes_in_flight > 1 { 4 } else { 1 } + task) as usize % 4];
                if let Ok(receipt) = writer.add(operation, &Counter { id: task, n: line }).await {
                    counters.push((operation, line, receipt));
                }
                if line % 5 == 4 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            let (mut line_answers, mut counter_answers) = (Vec::new(), Vec::new());
            for (id, receipt) in lines {
                line_answers.push((id, receipt.await));
            }
            for (operation, n, receipt) in counters {
                counter_answers.push((operation, n, receipt.await));
            }
            (line_answers, counter_answers)
        }));
    }
    let (mut lines, mut counters) = (BTreeMap::new(), Vec::new());
    for task in tasks {
        let (line_answers, counter_answers) = task.await.unwrap();
        lines.extend(line_answers);
        counters.push(counter_answers);
    }
    let report = writer.close().await.unwrap();
    // A commit that comes late has come by now.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let cut = |effect: &Effect| matches!(effect, Effect::CutBefore | Effect::CutAfter | Effect::CutLate(_));
    let cut = faults.met().iter().any(|fault| cut(&fault.effect));
    Run { lines, counters, report, store: memory, cut, faults }
}

impl Run {
    /// How often each line is in the table.
    fn written(&self) -> BTreeMap<i64, usize> {
        let mut written = BTreeMap::new();
        for row in self.store.rows("lines") {
            *written.entry(row[0].as_int().unwrap() as i64).or_default() += 1;
        }
        written
    }

    fn check_account(&self, plan: &FaultPlan) {
        let statistics = &self.report.statistics;
        let answered = self.lines.len() + self.counters.iter().map(Vec::len).sum::<usize>();
        assert_eq!(statistics.added, answered as u64, "{plan}");
        assert_eq!(statistics.committed + statistics.rejected, statistics.added, "{plan}");
        assert_eq!((statistics.buffered, statistics.in_flight), (0, 0), "{plan}");
    }
}

/// Faults that pass: every row gets through, once, and every answer is the one it would have had without faults.
fn faults_that_pass(range: std::ops::Range<u64>, flushes_in_flight: usize) {
    for seed in seeds(range) {
        let plan = FaultPlan::from_seed(seed);
        let run = block_on(run(plan.clone(), seed, flushes_in_flight));
        run.check_account(&plan);
        assert_eq!(run.lines.len() as i64, TASKS * LINES, "{plan}");
        for (id, answer) in &run.lines {
            assert!(matches!(answer, Ok(Outcome::Inserted)), "{plan}: line {id}: {answer:?}");
        }
        let written = run.written();
        assert!(written.values().all(|&times| times == 1), "{plan}: {written:?}");
        assert_eq!(written.len() as i64, TASKS * LINES, "{plan}");
        check_counters(&run, &plan);
        check_tokens(&run.faults.tokens(), flushes_in_flight, &plan);
    }
}

/// Tokens of each lane grow; a token claimed again is a retry.
fn check_tokens(tokens: &[Token], lanes: usize, plan: &FaultPlan) {
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for token in tokens {
        assert_eq!(token.writer, tokens[0].writer, "{plan}");
        assert!((token.lane as usize) < lanes, "{plan}: {token:?}");
        let last = last.entry(token.lane).or_default();
        assert!(token.sequence == *last || token.sequence == *last + 1, "{plan}: {token:?} after {last}");
        *last = token.sequence;
    }
}

// Several tests, so that they run side by side.
#[test]
fn no_row_is_lost_or_written_twice_in_seeds_from_0() {
    faults_that_pass(0..2_500, 1);
}

#[test]
fn no_row_is_lost_or_written_twice_in_seeds_from_2500() {
    faults_that_pass(2_500..5_000, 1);
}

#[test]
fn no_row_is_lost_or_written_twice_in_seeds_from_5000() {
    faults_that_pass(5_000..7_500, 1);
}

#[test]
fn no_row_is_lost_or_written_twice_in_seeds_from_7500() {
    faults_that_pass(7_500..10_000, 1);
}

#[test]
fn no_row_is_lost_or_written_twice_with_two_flushes_in_flight() {
    faults_that_pass(10_000..12_500, 2);
}

#[test]
fn no_row_is_lost_or_written_twice_with_four_flushes_in_flight() {
    faults_that_pass(12_500..15_000, 4);
}

/// Each task's counter went through its operations one by one.
fn check_counters(run: &Run, plan: &FaultPlan) {
    for (task, operations) in run.counters.iter().enumerate() {
        let mut there: Option<i64> = None;
        for (operation, n, answer) in operations {
            let expected = match (operation, there) {
                (Operation::Insert, Some(_)) => None,
                (Operation::Insert | Operation::Upsert, None) => Some(Outcome::Inserted),
                (Operation::Update | Operation::Upsert, Some(_)) => Some(Outcome::Updated),
                (Operation::Delete, Some(_)) => Some(Outcome::Deleted),
                _ => Some(Outcome::NotFound),
            };
            match (&expected, operation) {
                (Some(Outcome::Inserted | Outcome::Updated), _) => there = Some(*n),
                (Some(Outcome::Deleted), _) => there = None,
                _ => {}
            }
            let answer = answer.as_ref().ok().copied();
            assert_eq!(answer, expected, "{plan}: counter {task}, {operation} {n}");
        }
        let rows = run.store.rows("counters");
        let row = rows.iter().find(|row| row[0] == Value::from(task as u64));
        assert_eq!(row.map(|row| row[1].clone()), there.map(Value::from), "{plan}: counter {task}");
    }
}

/// Faults that no retry helps against: a row answered `Ok` is there once, a row answered with an error is not, unless a commit
/// was cut off and nobody could find out.
fn faults_that_stay(range: std::ops::Range<u64>, flushes_in_flight: usize) {
    for seed in seeds(range) {
        let plan = FaultPlan::from_seed_with_fatal(seed);
        let run = block_on(run(plan.clone(), seed, flushes_in_flight));
        run.check_account(&plan);
        let written = run.written();
        assert!(written.values().all(|&times| times == 1), "{plan}: {written:?}");
        for (id, answer) in &run.lines {
            match answer {
                Ok(outcome) => {
                    assert_eq!(*outcome, Outcome::Inserted, "{plan}: line {id}");
                    assert!(written.contains_key(id), "{plan}: line {id} is lost");
                }
                Err(error) => {
                    assert!(run.cut || !written.contains_key(id), "{plan}: line {id} is there: {error:?}");
                }
            }
        }
        // What was not accepted is not there.
        assert!(written.keys().all(|id| run.lines.contains_key(id)), "{plan}");
    }
}

#[test]
fn answers_are_true_through_faults_that_stay() {
    faults_that_stay(0..2_000, 1);
}

#[test]
fn answers_are_true_through_faults_that_stay_with_several_flushes_in_flight() {
    faults_that_stay(2_000..4_000, 3);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}
