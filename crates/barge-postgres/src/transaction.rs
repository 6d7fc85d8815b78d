//! A transaction: one connection, held from BEGIN to its end.
//!
//! A statement that fails in PostgreSQL takes its transaction with it. So each step has a savepoint, set and released without waiting
//! for it; only after a failure the connection is asked to go back.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use async_trait::async_trait;
use barge_core::store::{
    Alters, Applied, AppliedRows, CommitError, Description, LookUp, Operation, Outcome, Query, Step, Target,
    Token, changes_session,
};
use barge_core::{Error, ErrorKind, Result, TableName, Transaction};

use crate::apply::{Prepared, Way, copy_in, is_plain, missing, ordinals};
use crate::batch::Batch;
use crate::connection::{Connection, pipeline};
use crate::error::{READ_ONLY, ended, error_of, leaves_commit_unknown};
use crate::look_up::Lookups;
use crate::read::{Reading, keys_of};
use crate::statements::{Rows, Source};
use crate::types::PgType;

/// The most rounds of an upsert that updates first and inserts then: each further one needs another process that inserted or deleted
/// the row in between.
const UPSERT_ROUNDS: usize = 100;

/// An open transaction. Dropped before its end, its connection rolls back.
pub(crate) struct PostgresTransaction {
    connection: Connection,
    lookups: Arc<Lookups>,
    /// Tables as look-ups of this transaction see them, once it ran statements that may have changed them.
    own_lookups: Option<Arc<Lookups>>,
    /// Whether it changed tables, so that others will see them changed.
    alters_tables: bool,
    state: State,
    /// Temporary tables made so far.
    tables: usize,
    /// Whether joins keep to the order of keys.
    in_order: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    /// An error ended it; the server still has to be told.
    Failed,
    /// Committed or rolled back.
    Over,
}

impl PostgresTransaction {
    pub(crate) async fn begin(connection: Connection, lookups: Arc<Lookups>) -> Result<Self> {
        // Made before BEGIN is sent: whoever gives up waiting for it must leave no open transaction behind.
        let transaction = PostgresTransaction {
            connection,
            lookups,
            own_lookups: None,
            alters_tables: false,
            state: State::Open,
            tables: 0,
            in_order: false,
        };
        transaction.connection.run("BEGIN").await?;
        Ok(transaction)
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.state == State::Open { Ok(()) } else { Err(ended()) }
    }

    /// Marks what is done from here on, to go back to.
    pub(crate) fn mark(&self, savepoint: &str) {
        self.connection.send(&format!("SAVEPOINT {savepoint}"));
    }

    /// Keeps what was done since the mark, or goes back to it. A failure of the connection ends the transaction.
    pub(crate) async fn settle<T>(&mut self, savepoint: &str, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => {
                self.connection.send(&format!("RELEASE {savepoint}"));
                Ok(value)
            }
            Err(error) => {
                let back = format!("ROLLBACK TO {savepoint}; RELEASE {savepoint}");
                if error.code() == Some(ABORTED) || self.connection.is_out_of_step() {
                    // An earlier way back, which was not waited for, was refused; or there is none.
                    self.state = State::Failed;
                } else if error.code().is_some() && error.kind() != ErrorKind::ConnectionLost {
                    // The server refused something, so it is there, and takes this without being waited for.
                    self.connection.send(&back);
                } else if self.connection.run(&back).await.is_err() {
                    self.state = State::Failed;
                }
                Err(error)
            }
        }
    }

    /// Has joins keep to the order of keys for updates and deletes, and leaves them to the planner for other statements.
    fn join_for(&mut self, step: Option<&Step>) {
        let in_order = step.is_some_and(meets_others);
        if in_order != self.in_order {
            self.connection.send(if in_order { IN_ORDER } else { IN_ANY_ORDER });
            self.in_order = in_order;
        }
    }

    /// Sees to it that tables which a statement may change are described anew for look-ups.
    fn may_alter(&mut self, sql: &str) {
        self.join_for(None);
        if changes_session(sql) {
            // It is not for whoever would get the connection next.
            self.connection.spoil();
        }
        let alters = Alters::of(sql);
        if alters != Alters::Nothing {
            self.own_lookups = Some(Arc::default());
        }
        self.alters_tables |= alters == Alters::Tables;
    }

    async fn try_look_up(&mut self, lookups: &Lookups, look_up: &LookUp) -> Result<RecordBatch> {
        self.whole(async |transaction| {
            let readings = lookups.readings(&transaction.connection, look_up).await?;
            Reading::collect_all(&readings, &transaction.connection).await
        })
        .await
    }

    /// Runs something whole or not at all.
    async fn whole<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.check_open()?;
        self.mark("barge_step");
        let done = work(self).await;
        self.settle("barge_step", done).await
    }

    /// Sends a prepared step. What a failure leaves behind is the caller's to undo.
    pub(crate) async fn send(&mut self, prepared: &mut Prepared<'_>, rows: Rows) -> Result<Applied> {
        let mut statements = 0;
        if prepared.wants_table() {
            prepared.plan.source = Source::Table(self.table_of(&prepared.batch).await?);
            statements += 2;
        }
        let mut applied = match prepared.way {
            Way::Copy(left_out) => {
                let statement = prepared.plan.prepare_copy(&self.connection, left_out).await?;
                prepared.copy(&self.connection, statement).await?
            }
            Way::UpdateThenInsert => self.update_then_insert(prepared).await?,
            Way::Count | Way::CountFirst | Way::Ordinals | Way::Drawn(_) => {
                prepared.run(&self.connection, rows).await?
            }
        };
        applied.statements += statements;
        // What keeps rows out may have come after the table was described.
        if prepared.outcomes && (applied.outcomes.is_none() || !is_plain(prepared.plan.target)) {
            self.tell_kept_out(prepared, &mut applied).await?;
        }
        Ok(applied)
    }

    /// Where triggers, rules or policies may keep rows out: tells which rows they kept.
    async fn tell_kept_out(&mut self, prepared: &Prepared<'_>, applied: &mut Applied) -> Result<()> {
        let lone = prepared.batch.rows == 1;
        let Some(outcomes) = &mut applied.outcomes else {
            // Fewer rows were written than were sent, or under other keys, and nothing tells which: the caller goes row by row.
            if !lone {
                return Err(unclear());
            }
            applied.outcomes = Some(vec![Outcome::Unchanged]);
            return Ok(());
        };
        let left = missing(prepared.plan.target.operation);
        // What changed nothing at all kept every row out, or found it there. Of drawn keys only those are counted that no trigger changed.
        let is_drawn = matches!(prepared.way, Way::Drawn(_));
        let is_told = left == Outcome::Unchanged && (lone || (applied.affected == 0 && !is_drawn));
        if is_told || !outcomes.contains(&left) {
            return Ok(());
        }
        if is_drawn {
            return Err(unclear());
        }
        let mut there = vec![false; outcomes.len()];
        applied.statements += 1;
        for place in self.places_there(prepared).await? {
            there[place] = true;
        }
        for (outcome, there) in outcomes.iter_mut().zip(there).filter(|(outcome, _)| **outcome == left) {
            match there {
                // A row that was not changed and is there was kept as it is.
                true => *outcome = Outcome::Unchanged,
                // A trigger kept it out, or gave it the key of another row, which then is the one that was there.
                false if left == Outcome::Unchanged => return Err(unclear()),
                false => {}
            }
        }
        Ok(())
    }

    /// The places of the rows whose keys are in the table.
    async fn places_there(&mut self, prepared: &Prepared<'_>) -> Result<Vec<usize>> {
        let parameters = prepared.batch.parameters();
        let bound = match prepared.plan.source {
            Source::Arrays => parameters.bind(),
            Source::Table(_) => Vec::new(),
        };
        ordinals(&self.connection.query(&prepared.plan.matching(), &bound).await?)
    }

    /// Puts a batch into a temporary table that ends with the transaction, and gives its name.
    async fn table_of(&mut self, batch: &Batch) -> Result<String> {
        self.tables += 1;
        let name = format!("barge_batch_{}", self.tables);
        let columns: Vec<String> = batch
            .columns
            .iter()
            .enumerate()
            .map(|(index, (_, pg_type))| format!("c{index} {}{}, ", pg_type.sql, pg_type.collate()))
            .collect();
        let sql =
            format!("CREATE TEMPORARY TABLE {name} ({}_ordinal bigint) ON COMMIT DROP", columns.concat());
        self.connection.run(&sql).await?;
        let statement =
            self.connection.named(&format!("COPY {name} FROM STDIN (FORMAT binary)"), &[]).await?;
        let mut columns = batch.columns.clone();
        let ordinals = Int64Array::from_iter_values(0..batch.rows as i64);
        columns.push((Arc::new(ordinals), PgType::parse("bigint")));
        let sink = copy_in(&self.connection, statement, &columns, batch.rows).await?;
        self.connection.finish(sink).await?;
        Ok(name)
    }

    /// Upserts where the database doesn't tell new rows from old ones, as in a partitioned table.
    async fn update_then_insert(&mut self, prepared: &Prepared<'_>) -> Result<Applied> {
        let target = prepared.plan.target;
        let mut outcomes = vec![None; prepared.batch.rows];
        let mut rest: Vec<u32> = (0..prepared.batch.rows as u32).collect();
        let mut statements = 0;
        for _ in 0..UPSERT_ROUNDS {
            for (operation, outcome) in
                [(Operation::Update, Outcome::Updated), (Operation::InsertIfAbsent, Outcome::Inserted)]
            {
                let batch = prepared.batch.select(&rest)?;
                let parameters = batch.parameters();
                let rows = if rest.len() == 1 { Rows::Alone } else { Rows::Sorted };
                let sql = prepared.plan.write_as(operation, rows);
                statements += 1;
                for row in self.connection.query(&sql, &parameters.bind()).await? {
                    let ordinal: Option<i64> = row.try_get(0).map_err(error_of)?;
                    let place = ordinal.and_then(|ordinal| usize::try_from(ordinal).ok());
                    let row = place.and_then(|place| rest.get(place)).ok_or_else(unclear)?;
                    outcomes[*row as usize] = Some(outcome);
                }
                rest.retain(|&row| outcomes[row as usize].is_none());
                if rest.is_empty() {
                    let affected = outcomes.len() as u64;
                    let outcomes = outcomes.into_iter().flatten().collect();
                    return Ok(Applied { affected, outcomes: Some(outcomes), generated: None, statements });
                }
            }
            if !is_plain(target) {
                // A trigger keeps them out, and would again.
                let affected = (outcomes.len() - rest.len()) as u64;
                let outcomes =
                    outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Unchanged)).collect();
                return Ok(Applied { affected, outcomes: Some(outcomes), generated: None, statements });
            }
        }
        let message = "rows were inserted and deleted by others again and again while they were upserted";
        Err(Error::new(ErrorKind::SerializationFailure, message))
    }

    /// All rows or none, row by row where it must be known what triggers did with each.
    async fn each_row(&mut self, step: &Step) -> Result<Applied> {
        let applied = crate::rows::apply_rows(self, step, None).await?;
        Ok(Applied {
            affected: applied
                .outcomes
                .iter()
                .filter(|outcome| !matches!(outcome, Ok(Outcome::Unchanged | Outcome::NotFound)))
                .count() as u64,
            outcomes: Some(applied.outcomes.into_iter().collect::<Result<_>>()?),
            generated: applied.generated,
            statements: applied.statements,
        })
    }
}

/// Updates and deletes join the sorted batch with the table. A hash join would take the rows in the table's order, which two writers
/// need not find the same: deadlocks. Other joins keep to the keys' order. Servers that don't know the setting need none.
pub(crate) const IN_ORDER: &str = "SELECT CASE WHEN current_setting('enable_hashjoin', true) IS NOT NULL \
    THEN set_config('enable_hashjoin', 'off', true) END";

/// Takes that back to what the session has.
const IN_ANY_ORDER: &str =
    "SELECT set_config(name, reset_val, true) FROM pg_catalog.pg_settings WHERE name = 'enable_hashjoin'";

/// Whether a step locks several rows that are there.
pub(crate) fn meets_others(step: &Step) -> bool {
    step.batch.num_rows() > 1 && matches!(step.target.operation, Operation::Update | Operation::Delete)
}

/// Stands for an insert of which it isn't known which rows were kept out.
pub(crate) fn unclear() -> Error {
    Error::new(ErrorKind::Unsupported, "triggers kept some rows out").with_code(UNCLEAR)
}

/// SQLSTATE of a statement in a transaction that failed before.
pub(crate) const ABORTED: &str = "25P02";

pub(crate) const UNCLEAR: &str = "barge: unclear";

/// Stands for a table whose columns have other types than they were described with.
pub(crate) const RESHAPED: &str = "barge: reshaped";

/// An error of a step, with the table it speaks of.
pub(crate) fn of_step(error: Error, step: &Step) -> Error {
    match error.kind() {
        // The server has become a standby: what connects anew may find the one that took its place.
        _ if error.code() == Some(READ_ONLY) => {
            let message = format!("the server only reads: {}", error.message());
            Error::new(ErrorKind::ConnectionLost, message).with_code(READ_ONLY).with_source(error)
        }
        ErrorKind::ConnectionLost | ErrorKind::MissingTable | ErrorKind::Timeout => error,
        _ => error.with_table(step.target.table().to_string()),
    }
}

#[async_trait]
impl Transaction for PostgresTransaction {
    async fn apply(&mut self, step: &Step) -> Result<Applied> {
        let mut prepared = Prepared::new(step, self.connection.without())?;
        self.join_for(Some(step));
        let applied =
            self.whole(async |transaction| transaction.send(&mut prepared, Rows::Sorted).await).await;
        let applied = match applied {
            Err(error) if error.code() == Some(UNCLEAR) => {
                self.whole(async |transaction| transaction.each_row(step).await).await
            }
            applied => applied,
        };
        applied.map_err(|error| of_step(error, step))
    }

    async fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        self.check_open()?;
        self.join_for(Some(step));
        crate::rows::apply_rows(self, step, None).await.map_err(|error| of_step(error, step))
    }

    async fn apply_refused(&mut self, step: &Step, refused: &Error) -> Result<AppliedRows> {
        self.check_open()?;
        self.join_for(Some(step));
        crate::rows::apply_rows(self, step, Some(refused)).await.map_err(|error| of_step(error, step))
    }

    async fn over(&mut self, query: &Query) -> Result<RecordBatch> {
        self.may_alter(&query.sql);
        self.whole(async |transaction| {
            let reading = Reading::over(query)?;
            reading.collect(&transaction.connection).await
        })
        .await
    }

    async fn execute(&mut self, sql: &str) -> Result<u64> {
        self.may_alter(sql);
        self.whole(async |transaction| transaction.connection.execute(sql, &[]).await).await
    }

    async fn check_deferred_at_once(&mut self) -> Result<()> {
        self.whole(async |transaction| transaction.connection.run("SET CONSTRAINTS ALL IMMEDIATE").await)
            .await
    }

    async fn describe(&mut self, table: &TableName) -> Result<Description> {
        self.whole(async |transaction| transaction.connection.describe(table).await).await
    }

    async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        let keys = keys_of(target, keys)?;
        self.whole(async |transaction| transaction.connection.key_groups(&keys).await).await
    }

    async fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        let name = look_up.table.name();
        let lookups = self.own_lookups.as_ref().unwrap_or(&self.lookups);
        let lookups = Arc::clone(lookups);
        let known = lookups.known(name);
        let found = self.try_look_up(&lookups, look_up).await;
        let (Err(error), Some(known)) = (&found, known) else { return found };
        if error.is_retryable() || !self.is_open() {
            return found;
        }
        let asked =
            async |transaction: &mut Self| lookups.is_changed(&transaction.connection, name, &known).await;
        match self.whole(asked).await {
            Ok(true) => self.try_look_up(&lookups, look_up).await,
            _ => found,
        }
    }

    async fn claim(&mut self, token: &Token) -> Result<bool> {
        self.check_open()?;
        let mut claimed = self.connection.claim(token).await;
        if claimed.as_ref().is_err_and(|error| error.kind() == ErrorKind::MissingTable) {
            // It is the first call, so nothing is lost by going out of the transaction to make the table.
            self.connection.run("ROLLBACK").await?;
            self.connection.create_flushes().await?;
            self.connection.run("BEGIN").await?;
            claimed = self.connection.claim(token).await;
        }
        if !matches!(claimed, Ok(true)) {
            self.state = State::Failed;
        }
        claimed
    }

    fn is_open(&self) -> bool {
        self.state == State::Open
    }

    async fn commit(mut self: Box<Self>) -> Result<(), CommitError> {
        self.check_open()?;
        let (mut sound, mut committed) = (Ok(()), Ok(()));
        // COMMIT of a transaction that failed unseen would say nothing of it: statements were sent whose answer nobody waited for.
        pipeline(vec![
            Box::pin(async { sound = self.connection.run("SELECT 1").await }),
            Box::pin(async { committed = self.connection.end("COMMIT").await }),
        ])
        .await;
        self.state = State::Over;
        if self.alters_tables {
            self.lookups.forget_all();
        }
        match (sound, committed) {
            (Err(error), _) if error.code().is_some() && error.kind() != ErrorKind::ConnectionLost => {
                Err(CommitError::RolledBack(error.context("the transaction had failed before its end")))
            }
            (_, Ok(())) => Ok(()),
            (_, Err(error)) if leaves_commit_unknown(&error) => {
                Err(CommitError::Unknown { error: error_of(error), applied: () })
            }
            // A constraint that waited for COMMIT: the server has rolled back.
            (_, Err(error)) => Err(CommitError::RolledBack(error_of(error))),
        }
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        let rolled_back = self.connection.end("ROLLBACK").await.map_err(error_of);
        self.state = State::Over;
        match rolled_back {
            // A connection that is gone took the transaction with it.
            Err(error) if error.kind() != ErrorKind::ConnectionLost => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for PostgresTransaction {
    fn drop(&mut self) {
        if self.state != State::Over {
            self.connection.send("ROLLBACK");
        }
    }
}
