//! Rows sent: together, leaving out those that break a unique key, or one by one.

use arrow::array::Array;
use barge_core::store::{Applied, Operation, Outcome};
use barge_core::{Error, ErrorKind, Result, Transaction};

use super::{Search, may_be_a_rows};
use crate::apply::{Prepared, Way, is_plain, ordinals};
use crate::connection::{Call, answered, pipeline};
use crate::statements::{Rows, TRACE};
use crate::transaction::{PostgresTransaction, unclear};

/// The most rows that go one by one without waiting for those before.
const WINDOW: usize = 64;

/// Of more rows that go one by one, each as a statement of its own, the statement is prepared once.
const NAMED_MIN: usize = 4;

/// The most rows before one at which a COPY failed that are inserted: of more, what COPY saves is worth its round trips.
const INSERTED_MAX: usize = 1_000;

/// SQLSTATE of ON CONFLICT where a constraint is deferrable.
const NOT_IN_THIS_STATE: &str = "55000";

impl Search<'_> {
    /// Sends rows together and answers them. The inner error is a row's, and nothing of the rows is left then.
    pub(super) async fn chunk(
        &mut self,
        transaction: &mut PostgresTransaction,
        rows: &[u32],
    ) -> Result<Result<()>> {
        if self.copying.is_some() && rows.len() > 1 {
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
            // The user may insert, and not read what was inserted; or a deferrable constraint can't decide what is left out.
            Err(error)
                if (error.kind() == ErrorKind::Permission || error.code() == Some(NOT_IN_THIS_STATE))
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
        let Some(copying) = &self.copying else {
            return self.send(transaction, rows, Rows::Sorted).await;
        };
        let mut part = self.prepared.of_rows(rows)?;
        part.way = Way::Copy(copying.left_out);
        let Some(statement) = copying.statement.clone() else { return Err(unclear()) };
        self.statements += 1;
        let applied = part.copy(transaction.connection(), statement).await?;
        if applied.affected != rows.len() as u64 {
            return Err(unclear());
        }
        rows.iter().for_each(|&row| self.answer(row, Ok(Outcome::Inserted)));
        Ok(())
    }

    async fn send(&mut self, transaction: &mut PostgresTransaction, rows: &[u32], order: Rows) -> Result<()> {
        let mut part = self.prepared.of_rows(rows)?;
        let applied = transaction.send(&mut part, order).await?;
        self.take(rows, applied);
        Ok(())
    }

    /// Answers rows as a statement over them says.
    fn take(&mut self, rows: &[u32], applied: Applied) {
        self.statements += applied.statements;
        let outcomes = applied.outcomes.unwrap_or_default();
        for (place, (&row, outcome)) in rows.iter().zip(outcomes).enumerate() {
            if let Some(keys) = &applied.generated {
                self.keys[row as usize] = (!keys.is_null(place)).then(|| keys.value(place));
            }
            self.answer(row, Ok(outcome));
        }
    }

    /// Inserts the rows before one at which a COPY failed, and has that one fail alone, in one round trip where COPY would take three more.
    /// Gives whether it went so; if not, nothing was done.
    pub(super) async fn insert_up_to(
        &mut self,
        transaction: &mut PostgresTransaction,
        before: &[u32],
        failing: u32,
    ) -> Result<bool> {
        if before.is_empty() || before.len() > INSERTED_MAX.min(self.chunk_max) {
            return Ok(false);
        }
        self.prepared.name(transaction.connection()).await?;
        let (passing, alone) = (self.prepared.of_rows(before)?, self.prepared.of_rows(&[failing])?);
        if passing.wants_table() || alone.wants_table() {
            return Ok(false);
        }
        // Its text may be another than one row's.
        passing.prepare(transaction.connection()).await?;
        transaction.mark("barge_chunk");
        let sent = self.send_up_to(transaction, &passing, &alone).await;
        match transaction.settle("barge_chunk", sent).await {
            Ok((applied, error)) => {
                self.take(before, applied);
                self.statements += 1;
                self.reject(failing, error);
                Ok(true)
            }
            Err(error) if transaction.is_open() && may_be_a_rows(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What became of the rows that were to pass, and the error of the one that was to fail.
    async fn send_up_to(
        &self,
        transaction: &PostgresTransaction,
        passing: &Prepared<'_>,
        alone: &Prepared<'_>,
    ) -> Result<(Applied, Error)> {
        let connection = transaction.connection();
        let (mut passed, mut failed) = (None, None);
        let calls: Vec<Call<'_>> = vec![
            Box::pin(async { passed = Some(passing.run(connection, Rows::Sorted).await) }),
            Box::pin(async { drop(connection.run("SAVEPOINT barge_row").await) }),
            Box::pin(async { failed = Some(alone.run(connection, Rows::Sorted).await) }),
            Box::pin(async { drop(connection.run("ROLLBACK TO barge_row; RELEASE barge_row").await) }),
        ];
        pipeline(calls).await;
        let applied = answered(passed)?;
        let inserted = |outcomes: &Vec<Outcome>| outcomes.iter().all(|outcome| *outcome == Outcome::Inserted);
        match answered(failed) {
            _ if !applied.outcomes.as_ref().is_some_and(inserted) => Err(unclear()),
            Err(error) if may_be_a_rows(&error) && error.code().is_some() => Ok((applied, error)),
            Err(error) => Err(error),
            // It passes alone, and is gone again.
            Ok(_) => Err(unclear()),
        }
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
        let mut alone = Vec::new();
        for &row in skipped.iter().filter(|row| !broken.contains_key(row)) {
            alone.push((row, self.send_alone(transaction, row).await?));
        }
        // Answered at the end: where any of it fails, nothing was written.
        for (&row, _) in rows.iter().zip(left).filter(|(_, left)| !left) {
            self.answer(row, Ok(Outcome::Inserted));
        }
        broken.into_iter().for_each(|(row, error)| self.answer(row, Err(error)));
        for (row, answer) in alone {
            match answer {
                Ok(outcome) => self.answer(row, Ok(outcome)),
                Err(error) => self.reject(row, error),
            }
        }
        Ok(())
    }

    /// Sends one row and gives its answer. The outer error is not the row's.
    async fn send_alone(
        &mut self,
        transaction: &mut PostgresTransaction,
        row: u32,
    ) -> Result<Result<Outcome>> {
        let mut part = self.prepared.of_rows(&[row])?;
        transaction.mark("barge_alone");
        let sent = transaction.send(&mut part, Rows::Sorted).await;
        match transaction.settle("barge_alone", sent).await {
            Ok(applied) => {
                self.statements += applied.statements;
                let outcome = applied.outcomes.and_then(|outcomes| outcomes.into_iter().next());
                Ok(Ok(outcome.unwrap_or(Outcome::Unchanged)))
            }
            Err(error) if may_be_a_rows(&error) && transaction.is_open() => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }

    /// Sends rows one behind the other, each under its own savepoint, without waiting in between; goes on after one that fails.
    pub(super) async fn one_by_one(
        &mut self,
        transaction: &mut PostgresTransaction,
        rows: &[u32],
    ) -> Result<()> {
        // Of a row that is inserted alone its statement tells whether a trigger kept it out.
        let target = self.prepared.plan.target;
        let told = is_plain(target) || !matches!(target.operation, Operation::Update | Operation::Delete);
        let together = told && self.prepared.way != Way::UpdateThenInsert;
        if together && rows.len() > NAMED_MIN {
            self.prepared.name(transaction.connection()).await?;
        }
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
}
