//! What the tests are written with: tables from a few words, batches from values, contents by look-up.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use barge_core::record::{Column, Role, quote};
use barge_core::store::{
    Action, Applied, AppliedRows, CommitError, LookUp, ORDINAL, Outcome, Step, Target, Token,
};
use barge_core::{Dialect, Error, Operation, Result, Store, Table, TableName, Transaction};

use super::{Constraints, Feature, Harness, Support};
use crate::{Float, Value};

/// NULL among values.
pub(super) const NULL: Option<i64> = None;

/// Rows of values: `rows![[1, "a"], [2, NULL]]`.
macro_rules! rows {
    ($([$($value:expr),* $(,)?]),* $(,)?) => {
        // Not `vec!`, which lints would have as an array wherever a slice is taken.
        Vec::<Vec<$crate::Value>>::from([$(Vec::<$crate::Value>::from([$($crate::Value::from($value)),*])),*])
    };
}
pub(super) use rows;

pub(super) type Rows = Vec<Vec<Value>>;

pub(crate) fn key(name: &str, data_type: DataType) -> Column {
    Column::new(Field::new(name, data_type, false)).with_role(Role::Key)
}

pub(super) fn generated(name: &str) -> Column {
    Column::new(Field::new(name, DataType::Int64, true)).with_role(Role::GeneratedKey)
}

pub(crate) fn column(name: &str, data_type: DataType) -> Column {
    Column::new(Field::new(name, data_type, false))
}

pub(crate) fn nullable(name: &str, data_type: DataType) -> Column {
    Column::new(Field::new(name, data_type, true))
}

pub(crate) fn table(name: impl Into<TableName>, columns: impl IntoIterator<Item = Column>) -> Arc<Table> {
    Arc::new(Table::new(name, columns.into_iter().collect()).unwrap())
}

/// The table of most tests: `people(id, name NOT NULL, age)`.
pub(super) fn people() -> Arc<Table> {
    table(
        "people",
        [key("id", DataType::Int64), column("name", DataType::Utf8), nullable("age", DataType::Int64)],
    )
}

/// Whether to go on with a test: the feature is there.
pub(super) fn kept(harness: &dyn Harness, feature: Feature) -> bool {
    harness.supports(feature) == Support::Kept
}

/// A store and one of its tables.
pub(super) struct Fixture {
    pub(super) store: Arc<dyn Store>,
    pub(super) table: Arc<Table>,
}

impl Fixture {
    /// A fresh store with one table.
    pub(super) async fn new(harness: &dyn Harness, table: Arc<Table>, constraints: Constraints) -> Self {
        let store = harness.store().await;
        Fixture { store, table }.created(harness, constraints).await
    }

    /// A fresh store with the table `people`.
    pub(super) async fn people(harness: &dyn Harness) -> Self {
        Fixture::new(harness, people(), Constraints::none()).await
    }

    /// Another table in the same store.
    pub(super) async fn and(
        &self,
        harness: &dyn Harness,
        table: Arc<Table>,
        constraints: Constraints,
    ) -> Self {
        Fixture { store: self.store.clone(), table }.created(harness, constraints).await
    }

    async fn created(self, harness: &dyn Harness, constraints: Constraints) -> Self {
        harness.create(&self.store, &self.table, &constraints).await;
        self
    }

    /// The same table seen by a record with other columns.
    pub(super) fn seen_as(&self, columns: impl IntoIterator<Item = Column>) -> Self {
        Fixture { store: self.store.clone(), table: table(self.table.name().clone(), columns) }
    }

    pub(super) async fn target(&self, operation: Operation) -> Arc<Target> {
        let description = self.store.describe(self.table.name()).await.unwrap();
        Arc::new(Target::new(&self.table, operation, Arc::new(description)).unwrap())
    }

    /// A step over rows that hold the table's columns; for a delete, the key's alone will do.
    pub(super) async fn step(&self, operation: Operation, rows: &[Vec<Value>]) -> Step {
        let target = self.target(operation).await;
        let batch = self.batch(&target, rows);
        Step { target, batch, outcomes: true }
    }

    /// The same without outcomes.
    pub(super) async fn silent(&self, operation: Operation, rows: &[Vec<Value>]) -> Step {
        Step { outcomes: false, ..self.step(operation, rows).await }
    }

    fn batch(&self, target: &Target, rows: &[Vec<Value>]) -> RecordBatch {
        if rows.first().is_some_and(|row| row.len() == self.table.columns().len()) {
            target.project(&batch(self.table.columns(), rows)).unwrap()
        } else {
            batch(&target.columns, rows)
        }
    }

    /// Runs steps in a transaction of their own.
    pub(super) async fn transact(&self, steps: &[Step]) -> Result<Vec<Applied>, CommitError<Vec<Applied>>> {
        self.store.transact(None, steps).await.map(|applied| applied.expect("there was no token"))
    }

    pub(super) async fn transact_with(
        &self,
        token: &Token,
        steps: &[Step],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        self.store.transact(Some(token), steps).await
    }

    /// Runs one operation, which must succeed, in a transaction of its own.
    pub(super) async fn write(&self, operation: Operation, rows: &[Vec<Value>]) -> Applied {
        let step = self.step(operation, rows).await;
        let applied = self.transact(&[step]).await;
        applied.unwrap_or_else(|error| panic!("{operation}: {error:?}")).remove(0)
    }

    pub(super) async fn insert(&self, rows: &[Vec<Value>]) -> Applied {
        self.write(Operation::Insert, rows).await
    }

    /// Runs one operation and gives its outcomes and how many rows it says it affected.
    pub(super) async fn outcomes(&self, operation: Operation, rows: &[Vec<Value>]) -> (Vec<Outcome>, u64) {
        let applied = self.write(operation, rows).await;
        assert!(applied.statements > 0, "{operation} says it took no statement");
        (applied.outcomes.expect("outcomes were asked for"), applied.affected)
    }

    /// Runs one operation row by row and commits.
    pub(super) async fn apply_rows(&self, operation: Operation, rows: &[Vec<Value>]) -> AppliedRows {
        let step = self.step(operation, rows).await;
        let mut transaction = self.store.begin().await.unwrap();
        let applied = transaction.apply_rows(&step).await.unwrap();
        assert!(transaction.is_open());
        transaction.commit().await.unwrap();
        assert_eq!(applied.outcomes.len(), rows.len());
        applied
    }

    /// The rows with these keys, all columns of the table, in the order of the keys.
    pub(super) async fn get(&self, keys: &[Vec<Value>]) -> Vec<Option<Vec<Value>>> {
        let found = self.store.look_up(self.look_up(keys)).await.unwrap().into_batch().await.unwrap();
        by_key(keys.len(), &found)
    }

    /// The same inside a transaction.
    pub(super) async fn get_in(
        &self,
        transaction: &mut dyn Transaction,
        keys: &[Vec<Value>],
    ) -> Vec<Option<Vec<Value>>> {
        by_key(keys.len(), &transaction.look_up(&self.look_up(keys)).await.unwrap())
    }

    /// A look-up by the table's key.
    pub(super) fn look_up(&self, keys: &[Vec<Value>]) -> LookUp {
        let columns: Vec<Column> =
            self.table.key().into_iter().map(|index| self.table.columns()[index].clone()).collect();
        LookUp::new(self.table.clone(), batch(&columns, keys))
    }

    /// Asserts that the table holds exactly these rows, among those with the keys 1 to 20 or the rows' own.
    pub(super) async fn assert_rows(&self, expected: &[Vec<Value>]) {
        let key = self.table.key();
        let mut keys: Rows =
            expected.iter().map(|row| key.iter().map(|&index| row[index].clone()).collect()).collect();
        if let [only] = key[..]
            && self.table.columns()[only].field.data_type().is_integer()
        {
            keys.extend((1..=20).map(|id| vec![Value::from(id)]));
        }
        keys.sort();
        keys.dedup();
        let mut found: Rows = self.get(&keys).await.into_iter().flatten().collect();
        let mut expected = expected.to_vec();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "the rows of {}", self.table.name());
    }
}

/// Rows of values as a batch with these columns.
pub(crate) fn batch(columns: &[Column], rows: &[Vec<Value>]) -> RecordBatch {
    let arrays = columns.iter().enumerate().map(|(index, column)| {
        let values: Vec<Value> = rows.iter().map(|row| row[index].clone()).collect();
        Value::array(column.field.data_type(), &values).unwrap()
    });
    let arrays: Vec<ArrayRef> = arrays.collect();
    let fields = columns.iter().map(|column| (*column.field).clone().with_nullable(true));
    let schema = Schema::new(fields.collect::<Vec<Field>>());
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options).unwrap()
}

/// A batch's rows as values.
pub(super) fn values(batch: &RecordBatch) -> Rows {
    let row = |row| batch.columns().iter().map(|array| Value::read(array, row).unwrap()).collect();
    (0..batch.num_rows()).map(row).collect()
}

/// The rows a look-up found with their ordinals, sorted.
pub(crate) fn found(batch: &RecordBatch) -> Vec<(i64, Vec<Value>)> {
    let schema: &[FieldRef] = batch.schema_ref().fields();
    assert_eq!((schema[0].name().as_str(), schema[0].data_type()), (ORDINAL, &DataType::Int64));
    let ordinals = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    let rows = values(batch).into_iter().map(|mut row| row.split_off(1));
    let mut found: Vec<(i64, Vec<Value>)> = ordinals.into_iter().zip(rows).collect();
    found.sort();
    found
}

fn by_key(keys: usize, batch: &RecordBatch) -> Vec<Option<Vec<Value>>> {
    let found = found(batch);
    let rows: BTreeMap<i64, Vec<Value>> = found.iter().cloned().collect();
    assert_eq!(rows.len(), found.len(), "a key found more than one row");
    (0..keys as i64).map(|ordinal| rows.get(&ordinal).cloned()).collect()
}

/// Each row's outcome as text, errors by their kind, to compare in one line.
pub(super) fn words(outcomes: &[Result<Outcome>]) -> Vec<String> {
    let words = outcomes.iter().map(|outcome| match outcome {
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => error.kind().to_string(),
    });
    words.collect()
}

/// The error of what must fail.
pub(super) fn failure<T: std::fmt::Debug>(result: Result<T, impl Into<Error>>) -> Error {
    match result {
        Ok(value) => panic!("this should have failed: {value:?}"),
        Err(error) => error.into(),
    }
}

/// The statements that create a table with constraints, for a store that runs SQL.
pub fn ddl(dialect: Dialect, table: &Table, constraints: &Constraints) -> Vec<String> {
    let column = match dialect {
        Dialect::Sqlite => sqlite_column,
        Dialect::Postgres => postgres_column,
        Dialect::DuckDb => duckdb_column,
        other => panic!("the suite has no DDL for {other:?} yet"),
    };
    let name = table.name().quoted();
    let mut parts: Vec<String> = table.columns().iter().map(|of| column(of, constraints)).collect();
    let key: Vec<&Column> = table.columns().iter().filter(|column| column.is_key()).collect();
    let is_rowid = |column: &Column| dialect == Dialect::Sqlite && column.role == Role::GeneratedKey;
    if !key.is_empty() && !constraints.keyless && !is_rowid(key[0]) {
        parts.push(format!("PRIMARY KEY ({})", list(key.iter().map(|column| column.name()))));
    }
    parts.extend(constraint_clauses(constraints, dialect));
    let mut statements = Vec::new();
    if dialect == Dialect::DuckDb && key.iter().any(|column| column.role == Role::GeneratedKey) {
        statements.push(format!("CREATE SEQUENCE {}", quote(&format!("{}_seq", key[0].name()))));
    }
    statements.push(format!("CREATE TABLE {name} ({})", parts.join(", ")));
    for (column, least) in &constraints.keep_out_below {
        statements.extend(match dialect {
            Dialect::Sqlite => sqlite_triggers(table, column, *least),
            _ => postgres_triggers(table, column, *least),
        });
    }
    statements
}

fn constraint_clauses(constraints: &Constraints, dialect: Dialect) -> Vec<String> {
    let mut clauses = Vec::new();
    for unique in &constraints.unique {
        clauses.push(format!("UNIQUE ({})", list(unique)));
    }
    for (column, least) in &constraints.at_least {
        clauses.push(format!(
            "CONSTRAINT {} CHECK ({} >= {least})",
            quote(&format!("{column}_least")),
            quote(column)
        ));
    }
    for foreign_key in &constraints.foreign_keys {
        let action = |action| match action {
            Action::Refuse => "NO ACTION",
            Action::Cascade => "CASCADE",
            Action::Set => "SET NULL",
        };
        let mut clause = format!(
            "FOREIGN KEY ({}) REFERENCES {} ({})",
            list(&foreign_key.columns),
            foreign_key.parent.quoted(),
            list(&foreign_key.parent_columns),
        );
        // DuckDB's foreign keys do nothing but refuse.
        if dialect != Dialect::DuckDb {
            let (on_delete, on_update) = (action(foreign_key.on_delete), action(foreign_key.on_update));
            clause.push_str(&format!(" ON DELETE {on_delete} ON UPDATE {on_update}"));
        }
        clauses.push(clause);
    }
    clauses
}

/// Triggers that keep out new and changed rows below a number.
fn sqlite_triggers(table: &Table, column: &str, least: i64) -> Vec<String> {
    let trigger = |event: &str| {
        format!(
            "CREATE TRIGGER {} BEFORE {event} ON {} WHEN NEW.{} < {least} BEGIN SELECT RAISE(IGNORE); END",
            quote(&format!("{}_{column}_{event}", table.name().name())),
            table.name().quoted(),
            quote(column),
        )
    };
    ["INSERT", "UPDATE"].map(trigger).to_vec()
}

/// The same in PostgreSQL.
fn postgres_triggers(table: &Table, column: &str, least: i64) -> Vec<String> {
    let name = quote(&format!("{}_{column}", table.name().name()));
    vec![
        format!("CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"),
        format!(
            "CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON {} FOR EACH ROW WHEN (NEW.{} < {least}) \
             EXECUTE FUNCTION {name}()",
            table.name().quoted(),
            quote(column),
        ),
    ]
}

fn default_clause(column: &Column, constraints: &Constraints) -> String {
    let Some((_, value)) = constraints.defaults.iter().find(|(name, _)| name == column.name()) else {
        return String::new();
    };
    let value = match value {
        Value::Int(value) => value.to_string(),
        Value::Float(Float(value)) => format!("{value:?}"),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        other => panic!("no default of {other:?}"),
    };
    format!(" DEFAULT {value}")
}

fn postgres_column(column: &Column, constraints: &Constraints) -> String {
    let mut data_type = match column.field.data_type() {
        DataType::Boolean => "boolean",
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        data_type if data_type.is_integer() => "bigint",
        DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Binary => "bytea",
        DataType::Date32 => "date",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Utf8 => "text",
        other => panic!("the suite has no column of {other} in PostgreSQL"),
    };
    if constraints.ignore_case.iter().any(|name| name == column.name()) {
        data_type = "citext";
    }
    let mut text = format!("{} {data_type}", quote(column.name()));
    if column.role == Role::GeneratedKey && !constraints.keyless {
        text.push_str(" GENERATED BY DEFAULT AS IDENTITY");
    } else if !column.field.is_nullable() {
        text.push_str(" NOT NULL");
    }
    text + &default_clause(column, constraints)
}

fn duckdb_column(column: &Column, constraints: &Constraints) -> String {
    let data_type = match column.field.data_type() {
        DataType::Boolean => "BOOLEAN",
        DataType::Int32 => "INTEGER",
        data_type if data_type.is_integer() => "BIGINT",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Binary => "BLOB",
        DataType::Date32 => "DATE",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Utf8 => "VARCHAR",
        other => panic!("the suite has no column of {other} in DuckDB"),
    };
    let mut text = format!("{} {data_type}", quote(column.name()));
    if column.role == Role::GeneratedKey && !constraints.keyless {
        text.push_str(&format!(" DEFAULT nextval('{}')", quote(&format!("{}_seq", column.name()))));
    } else if !column.field.is_nullable() {
        text.push_str(" NOT NULL");
    }
    text + &default_clause(column, constraints)
}

fn list(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    names.into_iter().map(|name| quote(name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn sqlite_column(column: &Column, constraints: &Constraints) -> String {
    if column.role == Role::GeneratedKey && !constraints.keyless {
        return format!("{} INTEGER PRIMARY KEY", quote(column.name()));
    }
    let data_type = match column.field.data_type() {
        DataType::Boolean => "BOOLEAN",
        data_type if data_type.is_integer() => "INTEGER",
        data_type if data_type.is_floating() => "REAL",
        DataType::Binary => "BLOB",
        _ => "TEXT",
    };
    let mut text = format!("{} {data_type}", quote(column.name()));
    if !column.field.is_nullable() {
        text.push_str(" NOT NULL");
    }
    text.push_str(&default_clause(column, constraints));
    if constraints.ignore_case.iter().any(|name| name == column.name()) {
        text.push_str(" COLLATE NOCASE");
    }
    text
}
