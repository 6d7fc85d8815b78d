//! Steps of which some rows fail: which ones.
//!
//! Rows are sent in chunks, each under a savepoint. Inserts go by COPY, which says at which line it failed: where failures are few, the rows before
//! that one are sent again, and those after it next. Rows whose parent is missing, or which fail a CHECK, are found by one statement for each
//! constraint, and so are many rows whose key is there, or by an insert that leaves them out. For the rest a sequence remembers the row that was being
//! written, for what it holds is not rolled back. Where failures are dense, rows go one by one, sent without waiting in between, and so they do
//! where there are few. Which row is to blame is only ever a guess until that row has failed alone, so nothing rests on how it was made.

mod causes;
mod near;
mod send;
mod trace;

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::row::{RowConverter, Rows, SortField};
use barge_core::store::{AppliedRows, KeyEquality, Operation, Outcome, Step};
use barge_core::{Error, ErrorKind, Result};
use causes::Check;
use tokio_postgres::Statement;

use crate::apply::{COPY_ROWS, Prepared, Way, is_plain};
use crate::batch::Batch;
use crate::transaction::{ABORTED, PostgresTransaction, RESHAPED, UNCLEAR};

/// The least rows in a chunk of which it isn't known that it fails.
const CHUNK_MIN: usize = 64;
/// The first chunk's part of all rows.
const CHUNK_PART: usize = 16;
/// The most bytes in a chunk's arrays, which the server holds several times over.
const CHUNK_BYTES: usize = 32 << 20;
/// One row in so many fails: then they go one by one.
const DENSE: usize = 8;
/// One row in so many makes a COPY fail: then looking for all such rows at once costs less than that COPY's five round trips.
const SPARSE: usize = 256;
/// So many rows of which some were kept out go one by one, which costs no more waiting than halves.
const UNCLEAR_ROWS: usize = 16;
/// So many that fail say nothing yet of how far they are from each other.
const FEW: usize = 4;

/// Applies a step and leaves out the rows that fail. `refused` is how it failed when it went whole.
pub(crate) async fn apply_rows(
    transaction: &mut PostgresTransaction,
    step: &Step,
    refused: Option<&Error>,
) -> Result<AppliedRows> {
    let without = transaction.connection().without();
    // Rows whose drawn keys nobody asked for can be copied; those that are not, are answered each.
    let wanted = Prepared::new(step, without)?;
    let step = Step { outcomes: true, ..step.clone() };
    let mut prepared = Prepared::new(&step, without)?;
    let copying = match wanted.way {
        Way::Copy(left_out) => Some(Copying { left_out, statement: None, failures: 0 }),
        _ => None,
    };
    if let Way::Copy(_) = prepared.way {
        prepared.way = Way::Count;
    }
    transaction.mark("barge_rows");
    let mut search = Search::new(&step, prepared, copying);
    let searched = search.run(transaction, refused).await;
    transaction.settle("barge_rows", searched).await?;
    Ok(search.finish())
}

struct Search<'a> {
    step: &'a Step,
    prepared: Prepared<'a>,
    answers: Vec<Option<Result<Outcome>>>,
    keys: Vec<Option<i64>>,
    statements: u32,
    /// Rows that have an answer, and how many of them the taking apart found to fail.
    answered: usize,
    found: usize,
    chunk: usize,
    /// The most rows of which arrays are sent.
    chunk_max: usize,
    /// How chunks go by COPY: as long as what makes rows fail can be pointed at, so that the others can be copied.
    copying: Option<Copying>,
    /// A number for each row, equal where keys are; `None` before it was needed.
    numbers: Option<Vec<u32>>,
    /// The numbers of the keys that were written, where rows that repeat one are held back from COPY.
    there: Option<HashSet<u32>>,
    /// The columns by which inserted rows are known again, where inserts can leave out rows that break a unique key.
    tolerant: Option<Vec<usize>>,
    /// The table's CHECKs; `None` before they were asked for.
    checks: Option<Arc<[Check]>>,
    /// Rows that most likely fail: they are sent alone.
    suspects: BTreeSet<u32>,
    /// Whether rows whose key is there, rows without a parent, and rows that fail a CHECK were looked for.
    keys_known: bool,
    orphans_known: bool,
    checks_known: bool,
    /// Whether the sequence is there; `None` before it was tried.
    traced: Option<bool>,
}

/// COPY of the step's rows.
struct Copying {
    /// The place of the column that the database fills.
    left_out: Option<usize>,
    statement: Option<Statement>,
    /// The rows it pointed at.
    failures: usize,
}

impl<'a> Search<'a> {
    fn new(step: &'a Step, prepared: Prepared<'a>, copying: Option<Copying>) -> Self {
        let rows = step.batch.num_rows();
        let tolerant = tolerant_key(step);
        let chunk_max = (CHUNK_BYTES / (prepared.batch.bytes() / rows.max(1)).max(1)).clamp(1, rows.max(1));
        Search {
            step,
            prepared,
            answers: vec![None; rows],
            keys: vec![None; rows],
            statements: 0,
            answered: 0,
            found: 0,
            chunk: match copying {
                Some(_) => (rows / CHUNK_PART).max(COPY_ROWS),
                None => first_chunk(rows, tolerant.is_some()),
            },
            chunk_max,
            copying,
            numbers: None,
            there: None,
            checks: None,
            suspects: BTreeSet::new(),
            tolerant,
            keys_known: false,
            orphans_known: false,
            checks_known: false,
            traced: None,
        }
    }

    fn finish(self) -> AppliedRows {
        let lost = || Err(Error::new(ErrorKind::Statement, "the row was not answered"));
        let generated = self.prepared.plan.target.generated().map(|_| Int64Array::from_iter(self.keys));
        AppliedRows {
            outcomes: self.answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect(),
            generated,
            statements: self.statements,
        }
    }

    /// Answers every row.
    async fn run(&mut self, transaction: &mut PostgresTransaction, refused: Option<&Error>) -> Result<()> {
        if let Some(copying) = &mut self.copying {
            // Outside of the savepoints of chunks: going back to one would give up the lock that keeps the table as it is.
            let connection = transaction.connection();
            copying.statement = Some(self.prepared.plan.prepare_copy(connection, copying.left_out).await?);
        }
        // A row that is inserted can only be the parent of another, which is looked for like any other parent.
        let meets = self.step.target.rows_may_meet() && self.step.target.operation != Operation::Insert;
        let one_by_one = meets || self.answers.len() <= CHUNK_MIN;
        if self.copying.is_some()
            && !one_by_one
            && !self.step.target.description.foreign_keys.is_empty()
            // A COPY learns of a missing parent only at its end.
            && self.find_orphans(transaction, 0).await?
        {
            self.chunk = self.chunk_max;
        }
        // Parts of the rows to do, the first on top.
        let mut parts = vec![Part::new(0, self.answers.len())];
        // Where the COPY of all rows said at which it failed, that one need not be repeated.
        let told = |error: &&Error| {
            self.copying.is_some() && !one_by_one && self.answered == 0 && self.place_in_copy(error).is_some()
        };
        if let Some(refused) = refused.filter(told) {
            let rows: Vec<u32> = (0..self.answers.len() as u32).collect();
            parts = self.take_apart(transaction, &rows, refused.clone()).await?;
            parts.retain(|part| part.start < part.end);
        }
        while let Some(part) = parts.pop() {
            let start = part.start;
            let limit = self.limit(transaction, &part).await?;
            if limit < part.end {
                parts.push(Part { start: limit, ..part });
            }
            let (rows, repeats) = self.rows_of(part.start..limit);
            if rows.is_empty() {
                self.reject_repeats(transaction, &repeats).await?;
                continue;
            }
            if one_by_one || self.is_dense() || self.are_suspects(&rows) {
                let mut rows = [rows, repeats].concat();
                rows.sort_unstable();
                self.one_by_one(transaction, &rows).await?;
                continue;
            }
            match self.chunk(transaction, &rows).await? {
                Ok(()) => {
                    self.chunk = (self.chunk * 2).min(self.chunk_max);
                    self.reject_repeats(transaction, &repeats).await?;
                }
                Err(error) if rows.len() == 1 => {
                    self.reject(rows[0], error);
                    // Those that were held back beside it.
                    parts.push(Part { start, end: limit, passed: false });
                }
                Err(error) => {
                    let taken = self.take_apart(transaction, &rows, error).await?;
                    let row_at = |place: usize| rows.get(place).map_or(limit, |&row| row as usize);
                    let taken = taken.into_iter().map(|part| Part {
                        start: if part.start == 0 { start } else { row_at(part.start) },
                        end: row_at(part.end),
                        ..part
                    });
                    parts.extend(taken.filter(|part| part.start < part.end));
                }
            }
        }
        self.drop_trace(transaction).await
    }

    /// Where rows that are sent together end.
    async fn limit(&mut self, transaction: &mut PostgresTransaction, part: &Part) -> Result<usize> {
        let chunk = match &self.copying {
            Some(_) if part.passed => part.end - part.start,
            // Half of the way from one row that fails to the next: rows that went in vain and further COPYs cost about the same then. Smaller ones, and
            // inserts sent several at a time, were slower.
            Some(Copying { failures: failures @ 1.., .. }) => (self.answered / failures / 2).max(COPY_ROWS),
            _ => self.chunk,
        };
        let end = part.end.min(part.start + chunk.min(self.chunk_max));
        let end = match self.suspects.range(part.start as u32..end as u32).next() {
            Some(&row) if row as usize == part.start => self.suspects_end(part.start, end),
            Some(&row) => row as usize,
            None => end,
        };
        if self.copying.is_some() {
            return Ok(end);
        }
        if self.numbers.is_none() {
            self.numbers = Some(self.numbers(transaction).await?);
        }
        Ok(self.numbers.as_ref().map_or(end, |numbers| first_repeat(numbers, part.start, end)))
    }

    /// Where the suspects from one on end.
    fn suspects_end(&self, start: usize, end: usize) -> usize {
        (start..end).find(|row| !self.suspects.contains(&(*row as u32))).unwrap_or(end)
    }

    fn are_suspects(&self, rows: &[u32]) -> bool {
        rows.iter().all(|row| self.suspects.contains(row))
    }

    /// The rows of a range to send, and those of which it will be known after that they repeat a key.
    fn rows_of(&self, range: Range<usize>) -> (Vec<u32>, Vec<u32>) {
        let rows = range.filter(|&row| self.answers[row].is_none()).map(|row| row as u32);
        let Some(there) = &self.there else { return (rows.collect(), Vec::new()) };
        let mut sent = HashSet::new();
        rows.partition(|&row| {
            let number = self.number(row);
            !there.contains(&number) && sent.insert(number)
        })
    }

    fn number(&self, row: u32) -> u32 {
        self.numbers.as_ref().and_then(|numbers| numbers.get(row as usize)).copied().unwrap_or(row)
    }

    /// Finds out more about rows that fail together. Gives the parts to send next, as places among the rows, the first one last.
    async fn take_apart(
        &mut self,
        transaction: &mut PostgresTransaction,
        rows: &[u32],
        error: Error,
    ) -> Result<Vec<Part>> {
        let (first, all) = (rows[0] as usize, rows.len());
        let place =
            self.copying.as_ref().and_then(|_| self.place_in_copy(&error).filter(|&place| place < all));
        // Where rows are each other's parents, those that were rejected since have left others without one.
        let may_be_orphans = error.kind() == ErrorKind::ForeignKeyViolation
            && (!self.orphans_known || self.step.target.rows_may_meet());
        if may_be_orphans
            && (self.find_orphans(transaction, first).await? || !self.step.target.rows_may_meet())
        {
            self.chunk = self.chunk_max;
        } else if error.kind() == ErrorKind::CheckViolation && self.can_find_failed_checks() {
            self.find_failed_checks(transaction, first).await?;
            self.chunk = self.chunk_max;
        } else if error.kind() == ErrorKind::UniqueViolation && self.copying.is_some() && !self.keys_known {
            self.learn_keys(transaction, rows, place).await?;
        } else if error.code() == Some(UNCLEAR) && all <= UNCLEAR_ROWS {
            self.suspects.extend(rows);
        } else if error.code() == Some(UNCLEAR) {
            return Ok(vec![Part::new(all / 2, all), Part::new(0, all / 2)]);
        } else if let Some(place) = place.filter(|_| self.is_sparse()) {
            self.copying.iter_mut().for_each(|copying| copying.failures += 1);
            return Ok(match self.insert_up_to(transaction, &rows[..place], rows[place]).await? {
                // What is answered is left out, and what was held back before that row is not.
                true if self.there.is_some() => vec![Part::new(0, all)],
                true => vec![Part::new(place + 1, all)],
                false => around(place, all),
            });
        } else if self.copying.take().is_some() {
            self.there = None;
            self.chunk = first_chunk(self.answers.len(), self.tolerant.is_some());
        } else {
            self.chunk = (self.chunk / 4).clamp(CHUNK_MIN, (self.answers.len() / CHUNK_PART).max(CHUNK_MIN));
            return Ok(match self.last_row(transaction).await? {
                // At the last one, all may have been written, and what is looked at when they are have failed.
                Some(place) if place + 1 < all => around(place, all),
                _ => vec![Part::new(all / 2, all), Part::new(0, all / 2)],
            });
        }
        Ok(vec![Part::new(0, all)])
    }

    /// Whether so few rows made a COPY fail that it may fail again.
    fn is_sparse(&self) -> bool {
        let failures = self.copying.as_ref().map_or(0, |copying| copying.failures);
        failures < FEW || failures * SPARSE <= self.answered
    }

    fn is_dense(&self) -> bool {
        self.answered >= CHUNK_MIN && self.found * DENSE > self.answered
    }

    fn answer(&mut self, row: u32, answer: Result<Outcome>) {
        self.answered += 1;
        // Which rows a trigger keeps out must be found, too.
        let kept_out =
            self.step.target.operation == Operation::Insert && matches!(answer, Ok(Outcome::Unchanged));
        self.found += usize::from(kept_out);
        let number = self.number(row);
        if let Some(there) = self.there.as_mut().filter(|_| answer.is_ok()) {
            there.insert(number);
        }
        self.answers[row as usize] = Some(answer);
    }

    fn reject(&mut self, row: u32, error: Error) {
        self.found += 1;
        let table = self.step.target.table().to_string();
        self.answer(row, Err(error.with_table(table).with_row(row.into())));
    }

    /// A number for each row, equal where keys are: rows of one chunk have different keys. Empty where that doesn't matter.
    async fn numbers(&self, transaction: &mut PostgresTransaction) -> Result<Vec<u32>> {
        let target = &self.step.target;
        let key = match &self.tolerant {
            Some(key) => key,
            None if target.operation.is_keyed() => &target.key,
            None => return Ok(Vec::new()),
        };
        let exact = |&index: &usize| {
            target.described(index).is_some_and(|column| column.equality == KeyEquality::Exact)
        };
        let columns = key.iter().map(|&index| self.prepared.batch.columns[index].clone()).collect();
        let keys = Batch { columns, rows: self.prepared.batch.rows, misfits: false };
        match key.iter().all(exact) {
            true => numbers_of(keys.columns.into_iter().map(|(array, _)| array).collect()),
            false => transaction.connection().key_groups(&keys).await,
        }
    }
}

/// The rows in the first chunk of those that go by statements.
fn first_chunk(rows: usize, tolerant: bool) -> usize {
    if tolerant { rows } else { (rows / CHUNK_PART).max(CHUNK_MIN) }
}

/// Rows from one to before another.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    end: usize,
    /// Whether they passed before, until another row behind them failed.
    passed: bool,
}

impl Part {
    fn new(start: usize, end: usize) -> Self {
        Part { start, end, passed: false }
    }
}

/// The rows after one, that row, and those before it.
fn around(place: usize, rows: usize) -> Vec<Part> {
    vec![Part::new(place + 1, rows), Part::new(place, place + 1), Part { start: 0, end: place, passed: true }]
}

/// The places of the primary key, if an insert can leave out rows with a broken unique key and tell by it which rows it wrote.
fn tolerant_key(step: &Step) -> Option<Vec<usize>> {
    let (target, description) = (&step.target, &step.target.description);
    let possible = target.operation == Operation::Insert
        && is_plain(target)
        && target.generated().is_none()
        && !description.key.is_empty()
        && description.unique.iter().all(|unique| !unique.partial);
    let place = |key: &String| {
        let exact = description.column(key).is_some_and(|column| column.equality == KeyEquality::Exact);
        target.columns.iter().position(|column| column.name() == key).filter(|_| exact)
    };
    description.key.iter().map(place).collect::<Option<Vec<_>>>().filter(|_| possible)
}

/// Whether an error may be the fault of one row: a row that alone fails so is rejected.
fn may_be_a_rows(error: &Error) -> bool {
    use ErrorKind::{CheckViolation, Statement, Unsupported};
    // The transaction had failed before, the table is another, or the server lacked memory.
    let codes = [ABORTED, RESHAPED, "53000", "53200", "53400"];
    let is_servers = error.code().is_some_and(|code| codes.contains(&code));
    !is_servers && (error.is_row() || matches!(error.kind(), CheckViolation | Statement | Unsupported))
}

/// Where a number first repeats within a range; its end where none does.
fn first_repeat(numbers: &[u32], start: usize, end: usize) -> usize {
    let mut seen = HashSet::new();
    numbers
        .get(start..end)
        .and_then(|numbers| numbers.iter().position(|number| !seen.insert(number)))
        .map_or(end, |place| start + place)
}

fn numbers_of(columns: Vec<ArrayRef>) -> Result<Vec<u32>> {
    let rows = key_rows(columns)?;
    let mut known = hashbrown::HashMap::new();
    Ok(rows
        .iter()
        .map(|row| {
            let next = known.len() as u32;
            *known.entry(row).or_insert(next)
        })
        .collect())
}

/// Keys that can be compared.
fn key_rows(columns: Vec<ArrayRef>) -> Result<Rows> {
    let fields = columns.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?.convert_columns(&columns)?)
}
