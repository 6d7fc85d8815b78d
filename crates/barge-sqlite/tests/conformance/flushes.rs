//! Random flushes into SQLite, against SQLite: a second database takes the rows one by one, in the plainest statements.

use std::sync::Arc;

use async_trait::async_trait;
use barge_core::record::quote;
use barge_core::store::Outcome;
use barge_core::{Dialect, ErrorKind, Operation, Store, Table};
use barge_testkit::Value;
use barge_testkit::conformance::{Constraints, Harness, ddl};
use barge_testkit::flushes::{self, Answer, Case, Model, Reference, Tables, Write};
use rusqlite::{Connection, ffi, params_from_iter, types};

use super::{Kind, Sqlite};

/// SQLite as anybody uses it: a statement a row.
struct PlainSqlite {
    connection: Connection,
    tables: Tables,
}

impl PlainSqlite {
    /// The tables of a case, and triggers.
    fn new(case: &Case, triggers: &[String]) -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        let tables = Tables::new(case.actions);
        for (table, constraints) in &tables.definitions {
            for statement in ddl(Dialect::Sqlite, table, constraints) {
                connection.execute_batch(&statement).unwrap();
            }
        }
        for trigger in triggers {
            connection.execute_batch(trigger).unwrap();
        }
        PlainSqlite { connection, tables }
    }

    /// Runs a statement with a row's columns bound, as many as it looks at: keys come first.
    fn run(&self, sql: &str, row: &[Value]) -> Result<usize, rusqlite::Error> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let bound = statement.parameter_count();
        statement.execute(params_from_iter(row[..bound].iter().map(to_sql)))
    }

    fn is_there(&self, write: &Write) -> bool {
        let view = &self.tables.shapes[write.shape].view;
        let sql = format!("SELECT 1 FROM {} WHERE {}", view.name().quoted(), key_equal(view));
        let mut statement = self.connection.prepare_cached(&sql).unwrap();
        let bound = statement.parameter_count();
        statement.exists(params_from_iter(write.row[..bound].iter().map(to_sql))).unwrap()
    }
}

impl Reference for PlainSqlite {
    fn write(&mut self, _tables: &Tables, write: &Write) -> Answer {
        let there = self.is_there(write);
        let sql = statement(&self.tables.shapes[write.shape].view, write.operation);
        match self.run(&sql, &write.row) {
            Ok(0) if !there && matches!(write.operation, Operation::Update | Operation::Delete) => {
                Ok(Outcome::NotFound)
            }
            Ok(0) => Ok(Outcome::Unchanged),
            Ok(_) if write.operation == Operation::Delete => Ok(Outcome::Deleted),
            Ok(_) if there && write.operation != Operation::Insert => Ok(Outcome::Updated),
            Ok(_) => Ok(Outcome::Inserted),
            Err(error) => Err(kind_of(&error)),
        }
    }

    fn begin(&mut self) {
        self.connection.execute_batch("BEGIN").unwrap();
    }

    fn end(&mut self, keep: bool) {
        self.connection.execute_batch(if keep { "COMMIT" } else { "ROLLBACK" }).unwrap();
    }

    fn rows(&self, table: &str) -> Vec<Vec<Value>> {
        let mut statement = self.connection.prepare(&format!("SELECT * FROM {}", quote(table))).unwrap();
        let columns = statement.column_count();
        let row =
            |row: &rusqlite::Row<'_>| (0..columns).map(|column| Ok(from_sql(row.get(column)?))).collect();
        let rows = statement.query_map([], row).unwrap();
        let mut rows: Vec<Vec<Value>> = rows.collect::<Result<_, _>>().unwrap();
        rows.sort();
        rows
    }
}

/// The statement of a row whose columns are bound in their order.
fn statement(view: &Table, operation: Operation) -> String {
    let table = view.name().quoted();
    let columns = view.columns().iter().map(|column| quote(column.name())).collect::<Vec<_>>().join(", ");
    let places = (1..=view.columns().len()).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
    let keys = view.columns().iter().filter(|column| column.is_key()).map(|column| quote(column.name()));
    let keys = keys.collect::<Vec<_>>().join(", ");
    let assigned = view.columns().iter().enumerate().filter(|(_, column)| !column.is_key());
    let assigned = assigned.map(|(place, column)| format!("{} = ?{}", quote(column.name()), place + 1));
    let assigned = assigned.collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO {table}({columns}) VALUES ({places})");
    match operation {
        Operation::Insert => insert,
        Operation::Upsert if !assigned.is_empty() => {
            format!("{insert} ON CONFLICT({keys}) DO UPDATE SET {assigned}")
        }
        Operation::InsertIfAbsent | Operation::Upsert => format!("{insert} ON CONFLICT({keys}) DO NOTHING"),
        Operation::Update => format!("UPDATE {table} SET {assigned} WHERE {}", key_equal(view)),
        Operation::Delete => format!("DELETE FROM {table} WHERE {}", key_equal(view)),
    }
}

fn key_equal(view: &Table) -> String {
    let keys = view.key().into_iter();
    let equal = keys.map(|place| format!("{} = ?{}", quote(view.columns()[place].name()), place + 1));
    equal.collect::<Vec<_>>().join(" AND ")
}

fn to_sql(value: &Value) -> types::Value {
    match value {
        Value::Int(value) => types::Value::Integer(i64::try_from(*value).unwrap()),
        Value::Text(text) => types::Value::Text(text.to_string()),
        _ => types::Value::Null,
    }
}

fn from_sql(value: types::Value) -> Value {
    match value {
        types::Value::Integer(value) => value.into(),
        types::Value::Text(text) => text.into(),
        _ => Value::Null,
    }
}

fn kind_of(error: &rusqlite::Error) -> ErrorKind {
    match error.sqlite_error().map(|error| error.extended_code) {
        Some(ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY) => ErrorKind::UniqueViolation,
        Some(ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => ErrorKind::ForeignKeyViolation,
        Some(ffi::SQLITE_CONSTRAINT_NOTNULL) => ErrorKind::NotNullViolation,
        Some(ffi::SQLITE_CONSTRAINT_CHECK | ffi::SQLITE_CONSTRAINT_TRIGGER) => ErrorKind::CheckViolation,
        _ => panic!("a row should not fail so: {error}"),
    }
}

/// Triggers that write down in which order they saw gauges change, and refuse the level 7 in a way.
fn triggers(refuse: &str) -> Vec<String> {
    let mut triggers = Vec::new();
    for (event, row, mark) in [("INSERT", "NEW", 1), ("UPDATE", "NEW", 2), ("DELETE", "OLD", 3)] {
        triggers.push(format!(
            "CREATE TRIGGER saw_{event} AFTER {event} ON gauges BEGIN
             INSERT INTO counters(kind, id, m) VALUES ('in', 0, 0)
             ON CONFLICT DO UPDATE SET m = (coalesce(m, 0) * 31 + {row}.id * 4 + {mark}) % 1000003; END"
        ));
        if row == "NEW" {
            triggers.push(format!(
                "CREATE TRIGGER refuses_{event} BEFORE {event} ON gauges WHEN NEW.level = 7 BEGIN
                 SELECT RAISE({refuse}, 'not seven'); END"
            ));
        }
    }
    triggers
}

/// SQLite with triggers that end the transaction over a row.
struct WithTriggers(Sqlite);

#[async_trait]
impl Harness for WithTriggers {
    async fn store(&self) -> Arc<dyn Store> {
        self.0.store().await
    }

    async fn create(&self, store: &Arc<dyn Store>, table: &Table, constraints: &Constraints) {
        self.0.create(store, table, constraints).await;
        if table.name().name() == "gauges" {
            let mut transaction = store.begin().await.unwrap();
            for trigger in triggers("ROLLBACK") {
                transaction.execute(&trigger).await.unwrap();
            }
            transaction.commit().await.unwrap();
        }
    }
}

fn check_in<R: Reference>(harness: &dyn Harness, cases: u32, reference: impl Fn(&Case) -> R) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    flushes::for_each(cases, |case| runtime.block_on(flushes::check(&case, harness, reference(&case))));
}

#[test]
fn a_flush_does_what_its_rows_would_have_done_one_by_one() {
    check_in(&Sqlite::new(Kind::Memory), 1_500, |case| PlainSqlite::new(case, &[]));
}

/// The store in memory is held against the same model: both stores do the same.
#[test]
fn a_flush_does_what_the_model_does() {
    check_in(&Sqlite::new(Kind::Memory), 500, |_| Model::default());
}

#[test]
fn a_flush_into_a_file_does_so_too() {
    check_in(&Sqlite::new(Kind::File), 50, |case| PlainSqlite::new(case, &[]));
}

/// Triggers see the rows in their order, and one that ends the transaction takes no more than its row.
#[test]
fn a_flush_with_triggers_does_so_too() {
    let triggers = triggers("ABORT");
    check_in(&WithTriggers(Sqlite::new(Kind::Memory)), 1_000, |case| PlainSqlite::new(case, &triggers));
}
