//! A transaction of several operations.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tokio::runtime::Handle;
use tracing::Instrument;
use tracing::instrument::WithSubscriber;

use super::descriptions::{Asked, Descriptions};
use super::look_up::{Place, Wanted, look_up};
use super::{Core, LookUpBy, Written};
use crate::engine::writer::answers::Answers;
use crate::engine::writer::keys::find_keys;
use crate::engine::writer::plan::{Part, drawn, group, runs};
use crate::store::{
    Alters, Change, ChangedRows, CommitError, CommitOutcome, Operation, Query, Sql, Step, Transaction,
    changes_no_rows, ends_transaction,
};
use crate::{Error, ErrorKind, FromRow, Key, Keys, Record, Result, Table, TableName};

/// A transaction of several operations.
///
/// Dropping it rolls it back. After an operation failed, or its future was dropped before it was done, [`commit`](Tx::commit) refuses: a
/// transaction is never committed in part.
#[must_use = "dropping a transaction rolls it back"]
pub struct Tx {
    core: Arc<Core>,
    transaction: Box<dyn Transaction>,
    changes: Changes,
    failure: Option<Error>,
    /// Tables as this transaction sees them, once it ran statements that may have changed them.
    own: Option<Descriptions>,
    /// Whether it ran a statement that may have changed rows, nobody knows of which table.
    wrote: bool,
    /// Whether it was said which tables its statements change.
    declared: bool,
    /// Whether it changed tables, so that others will see them changed.
    alters_tables: bool,
}

impl Tx {
    pub(super) async fn begin(core: &Arc<Core>) -> Result<Self> {
        let transaction = core.store.begin().await?;
        Ok(Tx {
            core: Arc::clone(core),
            transaction,
            changes: Changes::default(),
            failure: None,
            own: None,
            wrote: false,
            declared: false,
            alters_tables: false,
        })
    }

    /// Adds all rows, or fails.
    ///
    /// # Errors
    /// A failing row's error, with its place among `records`; the transaction then can't be committed.
    pub async fn insert_all<R: Record>(&mut self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::Insert, records).await
    }

    /// Adds all rows whose keys are not there, or fails.
    ///
    /// # Errors
    /// As [`insert_all`](Tx::insert_all).
    pub async fn insert_all_if_absent<R: Record>(&mut self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::InsertIfAbsent, records).await
    }

    /// Adds or updates all rows, or fails.
    ///
    /// # Errors
    /// As [`insert_all`](Tx::insert_all).
    pub async fn upsert_all<R: Record>(&mut self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::Upsert, records).await
    }

    /// Updates all rows that are there, or fails.
    ///
    /// # Errors
    /// As [`insert_all`](Tx::insert_all).
    pub async fn update_all<R: Record>(&mut self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::Update, records).await
    }

    /// Removes all rows that are there, or fails.
    ///
    /// # Errors
    /// As [`insert_all`](Tx::insert_all).
    pub async fn delete_all<R: Record>(&mut self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::Delete, records).await
    }

    async fn write_all<R: Record>(&mut self, operation: Operation, records: &[R]) -> Result<Written> {
        self.check()?;
        self.fail_if_dropped();
        let written = self.send_all(operation, records).await;
        self.remember(written)
    }

    async fn send_all<R: Record>(&mut self, operation: Operation, records: &[R]) -> Result<Written> {
        if records.is_empty() {
            return Ok(Written::default());
        }
        // Over its own connection: waiting for a second one, transactions might wait for each other.
        let descriptions = self.own.as_ref().unwrap_or(&self.core.descriptions);
        let mut asked = Asked::Transaction(&mut *self.transaction);
        let target = descriptions.target(&mut asked, R::table(), operation).await?;
        let Some(part) = self.core.part(target, records)? else { return Ok(Written::default()) };
        self.changes.note(part.change(&*self.core.store, true));
        self.send(&part, records.len() as u32).await
    }

    async fn send(&mut self, part: &Part, rows: u32) -> Result<Written> {
        let parts = std::slice::from_ref(part);
        let keys = find_keys(&mut Asked::Transaction(&mut *self.transaction), parts, false).await?;
        let mut answers = Answers::new(rows, true);
        if let Some(steps) = group(parts, &keys)? {
            for planned in steps {
                let step = Step { outcomes: true, ..planned.step.clone() };
                let applied = self.transaction.apply(&step).await?;
                let outcomes = applied.outcomes.unwrap_or_default();
                let own = planned.arrivals.iter().copied().zip(outcomes.iter().copied());
                for (arrival, outcome) in own.chain(planned.followed(&outcomes)) {
                    answers.set(arrival, outcome);
                }
                if let Some(keys) = &applied.generated {
                    drawn(&step, keys).into_iter().for_each(|drawn| self.changes.note(drawn));
                    for (row, &arrival) in planned.arrivals.iter().enumerate() {
                        answers.set_generated(arrival, keys, row, rows);
                    }
                }
            }
        } else {
            for run in runs(parts) {
                let batch = part.batch.slice(run.start, run.rows);
                let step = Step { target: part.target.clone(), batch, outcomes: true };
                let applied = self.transaction.apply_rows(&step).await?;
                if let Some(drawn) = applied.generated.as_ref().and_then(|keys| drawn(&step, keys)) {
                    self.changes.note(drawn);
                }
                for (place, outcome) in applied.outcomes.into_iter().enumerate() {
                    let arrival = part.arrivals[run.start + place];
                    answers.set(arrival, outcome.map_err(|error| error.with_row(arrival.into()))?);
                    if let Some(keys) = &applied.generated {
                        answers.set_generated(arrival, keys, place, rows);
                    }
                }
            }
        }
        Written::new(answers)
    }

    /// The rows with these keys, in the keys' order, as this transaction sees them.
    ///
    /// # Errors
    /// As [`Database::get_all`](crate::Database::get_all).
    pub async fn get_all<R: Record + FromRow, K: Key>(&mut self, keys: &[K]) -> Result<Vec<Option<R>>> {
        self.check()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.find::<R, _>(&Wanted::new::<R, K>(keys)?).await
    }

    /// The rows of each key by other columns, in the keys' order, as this transaction sees them.
    ///
    /// # Errors
    /// As [`Database::get_by`](crate::Database::get_by).
    pub async fn get_by<R: Record + FromRow, K: Key>(
        &mut self,
        by: impl Into<LookUpBy>,
        keys: &[K],
    ) -> Result<Vec<Vec<R>>> {
        self.check()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let descriptions = self.own.as_ref().unwrap_or(&self.core.descriptions);
        let mut asked = Asked::Transaction(&mut *self.transaction);
        let wanted = Wanted::by::<R, K>(descriptions, &mut asked, &by.into(), keys).await?;
        self.find::<R, _>(&wanted).await
    }

    async fn find<R: FromRow, P: Place<R>>(&mut self, wanted: &Wanted) -> Result<Vec<P>> {
        let found = self.transaction.look_up(&wanted.look_up).await.map_err(|error| wanted.error(error));
        let mut rows = wanted.rows::<R, P>();
        rows.take(&self.remember(found)?)?;
        Ok(rows.found)
    }

    /// The rows of each key as one record batch, as this transaction sees them: what [`Database::look_up`](crate::Database::look_up) streams.
    ///
    /// # Errors
    /// As [`Database::get_by`](crate::Database::get_by).
    pub async fn look_up(
        &mut self,
        table: &Table,
        by: impl Into<LookUpBy>,
        keys: impl Keys,
    ) -> Result<RecordBatch> {
        self.check()?;
        let descriptions = self.own.as_ref().unwrap_or(&self.core.descriptions);
        let mut asked = Asked::Transaction(&mut *self.transaction);
        let look_up = look_up(descriptions, &mut asked, table, &by.into(), keys).await?;
        let found = self.transaction.look_up(&look_up).await;
        self.remember(found)
    }

    /// Runs your own statement over a batch, which the text calls `{batch}`: its columns, and `_ordinal`, the row's place
    /// in it. Returns the rows it gives.
    ///
    /// The text is in the store's own SQL. A batch that joins a row of the table twice updates it once, with
    /// either of the two. Say which tables it changes with [`writes`](Tx::writes), where look-ups are cached.
    ///
    /// # Errors
    /// What the database reports; the transaction then can't be committed.
    pub async fn over(&mut self, batch: &RecordBatch, sql: impl Into<Sql>) -> Result<RecordBatch> {
        let sql = self.statement(sql)?;
        let query = Query { batch: Some(batch.clone()), ..Query::new(sql) };
        self.fail_if_dropped();
        let rows = self.transaction.over(&query).await;
        self.remember(rows)
    }

    /// Runs one statement without a batch, and returns the number of rows it changed. It may change tables: this transaction describes them anew,
    /// and with its commit what Barge remembers of them is forgotten; not for statements that begin with INSERT, UPDATE, DELETE or MERGE.
    /// Statements that end the transaction are refused.
    ///
    /// # Errors
    /// What the database reports; the transaction then can't be committed.
    pub async fn execute(&mut self, sql: impl Into<Sql>) -> Result<u64> {
        let sql = self.statement(sql)?;
        self.fail_if_dropped();
        let changed = self.transaction.execute(&sql).await;
        self.remember(changed)
    }

    /// A statement of the user's to run, after which tables that it may change are described anew.
    fn statement(&mut self, sql: impl Into<Sql>) -> Result<String> {
        self.check()?;
        let sql = sql.into().text(self.core.store.dialect()).to_owned();
        if ends_transaction(&sql) {
            let message =
                "a transaction begins by `begin`, and ends by `commit` or `rollback`, not by a statement";
            return self.remember(Err(Error::new(ErrorKind::Unsupported, message)));
        }
        let alters = Alters::of(&sql);
        if alters != Alters::Nothing {
            self.own = Some(Descriptions::default());
        }
        self.alters_tables |= alters == Alters::Tables;
        self.wrote |= !changes_no_rows(&sql);
        Ok(sql)
    }

    /// Says that this transaction changes rows of a table by [`over`](Tx::over) or [`execute`](Tx::execute): caches forget what they hold of
    /// it. Where nothing is said and such a statement may change rows, they forget what they hold of every table; a SELECT doesn't,
    /// nor do SET, SAVEPOINT, LOCK, a WITH without INSERT, UPDATE, DELETE or MERGE, and an EXPLAIN that carries nothing out. A name with a dot, as in SQL, stands also for
    /// the table behind its last dot, in whichever schema.
    pub fn writes(&mut self, table: impl Into<TableName>) {
        self.declared = true;
        let table = table.into();
        if let (None, Some((_, name))) = (table.schema(), table.name().rsplit_once('.')) {
            let table = Some(TableName::new(name.trim_matches('"')));
            self.changes.note(Change { table, rows: ChangedRows::Any });
        }
        self.changes.note(Change { table: Some(table), rows: ChangedRows::Any });
    }

    /// Commits, in a task of its own on the present tokio runtime: once this was polled it is carried out, also where the future is dropped then.
    ///
    /// # Errors
    /// Where an operation failed before, or the database refuses; nothing is written then. A connection lost meanwhile leaves that
    /// open, and the error says so.
    pub async fn commit(self) -> Result<()> {
        self.end().await.map_err(Error::from)
    }

    /// Rolls back, and waits until it's done.
    ///
    /// # Errors
    /// What the connection reports.
    pub async fn rollback(self) -> Result<()> {
        self.transaction.rollback().await
    }

    pub(super) async fn end(mut self) -> Result<(), CommitError> {
        if let Some(failure) = self.failure {
            self.transaction.rollback().await?;
            return Err(failure
                .context("the transaction was rolled back, because an operation in it failed")
                .into());
        }
        if self.wrote && !self.declared {
            tracing::debug!(
                "a statement of a transaction may have changed any table: caches drop all rows, unless `Tx::writes` says which"
            );
            self.changes.note(Change { table: None, rows: ChangedRows::Any });
        }
        let Tx { core, transaction, changes, alters_tables, .. } = self;
        let changes = changes.into_told();
        // One that only read is no commit that anybody has to know of.
        let fence = (!changes.is_empty()).then(|| core.observers.raise(|| changes));
        let committing = async move {
            let committed = transaction.commit().await;
            if alters_tables {
                core.descriptions.forget_all();
            }
            let outcome = match &committed {
                Ok(()) => CommitOutcome::Committed,
                Err(CommitError::RolledBack(_)) => CommitOutcome::RolledBack,
                Err(CommitError::Unknown { .. }) => CommitOutcome::Unknown,
            };
            if let Some(fence) = fence {
                fence.lower(outcome);
            }
            committed
        };
        // In a task of its own: where nobody waits for it any more, caches are told all the same how it ended.
        let Ok(runtime) = Handle::try_current() else { return committing.await };
        match runtime.spawn(committing.in_current_span().with_current_subscriber()).await {
            Ok(committed) => committed,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => {
                let error =
                    Error::new(ErrorKind::Closed, "the runtime ended while the transaction was committed");
                Err(CommitError::Unknown { error, applied: () })
            }
        }
    }

    fn check(&self) -> Result<()> {
        match &self.failure {
            Some(failure) => Err(failure.clone().context("the transaction failed before")),
            None => Ok(()),
        }
    }

    /// Dropped on the way, some of an operation may have been done: that counts as a failure until it is [remembered](Self::remember) how it
    /// ended.
    fn fail_if_dropped(&mut self) {
        self.failure = Some(Error::new(ErrorKind::Closed, "an operation was cancelled before it was done"));
    }

    fn remember<T>(&mut self, result: Result<T>) -> Result<T> {
        self.failure = result.as_ref().err().cloned();
        result
    }
}

/// So many keys and changes are remembered of a transaction; beyond, whole tables are.
const NOTED_MAX: usize = 1 << 16;

/// What observers of a commit will be told; there may be some by then.
#[derive(Default)]
struct Changes {
    /// Tables of which any row may have changed; `None` stands for all.
    any: Vec<Option<TableName>>,
    rows: Vec<Change>,
    /// How many keys those name, and changes they are.
    noted: usize,
}

impl Changes {
    fn note(&mut self, change: Change) {
        if self.any.contains(&change.table) {
            return;
        }
        let keys = match &change.rows {
            ChangedRows::Any => {
                self.rows.retain(|other| other.table != change.table);
                return self.any.push(change.table);
            }
            ChangedRows::Keys(keys) | ChangedRows::Drawn(keys) | ChangedRows::Added(keys) => keys.num_rows(),
        };
        self.noted += 1 + keys;
        self.rows.push(change);
        if self.noted > NOTED_MAX {
            self.noted = 0;
            for Change { table, .. } in std::mem::take(&mut self.rows) {
                if !self.any.contains(&table) {
                    self.any.push(table);
                }
            }
        }
    }

    fn into_told(self) -> Vec<Change> {
        let any = self.any.into_iter().map(|table| Change { table, rows: ChangedRows::Any });
        self.rows.into_iter().chain(any).collect()
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("failure", &self.failure).finish_non_exhaustive()
    }
}
