//! What a writer is given to do, and what became of it.

use std::collections::BTreeMap;
use std::time::Duration;

use barge_core::{Database, Operation, Outcome, Report, Result, Retry, Writer};

use super::{Counter, Drawn, IDS_A_SEED, Line, Random, in_time, patient};

/// One workload.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) seed: u64,
    pub(super) tasks: i64,
    /// Lines that each task adds.
    pub(super) lines: i64,
    /// Lines added in one go, between which a task does something else.
    pub(super) burst: i64,
    /// Whether one line in twenty is to be refused.
    pub(super) bad: bool,
    /// Whether rows go to the other tables, too.
    pub(super) mixed: bool,
    pub(super) max_rows: usize,
    pub(super) unordered: usize,
    pub(super) atomic: bool,
    pub(super) statement_cache: usize,
    pub(super) retry: Retry,
}

impl Work {
    /// Small flushes, large ones (by COPY), and both; some of them atomic, some with bad rows, some with kept statements.
    pub(super) fn from_seed(seed: u64, unordered: usize) -> Self {
        let mut random = Random(seed);
        let (lines, burst, max_rows) = match random.below(4) {
            0 => (300, 150, 350),
            1 => (250, 25, 220),
            _ => (15, 1, 1 + random.below(9) as usize),
        };
        Work {
            seed,
            tasks: 3,
            lines,
            burst,
            bad: random.below(3) == 0,
            mixed: unordered == 1 || random.below(2) == 0,
            max_rows,
            unordered,
            atomic: random.below(6) == 0,
            statement_cache: 16 * random.below(2) as usize,
            retry: patient(),
        }
    }

    pub(super) fn first_id(&self) -> i64 {
        self.seed as i64 * IDS_A_SEED
    }

    pub(super) fn is_bad(&self, id: i64) -> bool {
        self.bad && id % 20 == 7
    }
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BARGE_FAULT_SEED={}, {self:?}", self.seed)
    }
}

pub(super) type Answer<T = Outcome> = Result<T>;

/// What became of a writer's rows.
pub(super) struct Run {
    pub(super) work: Work,
    pub(super) lines: BTreeMap<i64, Answer>,
    /// Each counter's operations, in order.
    pub(super) counters: BTreeMap<i64, Vec<(Operation, i64, Answer)>>,
    pub(super) drawn: BTreeMap<i64, Answer<(Outcome, Option<i64>)>>,
    pub(super) report: Report,
}

/// What a task's rows were answered.
type Answers = (
    Vec<(i64, Answer)>,
    Vec<(i64, Vec<(Operation, i64, Answer)>)>,
    Vec<(i64, Answer<(Outcome, Option<i64>)>)>,
);

/// A poisoned writer takes no more rows: those were not accepted, and have no receipt.
async fn add_rows(writer: Writer, work: Work, task: i64) -> Answers {
    let (mut lines, mut counters, mut drawn) = (Vec::new(), Vec::new(), Vec::new());
    let counter = work.first_id() + task;
    for place in 0..work.lines {
        let id = work.first_id() + task * work.lines + place;
        let n = if work.is_bad(id) { -1 } else { id };
        if let Ok(receipt) = writer.insert(&Line { id, n }).await {
            lines.push((id, receipt));
        }
        if (place + 1) % work.burst != 0 {
            continue;
        }
        if work.mixed {
            let turn = place / work.burst + task;
            let operation = [Operation::Insert, Operation::Update, Operation::Upsert, Operation::Delete]
                [turn as usize % 4];
            if let Ok(receipt) = writer.add(operation, &Counter { id: counter, n: place }).await {
                counters.push((operation, place, receipt));
            }
            if turn % 3 == 0
                && let Ok(receipt) = writer.insert(&Drawn { id: None, tag: id }).await
            {
                drawn.push((id, receipt));
            }
        }
        if place % 5 == 4 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let mut answers: Answers = (Vec::new(), vec![(counter, Vec::new())], Vec::new());
    for (id, receipt) in lines {
        answers.0.push((id, receipt.await));
    }
    for (operation, n, receipt) in counters {
        answers.1[0].1.push((operation, n, receipt.await));
    }
    for (id, receipt) in drawn {
        answers.2.push((id, receipt.with_key().await));
    }
    answers
}

fn writer_of(db: &Database, work: &Work) -> Writer {
    let writer = db.writer().max_rows(work.max_rows).unordered(work.unordered).retry(work.retry.clone());
    if work.atomic { writer.atomic().start() } else { writer.start() }
}

/// Writes from several tasks at once; `after` is called when all rows are answered, and before the last row, which tells whether the writer
/// goes on.
pub(super) async fn run(db: &Database, work: &Work, after: impl AsyncFnOnce()) -> Run {
    let writer = writer_of(db, work);
    let tasks: Vec<_> =
        (0..work.tasks).map(|task| tokio::spawn(add_rows(writer.clone(), work.clone(), task))).collect();
    let mut run = Run {
        work: work.clone(),
        lines: BTreeMap::new(),
        counters: BTreeMap::new(),
        drawn: BTreeMap::new(),
        report: Report { statistics: writer.statistics(), rejected: Vec::new(), dead_letter_failure: None },
    };
    for task in tasks {
        let (lines, counters, drawn) = in_time(&work.to_string(), task).await.unwrap();
        run.lines.extend(lines);
        run.counters.extend(counters);
        run.drawn.extend(drawn);
    }
    after().await;
    let last = work.first_id() + work.tasks * work.lines;
    let last = if work.is_bad(last) { last + 1 } else { last };
    if let Ok(receipt) = writer.insert(&Line { id: last, n: last }).await {
        run.lines.insert(last, in_time(&work.to_string(), receipt).await);
    }
    run.report = in_time(&work.to_string(), writer.close()).await.unwrap();
    run
}
