//! A store that accepts everything and keeps nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use async_trait::async_trait;
use barge_core::record::Role;
use barge_core::store::{
    Applied, AppliedRows, Capabilities, CommitError, DescribedColumn, Description, LookUp, ORDINAL, Outcome,
    Query, RecordStream, Step, TableKind, Target, Token, UniqueKey,
};
use barge_core::{Dialect, Error, ErrorKind, Operation, Result, Store, Table, TableName, Transaction};

/// A store that takes every row at once and forgets it, to measure what the engine costs by itself.
///
/// It knows the tables it was made with. Clones share the count of rows.
#[derive(Clone, Debug)]
pub struct NullStore {
    tables: Arc<BTreeMap<TableName, Description>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    rows: AtomicU64,
    keys: AtomicI64,
}

impl NullStore {
    /// A store with these tables.
    pub fn new<'a>(tables: impl IntoIterator<Item = &'a Table>) -> Self {
        let tables = tables.into_iter().map(|table| (table.name().clone(), describe(table)));
        NullStore { tables: Arc::new(tables.collect()), counts: Arc::default() }
    }

    /// Rows taken so far.
    pub fn rows(&self) -> u64 {
        self.counts.rows.load(Ordering::Relaxed)
    }

    /// What a step would have done in a table that has every row but those to be inserted.
    fn take(&self, step: &Step) -> (Outcome, Option<Int64Array>) {
        let rows = step.batch.num_rows();
        self.counts.rows.fetch_add(rows as u64, Ordering::Relaxed);
        let outcome = match step.target.operation {
            Operation::Insert | Operation::InsertIfAbsent => Outcome::Inserted,
            Operation::Upsert | Operation::Update => Outcome::Updated,
            Operation::Delete => Outcome::Deleted,
        };
        let generated = step.target.generated().map(|_| {
            let first = self.counts.keys.fetch_add(rows as i64, Ordering::Relaxed) + 1;
            (first..first + rows as i64).collect()
        });
        (outcome, generated)
    }
}

#[async_trait]
impl Store for NullStore {
    fn dialect(&self) -> Dialect {
        Dialect::None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            commit_can_be_unknown: false,
            generated_keys: true,
            reuses_keys: false,
            foreign_keys: false,
            sql: false,
        }
    }

    async fn describe(&self, table: &TableName) -> Result<Description> {
        let missing =
            || Error::new(ErrorKind::MissingTable, "there is no such table").with_table(table.to_string());
        self.tables.get(table).cloned().ok_or_else(missing)
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        Ok(self.tables.keys().cloned().collect())
    }

    fn create_table_sql(&self, _table: &Table) -> Result<String> {
        Err(unsupported())
    }

    fn check(&self, _target: &Target, _batch: &RecordBatch) -> Vec<(usize, Error)> {
        Vec::new()
    }

    async fn key_groups(&self, _target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        Ok((0..keys.num_rows() as u32).collect())
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        Ok(Box::new(NullTransaction(self.clone())))
    }

    async fn query(&self, _query: Query) -> Result<RecordStream> {
        Err(unsupported())
    }

    async fn look_up(&self, look_up: LookUp) -> Result<RecordStream> {
        nothing(&look_up.table).map(RecordStream::from)
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

struct NullTransaction(NullStore);

#[async_trait]
impl Transaction for NullTransaction {
    async fn apply(&mut self, step: &Step) -> Result<Applied> {
        let (outcome, generated) = self.0.take(step);
        let rows = step.batch.num_rows();
        Ok(Applied {
            affected: rows as u64,
            outcomes: step.outcomes.then(|| vec![outcome; rows]),
            generated: generated.filter(|_| step.outcomes),
            statements: 1,
        })
    }

    async fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        let (outcome, generated) = self.0.take(step);
        let outcomes = (0..step.batch.num_rows()).map(|_| Ok(outcome)).collect();
        Ok(AppliedRows { outcomes, generated, statements: 1 })
    }

    async fn over(&mut self, _query: &Query) -> Result<RecordBatch> {
        Err(unsupported())
    }

    async fn execute(&mut self, _sql: &str) -> Result<u64> {
        Err(unsupported())
    }

    async fn describe(&mut self, table: &TableName) -> Result<Description> {
        self.0.describe(table).await
    }

    async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        self.0.key_groups(target, keys).await
    }

    async fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        nothing(&look_up.table)
    }

    async fn claim(&mut self, _token: &Token) -> Result<bool> {
        Ok(true)
    }

    fn is_open(&self) -> bool {
        true
    }

    async fn commit(self: Box<Self>) -> Result<(), CommitError> {
        Ok(())
    }

    async fn rollback(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn describe(table: &Table) -> Description {
    let columns = table.columns().iter().map(|column| {
        let data_type = column.field.data_type();
        let mut described = DescribedColumn::new(column.name(), data_type.to_string(), data_type.clone());
        described.nullable = column.field.is_nullable() && !column.is_key();
        described.identity = column.role == Role::GeneratedKey;
        described
    });
    let key: Vec<String> =
        table.key().into_iter().map(|index| table.columns()[index].name().to_owned()).collect();
    let unique = UniqueKey {
        name: format!("{}_pkey", table.name().name()),
        columns: key.iter().cloned().map(Some).collect(),
        partial: false,
    };
    Description {
        name: table.name().clone(),
        kind: TableKind::Table,
        partitioned: false,
        inherited: false,
        columns: columns.collect(),
        unique: if key.is_empty() { Vec::new() } else { vec![unique] },
        key,
        foreign_keys: Vec::new(),
        referenced_by: Vec::new(),
        triggers: Vec::new(),
        reacts_to_inserts: false,
    }
}

fn nothing(table: &Table) -> Result<RecordBatch> {
    let ordinal: FieldRef = Arc::new(Field::new(ORDINAL, DataType::Int64, false));
    let fields: Vec<FieldRef> =
        std::iter::once(ordinal).chain(table.schema().fields().iter().cloned()).collect();
    let arrays: Vec<ArrayRef> = fields.iter().map(|field| new_empty_array(field.data_type())).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn unsupported() -> Error {
    Error::new(ErrorKind::Unsupported, "this store keeps nothing and runs no SQL")
}
