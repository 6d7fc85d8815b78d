//! A transaction: its own clone of the state, put in the place of the committed one by COMMIT.

use std::sync::atomic::Ordering;

use arrow::array::{Int64Array, RecordBatch};
use async_trait::async_trait;
use barge_core::store::{Applied, AppliedRows, CommitError, Description, LookUp, Query, Step, Target, Token};
use barge_core::{Error, ErrorKind, Result, TableName, Transaction};
use tokio::sync::OwnedSemaphorePermit;

use super::state::State;
use super::statement::{Plan, RowResult, Statement};
use super::{MemoryStore, MemoryTable, no_sql};

pub(super) struct MemoryTransaction {
    store: MemoryStore,
    state: State,
    /// The right to write; given back when the transaction is dropped.
    _permit: OwnedSemaphorePermit,
    /// Why the transaction is gone, where it is.
    gone: Option<Error>,
    untouched: bool,
}

impl MemoryTransaction {
    pub(super) fn new(store: MemoryStore, permit: OwnedSemaphorePermit) -> Self {
        let state = store.committed();
        MemoryTransaction { store, state, _permit: permit, gone: None, untouched: true }
    }

    fn touch(&mut self) -> Result<()> {
        self.untouched = false;
        match &self.gone {
            Some(error) => Err(error.clone().context("the transaction was ended by a failure before")),
            None => Ok(()),
        }
    }

    /// Runs a statement on a clone of the state and keeps the clone where it succeeds.
    fn statement<T>(&mut self, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.touch()?;
        let mut state = self.state.clone();
        let result = run(&mut state);
        match &result {
            Ok(_) => {
                self.state = state;
                self.store.0.steps.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if self.store.0.options.failure_ends_transaction => self.gone = Some(error.clone()),
            Err(_) => {}
        }
        result
    }
}

#[async_trait]
impl Transaction for MemoryTransaction {
    async fn apply(&mut self, step: &Step) -> Result<Applied> {
        self.statement(|state| {
            let plan = Plan::new(state, &step.target)?;
            let mut statement = Statement::new(state, &plan);
            let rows = (0..step.batch.num_rows()).map(|row| statement.row(&step.batch, row));
            let rows: Vec<RowResult> = rows.collect::<Result<_>>()?;
            statement.finish()?;
            let draws = step.outcomes && step.target.generated().is_some();
            Ok(Applied {
                affected: rows.iter().map(|row| row.affected).sum(),
                outcomes: step.outcomes.then(|| rows.iter().map(|row| row.outcome).collect()),
                generated: draws.then(|| rows.iter().map(|row| row.generated).collect()),
                statements: 1,
            })
        })
    }

    async fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        self.statement(|state| {
            let plan = Plan::new(state, &step.target)?;
            let mut outcomes = Vec::with_capacity(step.batch.num_rows());
            let mut generated = Vec::with_capacity(step.batch.num_rows());
            for row in 0..step.batch.num_rows() {
                let before = state.clone();
                let mut statement = Statement::new(state, &plan);
                let result = statement.row(&step.batch, row);
                let result = result.and_then(|result| statement.finish().map(|()| result));
                let result = result.map_err(|error| error.with_row(row as u64));
                if let Err(error) = &result {
                    *state = before;
                    if !error.is_row() {
                        return Err(error.clone());
                    }
                }
                generated.push(result.as_ref().ok().and_then(|result| result.generated));
                outcomes.push(result.map(|result| result.outcome));
            }
            let draws = step.target.generated().is_some();
            let generated = draws.then(|| Int64Array::from(generated));
            Ok(AppliedRows { outcomes, generated, statements: step.batch.num_rows() as u32 })
        })
    }

    async fn over(&mut self, _query: &Query) -> Result<RecordBatch> {
        self.touch()?;
        Err(no_sql())
    }

    async fn execute(&mut self, sql: &str) -> Result<u64> {
        let table = MemoryTable::from_text(sql).ok_or_else(no_sql)?;
        self.statement(|state| state.create(table))?;
        Ok(0)
    }

    async fn describe(&mut self, table: &TableName) -> Result<Description> {
        self.touch()?;
        self.state.describe(table)
    }

    async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        self.touch()?;
        self.state.key_groups(target, keys)
    }

    async fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        self.touch()?;
        self.state.look_up(look_up)
    }

    async fn claim(&mut self, token: &Token) -> Result<bool> {
        if !self.untouched {
            return Err(Error::new(ErrorKind::Statement, "a token is claimed before anything else is done"));
        }
        self.touch()?;
        Ok(self.state.claim(token))
    }

    fn is_open(&self) -> bool {
        self.gone.is_none()
    }

    async fn commit(mut self: Box<Self>) -> Result<(), CommitError> {
        self.touch()?;
        let time = self.store.0.options.commit_time;
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        self.store.travel().await;
        self.store.set_committed(std::mem::take(&mut self.state));
        self.store.0.commits.fetch_add(1, Ordering::Relaxed);
        self.store.travel().await;
        Ok(())
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
