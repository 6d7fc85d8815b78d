//! What the tests are written with: a database of one's own, SQL, text in and out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::store::Query;
use barge_core::{Database, Error, Operation, Outcome, Result, Table};
use barge_postgres::{PostgresOptions, PostgresStore};
use barge_testkit::servers::{self, TestDatabase};

/// A database of its own, gone with the test.
pub(crate) struct Fresh {
    pub(crate) db: Database,
    database: TestDatabase,
}

impl Fresh {
    /// A database in which statements were run.
    pub(crate) async fn with(sql: &[&str]) -> Self {
        let database = servers::postgres().database();
        let db = Database::new(PostgresStore::open(&database.url()).await.unwrap());
        let fresh = Fresh { db, database };
        for statement in sql {
            fresh.run(statement).await;
        }
        fresh
    }

    pub(crate) fn url(&self) -> String {
        self.database.url()
    }

    /// The same database as another role sees it, who logs in without a password.
    pub(crate) async fn as_role(&self, role: &str) -> Database {
        let options = PostgresOptions::from_url(&self.database.url()).unwrap().user(role);
        Database::new(options.open().await.unwrap())
    }

    pub(crate) async fn run(&self, sql: &str) {
        let mut transaction = self.db.store().begin().await.unwrap();
        transaction.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        transaction.commit().await.unwrap();
    }

    /// The rows of a query as text, its columns joined by `|`.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<String> {
        let found = self.db.store().query(Query::new(sql)).await.unwrap().into_batch().await.unwrap();
        let text = |array: &ArrayRef, row: usize| match array.is_null(row) {
            true => "NULL".to_owned(),
            false => arrow::util::display::array_value_to_string(array, row).unwrap(),
        };
        let row = |row| found.columns().iter().map(|array| text(array, row)).collect::<Vec<_>>().join("|");
        (0..found.num_rows()).map(row).collect()
    }

    /// Sends rows of text, or of what text becomes in a column of the table, and gives each row's answer.
    pub(crate) async fn write(
        &self,
        table: &str,
        operation: Operation,
        key: &[&str],
        columns: &[(&str, DataType)],
        rows: &[&[Option<&str>]],
    ) -> Vec<Result<Outcome, Error>> {
        write(&self.db, table, operation, key, columns, rows).await
    }
}

/// The same over any database.
pub(crate) async fn write(
    db: &Database,
    table: &str,
    operation: Operation,
    key: &[&str],
    columns: &[(&str, DataType)],
    rows: &[&[Option<&str>]],
) -> Vec<Result<Outcome, Error>> {
    let batch = batch(columns, rows);
    let table = Arc::new(Table::of_schema(table, &batch.schema(), key).unwrap());
    let writer = db.writer().start();
    let receipt = writer.add_batch(&table, operation, &batch).await.unwrap();
    let outcomes = receipt.outcomes().await;
    let _ = writer.close().await.unwrap();
    outcomes
}

/// Rows of text as a batch, each column cast to its type.
pub(crate) fn batch(columns: &[(&str, DataType)], rows: &[&[Option<&str>]]) -> RecordBatch {
    let fields: Vec<Field> =
        columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    let arrays = columns.iter().enumerate().map(|(index, (_, data_type))| {
        let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row[index])));
        arrow::compute::cast(&texts, data_type).unwrap()
    });
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect()).unwrap()
}

/// Each answer in a word: the outcome, or the error's kind.
pub(crate) fn words(answers: &[Result<Outcome, Error>]) -> Vec<String> {
    let word = |answer: &Result<Outcome, Error>| match answer {
        Ok(outcome) => format!("{outcome:?}"),
        Err(error) => error.kind().to_string(),
    };
    answers.iter().map(word).collect()
}
