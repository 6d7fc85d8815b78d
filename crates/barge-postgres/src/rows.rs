//! Steps of which some rows fail: which ones.
//!
//! Rows are sent in chunks, each under a savepoint. A chunk that fails is taken apart where the failure points: a sequence remembers the
//! row that was being written, for what it holds is not rolled back. Rows whose parent is missing, or which fail a CHECK, are found by one
//! statement for each constraint, rows whose key is there by an insert that leaves them out. Where failures are dense, rows go one by one, sent without waiting
//! in between, and so they do where there are few. Which row is to blame is only ever a guess until that row has failed alone, so nothing rests on how it was made.

mod causes;

use std::collections::HashSet;

use arrow::array::{ArrayRef, Int64Array};
use arrow::row::{RowConverter, SortField};
use barge_core::store::{AppliedRows, KeyEquality, Operation, Outcome, Step};
use barge_core::{Error, ErrorKind, Result, Transaction};
use causes::ordinals;

use crate::apply::{COPY_ROWS, Prepared, Way, is_plain};
use crate::batch::Batch;
use crate::connection::{Call, pipeline};
use crate::error::error_of;
use crate::statements::{Rows, TRACE};
use crate::transaction::PostgresTransaction;

/// The least rows in a chunk of which it isn't known that it fails.
const CHUNK_MIN: usize = 64;
/// The first chunk's part of all rows.
const CHUNK_PART: usize = 16;
/// The most rows that go one by one without waiting for those before.
const WINDOW: usize = 64;
/// The most bytes in a chunk's arrays, which the server holds several times over.
const CHUNK_BYTES: usize = 32 << 20;
/// One row in so many fails: then they go one by one.
const DENSE: usize = 8;

/// Applies a step and leaves out the rows that fail.
pub(crate) async fn apply_rows(transaction: &mut PostgresTransaction, step: &Step) -> Result<AppliedRows> {
    let step = Step { outcomes: true, ..step.clone() };
    let mut prepared = Prepared::new(&step, transaction.connection().without())?;
    // What COPY does not tell apart, statements do.
    let copies = prepared.way == Way::Copy(None);
    if let Way::Copy(_) = prepared.way {
        prepared.way = Way::Count;
    }
    transaction.mark("barge_rows");
    let mut search = Search::new(&step, prepared, copies);
    let searched = search.run(transaction).await;
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
    /// Whether chunks go by COPY: as long as what makes rows fail can be pointed at, so that the others can be copied.
    copies: bool,
    /// The row up to which rows that break a unique key were looked for.
    keys_known: usize,
    /// The columns by which inserted rows are known again, where inserts can leave out rows that break a unique key.
    tolerant: Option<Vec<usize>>,
    /// Whether rows without a parent, and rows that fail a CHECK, were looked for.
    orphans_known: bool,
    checks_known: bool,
    /// Whether the sequence is there; `None` before it was tried.
    traced: Option<bool>,
}

impl<'a> Search<'a> {
    fn new(step: &'a Step, prepared: Prepared<'a>, copies: bool) -> Self {
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
            chunk: if copies || tolerant.is_some() { rows } else { (rows / CHUNK_PART).max(CHUNK_MIN) },
            chunk_max,
            copies,
            keys_known: 0,
            tolerant,
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
    async fn run(&mut self, transaction: &mut PostgresTransaction) -> Result<()> {
        let numbers = self.numbers(transaction).await?;
        self.chunk = self.chunk.min(self.chunk_max);
        let one_by_one = self.answers.len() <= CHUNK_MIN || self.step.target.rows_may_meet();
        if self.copies && !one_by_one && !self.step.target.description.foreign_keys.is_empty() {
            // A COPY learns of a missing parent only at its end.
            self.find_orphans(transaction, 0).await?;
        }
        // Ranges of rows to do, the first on top.
        let mut ranges = vec![(0, self.answers.len())];
        while let Some((start, end)) = ranges.pop() {
            let limit = first_repeat(&numbers, start, end.min(start + self.chunk));
            if limit < end {
                ranges.push((limit, end));
            }
            let rows: Vec<u32> =
                (start..limit).filter(|&row| self.answers[row].is_none()).map(|row| row as u32).collect();
            if rows.is_empty() {
                continue;
            }
            if one_by_one || self.is_dense() {
                self.one_by_one(transaction, &rows).await?;
                continue;
            }
            let Err(error) = self.chunk(transaction, &rows).await? else {
                self.chunk = (self.chunk * 2).min(self.chunk_max);
                continue;
            };
            if let &[row] = &rows[..] {
                self.reject(row, error);
            } else if error.kind() == ErrorKind::ForeignKeyViolation && !self.orphans_known {
                self.find_orphans(transaction, start).await?;
                ranges.push((start, limit));
            } else if error.kind() == ErrorKind::CheckViolation && self.can_find_failed_checks() {
                self.find_failed_checks(transaction, start).await?;
                ranges.push((start, limit));
            } else if error.kind() == ErrorKind::UniqueViolation && self.copies && self.keys_known < limit {
                self.find_broken_keys(transaction, &rows).await?;
                self.keys_known = limit;
                ranges.push((start, limit));
            } else if self.copies {
                self.copies = false;
                if self.tolerant.is_none() {
                    self.chunk = (self.answers.len() / CHUNK_PART).max(CHUNK_MIN);
                }
                ranges.push((start, limit));
            } else {
                self.chunk =
                    (self.chunk / 4).clamp(CHUNK_MIN, (self.answers.len() / CHUNK_PART).max(CHUNK_MIN));
                let guess = match self.last_row(transaction).await? {
                    Some(place) => rows.get(place).map(|&row| row as usize),
                    None => None,
                };
                match guess {
                    Some(row) => ranges.extend([(row + 1, limit), (row, row + 1), (start, row)]),
                    None => {
                        let middle = rows[rows.len() / 2] as usize;
                        ranges.extend([(middle, limit), (start, middle)]);
                    }
                }
                ranges.retain(|(start, end)| start < end);
            }
        }
        if self.traced == Some(true) {
            // Where it may not be dropped it stays as long as the session.
            transaction.mark("barge_trace");
            let dropped = transaction.connection().run(&format!("DROP SEQUENCE pg_temp.{TRACE}")).await;
            transaction.settle("barge_trace", dropped).await.or_else(|error| {
                match transaction.is_open() {
                    true => Ok(()),
                    false => Err(error),
                }
            })?;
        }
        Ok(())
    }

    fn is_dense(&self) -> bool {
        self.answered >= CHUNK_MIN && self.found * DENSE > self.answered
    }

    fn answer(&mut self, row: u32, answer: Result<Outcome>) {
        self.answered += 1;
        self.answers[row as usize] = Some(answer);
    }

    fn reject(&mut self, row: u32, error: Error) {
        self.found += 1;
        let table = self.step.target.table().to_string();
        self.answer(row, Err(error.with_table(table).with_row(row.into())));
    }

    /// Sends rows together and answers them. The inner error is a row's, and nothing of the rows is left then.
    async fn chunk(&mut self, transaction: &mut PostgresTransaction, rows: &[u32]) -> Result<Result<()>> {
        if self.copies && rows.len() >= COPY_ROWS {
            transaction.mark("barge_chunk");
            let copied = self.copy(transaction, rows).await;
            return match transaction.settle("barge_chunk", copied).await {
                Err(error) if !(transaction.is_open() && may_be_a_rows(&error)) => Err(error),
                copied => Ok(copied),
            };
        }
        let trace = rows.len() > 1 && self.can_trace(transaction).await;
        let order = if trace { Rows::Traced } else { Rows::Sorted };
        if trace {
            transaction.connection().send(&format!("SELECT setval('pg_temp.{TRACE}', 1, false)"));
        }
        transaction.mark("barge_chunk");
        // The insert that leaves rows out is traced, so without the sequence it is not to be had.
        let sent = match self.tolerant.clone().filter(|_| trace) {
            Some(key) => self.send_tolerant(transaction, &key, rows).await,
            None => self.send(transaction, rows, order).await,
        };
        match transaction.settle("barge_chunk", sent).await {
            Ok(()) => Ok(Ok(())),
            // The user may insert, and not read what was inserted.
            Err(error)
                if error.kind() == ErrorKind::Permission
                    && self.tolerant.is_some()
                    && transaction.is_open() =>
            {
                self.tolerant = None;
                Ok(Err(error))
            }
            Err(error) if transaction.is_open() && may_be_a_rows(&error) => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }

    async fn copy(&mut self, transaction: &mut PostgresTransaction, rows: &[u32]) -> Result<()> {
        let mut part = self.prepared.of_rows(rows)?;
        part.way = Way::Copy(None);
        let applied = transaction.send(&mut part, Rows::Sorted).await?;
        self.statements += applied.statements;
        if applied.affected != rows.len() as u64 {
            return Err(Error::new(ErrorKind::Unsupported, "rows were kept out, and it isn't known which"));
        }
        rows.iter().for_each(|&row| self.answer(row, Ok(Outcome::Inserted)));
        Ok(())
    }

    async fn send(&mut self, transaction: &mut PostgresTransaction, rows: &[u32], order: Rows) -> Result<()> {
        let mut part = self.prepared.of_rows(rows)?;
        let applied = transaction.send(&mut part, order).await?;
        self.statements += applied.statements;
        let outcomes = applied.outcomes.unwrap_or_default();
        for (place, (&row, outcome)) in rows.iter().zip(outcomes).enumerate() {
            if let Some(keys) = &applied.generated {
                self.keys[row as usize] =
                    (!arrow::array::Array::is_null(keys, place)).then(|| keys.value(place));
            }
            self.answer(row, Ok(outcome));
        }
        Ok(())
    }

    /// Inserts the rows that break no unique key, and names the key that the others break. Rows of which that can't be said are left
    /// without an answer, to be sent alone.
    async fn send_tolerant(
        &mut self,
        transaction: &mut PostgresTransaction,
        key: &[usize],
        rows: &[u32],
    ) -> Result<()> {
        let part = self.prepared.of_rows(rows)?;
        let parameters = part.batch.parameters();
        self.statements += 1;
        let inserted =
            transaction.connection().query(&part.plan.tolerant_insert(key), &parameters.bind()).await?;
        let mut left: Vec<bool> = vec![true; rows.len()];
        for place in ordinals(&inserted)? {
            left[place] = false;
        }
        let skipped: Vec<u32> =
            (0..rows.len()).filter(|&place| left[place]).map(|place| rows[place]).collect();
        let broken = self.broken_keys(transaction, &skipped).await?;
        for (place, &row) in rows.iter().enumerate() {
            match (left[place], broken.get(&row)) {
                (false, _) => self.answer(row, Ok(Outcome::Inserted)),
                (true, Some(error)) => {
                    let table = self.step.target.table().to_string();
                    self.answer(row, Err(error.clone().with_table(table).with_row(row.into())));
                }
                (true, None) => {}
            }
        }
        let unnamed: Vec<u32> = skipped.into_iter().filter(|row| !broken.contains_key(row)).collect();
        for row in unnamed {
            transaction.mark("barge_alone");
            let sent = self.send(transaction, &[row], Rows::Sorted).await;
            match transaction.settle("barge_alone", sent).await {
                Err(error) if may_be_a_rows(&error) && transaction.is_open() => self.reject(row, error),
                sent => sent?,
            }
        }
        Ok(())
    }

    /// Sends rows one behind the other, each under its own savepoint, without waiting in between; goes on after one that fails.
    async fn one_by_one(&mut self, transaction: &mut PostgresTransaction, rows: &[u32]) -> Result<()> {
        let together = is_plain(self.prepared.plan.target) && self.prepared.way != Way::UpdateThenInsert;
        let mut window = 1;
        let mut sent = 0;
        while sent < rows.len() {
            let next = &rows[sent..rows.len().min(sent + window)];
            let passed = match together {
                true => self.window(transaction, next).await?,
                false => usize::from(
                    self.chunk(transaction, next).await?.map_err(|error| self.reject(next[0], error)).is_ok(),
                ),
            };
            // The row after those that passed was rejected.
            let failed = passed < next.len();
            sent += passed + usize::from(failed);
            window = match (together, failed) {
                (true, false) => (window * 2).min(WINDOW),
                _ => 1,
            };
        }
        Ok(())
    }

    /// How many of these rows passed; the one behind them, if there is one, was rejected.
    async fn window(&mut self, transaction: &mut PostgresTransaction, rows: &[u32]) -> Result<usize> {
        let parts = rows.iter().map(|&row| self.prepared.of_rows(&[row])).collect::<Result<Vec<_>>>()?;
        let connection = transaction.connection();
        if let Some(part) = parts.first() {
            part.prepare(connection).await?;
        }
        let mut answers = Vec::new();
        answers.resize_with(parts.len(), || None);
        let mut calls: Vec<Call<'_>> = Vec::with_capacity(parts.len() * 3);
        for (part, answer) in parts.iter().zip(&mut answers) {
            calls.push(Box::pin(async { drop(connection.run("SAVEPOINT barge_row").await) }));
            calls.push(Box::pin(async move { *answer = Some(part.run(connection, Rows::Sorted).await) }));
            calls.push(Box::pin(async { drop(connection.run("RELEASE barge_row").await) }));
        }
        pipeline(calls).await;
        for (place, (&row, answer)) in rows.iter().zip(answers).enumerate() {
            self.statements += 1;
            match answer {
                Some(Ok(applied)) => {
                    if let Some(keys) = &applied.generated {
                        self.keys[row as usize] = keys.iter().next().flatten();
                    }
                    let outcome = applied.outcomes.and_then(|outcomes| outcomes.into_iter().next());
                    self.answer(row, Ok(outcome.unwrap_or(Outcome::Unchanged)));
                }
                // The server is told to go back without waiting for it: a row that fails costs one round trip, no more.
                Some(Err(error)) if may_be_a_rows(&error) && error.code().is_some() => {
                    transaction.connection().send("ROLLBACK TO barge_row; RELEASE barge_row");
                    self.reject(row, error);
                    return Ok(place);
                }
                Some(Err(error)) => {
                    transaction.settle::<()>("barge_row", Err(error)).await?;
                }
                None => return Err(Error::new(ErrorKind::ConnectionLost, "the call was not answered")),
            }
        }
        Ok(rows.len())
    }

    /// Makes the sequence, where that is allowed.
    async fn can_trace(&mut self, transaction: &mut PostgresTransaction) -> bool {
        if let Some(traced) = self.traced {
            return traced;
        }
        if transaction.connection().without().temporary {
            return *self.traced.insert(false);
        }
        transaction.mark("barge_trace");
        let made =
            transaction.connection().run(&format!("CREATE TEMPORARY SEQUENCE IF NOT EXISTS {TRACE}")).await;
        let made = transaction.settle("barge_trace", made).await;
        if let Err(error) = &made {
            tracing::debug!(%error, "failing rows are searched for by halves");
        }
        *self.traced.insert(made.is_ok())
    }

    /// The place of the row that was written last, in the chunk that has just failed.
    async fn last_row(&mut self, transaction: &mut PostgresTransaction) -> Result<Option<usize>> {
        if self.traced != Some(true) {
            return Ok(None);
        }
        self.statements += 1;
        let sql = format!("SELECT last_value, is_called FROM pg_temp.{TRACE}");
        let rows = transaction.connection().query(&sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (last, called): (i64, bool) =
            (row.try_get(0).map_err(error_of)?, row.try_get(1).map_err(error_of)?);
        Ok(called.then_some(last as usize - 1))
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
        let keys = Batch { columns, rows: self.prepared.batch.rows };
        match key.iter().all(exact) {
            true => numbers_of(keys.columns.into_iter().map(|(array, _)| array).collect()),
            false => transaction.connection().key_groups(&keys).await,
        }
    }
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
    error.is_row() || matches!(error.kind(), CheckViolation | Statement | Unsupported)
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
    let fields = columns.iter().map(|array| SortField::new(array.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(&columns)?;
    let mut known = std::collections::HashMap::new();
    Ok(rows
        .iter()
        .map(|row| {
            let next = known.len() as u32;
            *known.entry(row.owned()).or_insert(next)
        })
        .collect())
}
