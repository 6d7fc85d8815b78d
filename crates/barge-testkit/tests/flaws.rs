//! The conformance suite finds what it is there to find: stores with one flaw each fail the promise that the flaw breaks.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use barge_core::store::{
    Applied, AppliedRows, Capabilities, CommitError, Description, LookUp, Query, RecordStream, Step, Target,
    Token,
};
use barge_core::{
    Dialect, Error, ErrorKind, Operation, Outcome, Result, Store, Table, TableName, Transaction,
};
use barge_testkit::conformance::{Constraints, Feature, Harness, Support};
use barge_testkit::conformance::{
    constraints, failures, look_ups, ordered, outcomes, schema, transactions, types,
};
use barge_testkit::{MemoryStore, MemoryTable};
use futures::future::LocalBoxFuture;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    None,
    LosesTheLastRow,
    SaysInsertedAlways,
    CountsRowsSent,
    KeepsPartOfAFailedStep,
    RejectsNeighbours,
    NamesNoRow,
    TellsTheWrongKind,
    CommitsOnRollback,
    CommitsOnDrop,
    ForgetsClaims,
    MixesUpOrdinals,
    MixesUpDrawnKeys,
    TrimsText,
    TurnsNullsIntoEmptyText,
    NeverCloses,
    DescribesEverythingAsNullable,
    OverwritesWithInsertIfAbsent,
    IgnoresTheOrder,
    IgnoresTheLimit,
    LimitsAllKeysTogether,
}

type Promise = for<'a> fn(&'a dyn Harness) -> LocalBoxFuture<'a, ()>;

macro_rules! promises {
    ($($flaw:ident: $module:ident::$promise:ident,)*) => {
        [$((Flaw::$flaw, stringify!($promise), (|harness| Box::pin($module::$promise(harness))) as Promise)),*]
    };
}

#[test]
fn each_flaw_breaks_its_promise() {
    let cases = promises! {
        LosesTheLastRow: outcomes::insert_answers_every_row,
        SaysInsertedAlways: outcomes::upsert_tells_new_rows_from_old,
        CountsRowsSent: outcomes::update_sets_columns_and_finds_missing_rows,
        KeepsPartOfAFailedStep: failures::a_failed_step_changes_nothing,
        KeepsPartOfAFailedStep: transactions::a_commit_holds_what_was_answered,
        RejectsNeighbours: failures::apply_rows_leaves_out_bad_rows_alone,
        NamesNoRow: failures::apply_rows_leaves_out_bad_rows_alone,
        TellsTheWrongKind: failures::a_failed_transaction_changes_nothing,
        CommitsOnRollback: transactions::a_rollback_leaves_nothing,
        CommitsOnDrop: transactions::a_dropped_transaction_leaves_nothing,
        ForgetsClaims: transactions::a_token_is_claimed_once,
        ForgetsClaims: transactions::an_earlier_token_counts_as_claimed,
        MixesUpOrdinals: look_ups::missing_keys_find_nothing,
        IgnoresTheOrder: ordered::the_rows_of_a_key_come_in_order,
        IgnoresTheOrder: ordered::random_look_ups_are_as_in_memory,
        IgnoresTheLimit: ordered::a_limit_counts_the_rows_of_each_key,
        LimitsAllKeysTogether: ordered::a_limit_counts_the_rows_of_each_key,
        MixesUpDrawnKeys: constraints::drawn_keys_go_to_their_rows,
        TrimsText: types::text_is_equal,
        TurnsNullsIntoEmptyText: types::text_is_equal,
        NeverCloses: transactions::a_closed_store_says_so,
        DescribesEverythingAsNullable: schema::a_description_tells_columns_and_keys,
        OverwritesWithInsertIfAbsent: outcomes::insert_if_absent_leaves_rows_as_they_are,
    };
    for (flaw, name, promise) in cases {
        assert!(holds(promise, Flaw::None), "{name} fails without a flaw");
        assert!(!holds(promise, flaw), "{name} holds though the store {flaw:?}");
    }
}

/// Whether a promise's test passes over a store with this flaw.
fn holds(promise: Promise, flaw: Flaw) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let harness = Flawed { store: MemoryStore::new(), flaw };
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(promise(&harness)))).is_ok()
}

/// A harness that gives one store, with a flaw.
#[derive(Clone, Debug)]
struct Flawed {
    store: MemoryStore,
    flaw: Flaw,
}

#[async_trait]
impl Harness for Flawed {
    async fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.clone())
    }

    fn supports(&self, feature: Feature) -> Support {
        if feature == Feature::Sql { Support::Refused } else { Support::Kept }
    }

    async fn create(&self, _store: &Arc<dyn Store>, table: &Table, constraints: &Constraints) {
        let mut memory = MemoryTable::new(table);
        for unique in &constraints.unique {
            let columns: Vec<&str> = unique.iter().map(String::as_str).collect();
            memory = memory.unique(&columns);
        }
        for (column, value) in &constraints.defaults {
            memory = memory.default(column, value.clone());
        }
        for key in &constraints.foreign_keys {
            let columns: Vec<&str> = key.columns.iter().map(String::as_str).collect();
            let parents: Vec<&str> = key.parent_columns.iter().map(String::as_str).collect();
            memory = memory.foreign_key(&columns, key.parent.clone(), &parents, key.on_delete, key.on_update);
        }
        for (column, least) in constraints.at_least.clone() {
            memory = memory.check(format!("{column}_least"), move |row| {
                row.get(&column).as_int().is_none_or(|value| value >= least.into())
            });
        }
        self.store.create(memory).unwrap();
    }
}

#[async_trait]
impl Store for Flawed {
    fn dialect(&self) -> Dialect {
        self.store.dialect()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn describe(&self, table: &TableName) -> Result<Description> {
        let mut description = self.store.describe(table).await?;
        if self.flaw == Flaw::DescribesEverythingAsNullable {
            description.columns.iter_mut().for_each(|column| column.nullable = true);
        }
        Ok(description)
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.store.tables().await
    }

    fn create_table_sql(&self, table: &Table) -> Result<String> {
        self.store.create_table_sql(table)
    }

    fn check(&self, target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
        self.store.check(target, batch)
    }

    async fn key_groups(&self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        self.store.key_groups(target, keys).await
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        Ok(Box::new(FlawedTransaction { inner: Some(self.store.begin().await?), flaw: self.flaw }))
    }

    async fn query(&self, query: Query) -> Result<RecordStream> {
        self.store.query(query).await
    }

    async fn look_up(&self, mut look_up: LookUp) -> Result<RecordStream> {
        let limit = look_up.limit;
        match self.flaw {
            Flaw::IgnoresTheOrder => look_up.order.clear(),
            Flaw::IgnoresTheLimit => look_up.limit = None,
            _ => {}
        }
        let found = self.store.look_up(look_up).await?;
        if let (Flaw::LimitsAllKeysTogether, Some(limit)) = (self.flaw, limit) {
            let found = found.into_batch().await?;
            return Ok(found.slice(0, found.num_rows().min(limit as usize)).into());
        }
        if self.flaw != Flaw::MixesUpOrdinals {
            return Ok(found);
        }
        let found = found.into_batch().await?;
        let ordinals =
            found.column(0).as_primitive::<Int64Type>().unary::<_, Int64Type>(|ordinal| ordinal + 1);
        let mut columns = found.columns().to_vec();
        columns[0] = Arc::new(ordinals);
        Ok(RecordBatch::try_new(found.schema(), columns)?.into())
    }

    async fn close(&self) -> Result<()> {
        if self.flaw == Flaw::NeverCloses { Ok(()) } else { self.store.close().await }
    }
}

struct FlawedTransaction {
    inner: Option<Box<dyn Transaction>>,
    flaw: Flaw,
}

impl FlawedTransaction {
    fn inner(&mut self) -> &mut Box<dyn Transaction> {
        self.inner.as_mut().expect("taken by commit and rollback alone")
    }

    /// The step with the flaw in it.
    fn step(&self, step: &Step) -> Step {
        let mut step = step.clone();
        match self.flaw {
            Flaw::LosesTheLastRow if step.batch.num_rows() > 1 => {
                step.batch = step.batch.slice(0, step.batch.num_rows() - 1);
            }
            Flaw::TrimsText => step.batch = texts(&step.batch, |text| text.map(str::trim)),
            Flaw::TurnsNullsIntoEmptyText => step.batch = texts(&step.batch, |text| Some(text.unwrap_or(""))),
            Flaw::OverwritesWithInsertIfAbsent if step.target.operation == Operation::InsertIfAbsent => {
                let target = &*step.target;
                let table = Table::new(target.table().clone(), target.columns.clone()).unwrap();
                step.target =
                    Arc::new(Target::new(&table, Operation::Upsert, target.description.clone()).unwrap());
            }
            _ => {}
        }
        step
    }
}

fn texts(batch: &RecordBatch, change: impl Fn(Option<&str>) -> Option<&str>) -> RecordBatch {
    let columns = batch.columns().iter().map(|array| match array.data_type() {
        DataType::Utf8 => Arc::new(array.as_string::<i32>().iter().map(&change).collect::<StringArray>()),
        _ => array.clone(),
    });
    RecordBatch::try_new(batch.schema(), columns.collect()).unwrap()
}

#[async_trait]
impl Transaction for FlawedTransaction {
    async fn apply(&mut self, step: &Step) -> Result<Applied> {
        let (flaw, sent) = (self.flaw, self.step(step));
        let mut applied = match self.inner().apply(&sent).await {
            Ok(applied) => applied,
            Err(error) if flaw == Flaw::KeepsPartOfAFailedStep => {
                self.inner().apply_rows(&sent).await?;
                return Err(error);
            }
            Err(error) if flaw == Flaw::TellsTheWrongKind => {
                return Err(Error::new(ErrorKind::Statement, error.to_string()));
            }
            Err(error) => return Err(error),
        };
        match flaw {
            Flaw::LosesTheLastRow => {
                applied.affected = step.batch.num_rows() as u64;
                applied.outcomes = Some(vec![Outcome::Inserted; step.batch.num_rows()]);
            }
            Flaw::SaysInsertedAlways => {
                applied.outcomes = Some(vec![Outcome::Inserted; step.batch.num_rows()])
            }
            Flaw::CountsRowsSent => applied.affected = step.batch.num_rows() as u64,
            Flaw::MixesUpDrawnKeys => {
                let keys = applied.generated.as_ref().map(|keys| keys.iter().collect::<Vec<_>>());
                applied.generated = keys.map(|keys| keys.into_iter().rev().collect::<Int64Array>());
            }
            _ => {}
        }
        Ok(applied)
    }

    async fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        let sent = self.step(step);
        let mut applied = self.inner().apply_rows(&sent).await?;
        let failed = applied.outcomes.iter().position(Result::is_err);
        if let Some(failed) = failed {
            match self.flaw {
                Flaw::RejectsNeighbours => {
                    let error = applied.outcomes[failed].clone();
                    applied.outcomes.iter_mut().for_each(|outcome| *outcome = error.clone());
                }
                Flaw::NamesNoRow => {
                    let kind = applied.outcomes[failed].as_ref().map_err(Error::kind).unwrap_err();
                    applied.outcomes[failed] = Err(Error::new(kind, "a row failed"));
                }
                _ => {}
            }
        }
        Ok(applied)
    }

    async fn over(&mut self, query: &Query) -> Result<RecordBatch> {
        self.inner().over(query).await
    }

    async fn execute(&mut self, sql: &str) -> Result<u64> {
        self.inner().execute(sql).await
    }

    async fn check_deferred_at_once(&mut self) -> Result<()> {
        self.inner().check_deferred_at_once().await
    }

    async fn describe(&mut self, table: &TableName) -> Result<Description> {
        self.inner().describe(table).await
    }

    async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        self.inner().key_groups(target, keys).await
    }

    async fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        self.inner().look_up(look_up).await
    }

    async fn claim(&mut self, token: &Token) -> Result<bool> {
        if self.flaw == Flaw::ForgetsClaims { Ok(true) } else { self.inner().claim(token).await }
    }

    fn is_open(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.is_open())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), CommitError> {
        self.inner.take().expect("not taken yet").commit().await
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        let inner = self.inner.take().expect("not taken yet");
        if self.flaw == Flaw::CommitsOnRollback {
            return Ok(inner.commit().await?);
        }
        inner.rollback().await
    }
}

impl Drop for FlawedTransaction {
    fn drop(&mut self) {
        if self.flaw == Flaw::CommitsOnDrop
            && let Some(inner) = self.inner.take()
        {
            // A commit in memory is done at its first poll.
            let _ = futures::FutureExt::now_or_never(inner.commit());
        }
    }
}
