//! The promises of the store interface, one test each. Every store runs all of them.
//!
//! A store's `tests/` holds a [`Harness`] that makes fresh stores and creates tables in them, and one line:
//!
//! ```ignore
//! barge_testkit::conformance_suite!(MyHarness::new());
//! ```
//!
//! Where databases differ by nature the harness says so with [`Harness::supports`]; the suite then holds the store to
//! answering `Unsupported` before it does anything. A test reads what was written by look-ups, which every store has, so
//! that it needs no SQL.

// These are tests, though they are compiled as a library.
#![allow(clippy::unwrap_used)]

pub mod constraints;
pub mod failures;
pub(crate) mod fixture;
pub mod look_ups;
pub mod ordered;
pub mod outcomes;
pub mod schema;
pub mod sql;
mod suite;
pub mod transactions;
pub mod types;

use std::sync::Arc;

use async_trait::async_trait;
use barge_core::store::{Action, ForeignKey};
use barge_core::{Store, Table, TableName};

use crate::Value;
pub use fixture::ddl;

/// What a store can have or lack by nature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Keys drawn by the database. Refused: a target with a generated key is `Unsupported`.
    GeneratedKeys,
    /// Foreign keys that are enforced.
    ForeignKeys,
    /// Foreign keys that remove or change the children with their parent.
    ForeignKeyActions,
    /// Foreign keys that go by the rows as the transaction sees them: rows of one statement are each other's parents, and a parent goes
    /// in the transaction that removed its children. Refused: such a row is `Unsupported`.
    ForeignKeysInTransactions,
    /// Triggers that keep rows out.
    Triggers,
    /// Keys that compare without regard to case.
    IgnoreCase,
    /// SQL. Refused: `query` and `over` are `Unsupported`.
    Sql,
    /// Transactions that write go one after the other, from their beginning. Absent: they meet only over the same rows.
    OneWriter,
    /// Reading outside a transaction while one is open. Refused: such a read is `Busy`.
    ConcurrentReads,
}

/// How a store stands to a [`Feature`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It has it.
    Kept,
    /// It refuses it, as the feature says.
    Refused,
    /// There is nothing of the sort in it, and so nothing to test.
    Absent,
}

/// What the suite needs to know of a store.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A fresh store without tables.
    async fn store(&self) -> Arc<dyn Store>;

    /// Whether the store has a feature. Defaults to all.
    fn supports(&self, _feature: Feature) -> Support {
        Support::Kept
    }

    /// Creates a table with constraints in the store that [`store`](Harness::store) gave last. For a store that runs SQL, run
    /// each statement of [`ddl`].
    async fn create(&self, store: &Arc<dyn Store>, table: &Table, constraints: &Constraints);
}

/// What a table has beside its columns and its key.
#[derive(Clone, Debug, Default)]
pub struct Constraints {
    /// Whether the key columns are no key in the database, so that rows may repeat.
    pub keyless: bool,
    /// Columns that are unique together.
    pub unique: Vec<Vec<String>>,
    /// Foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Columns with a CHECK that they are at least a number.
    pub at_least: Vec<(String, i64)>,
    /// Columns with a default.
    pub defaults: Vec<(String, Value)>,
    /// Text columns that compare without regard to ASCII case.
    pub ignore_case: Vec<String>,
    /// Columns with a trigger that silently keeps out new and changed rows below a number.
    pub keep_out_below: Vec<(String, i64)>,
}

impl Constraints {
    /// None.
    pub fn none() -> Self {
        Constraints::default()
    }

    /// The key columns are no key in the database.
    #[must_use]
    pub fn keyless(mut self) -> Self {
        self.keyless = true;
        self
    }

    /// These columns are unique together.
    #[must_use]
    pub fn unique(mut self, columns: &[&str]) -> Self {
        self.unique.push(columns.iter().map(|&column| column.to_owned()).collect());
        self
    }

    /// A foreign key that refuses changes of the parent.
    #[must_use]
    pub fn foreign_key(self, columns: &[&str], parent: &str, parent_columns: &[&str]) -> Self {
        self.foreign_key_on_delete(columns, parent, parent_columns, Action::Refuse)
    }

    /// A foreign key that says what a delete of the parent does.
    #[must_use]
    pub fn foreign_key_on_delete(
        self,
        columns: &[&str],
        parent: &str,
        parent_columns: &[&str],
        on_delete: Action,
    ) -> Self {
        self.foreign_key_with(columns, parent, parent_columns, on_delete, Action::Refuse)
    }

    /// A foreign key that says what a delete and a change of the parent do.
    #[must_use]
    pub fn foreign_key_with(
        mut self,
        columns: &[&str],
        parent: &str,
        parent_columns: &[&str],
        on_delete: Action,
        on_update: Action,
    ) -> Self {
        self.foreign_keys.push(ForeignKey {
            name: None,
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            parent: TableName::new(parent),
            parent_columns: parent_columns.iter().map(|&column| column.to_owned()).collect(),
            on_delete,
            on_update,
        });
        self
    }

    /// A column is at least a number.
    #[must_use]
    pub fn at_least(mut self, column: &str, least: i64) -> Self {
        self.at_least.push((column.to_owned(), least));
        self
    }

    /// A column has a default.
    #[must_use]
    pub fn default_value(mut self, column: &str, value: impl Into<Value>) -> Self {
        self.defaults.push((column.to_owned(), value.into()));
        self
    }

    /// A text column compares without regard to case.
    #[must_use]
    pub fn ignore_case(mut self, column: &str) -> Self {
        self.ignore_case.push(column.to_owned());
        self
    }

    /// A trigger keeps rows below a number out.
    #[must_use]
    pub fn keep_out_below(mut self, column: &str, least: i64) -> Self {
        self.keep_out_below.push((column.to_owned(), least));
        self
    }
}
