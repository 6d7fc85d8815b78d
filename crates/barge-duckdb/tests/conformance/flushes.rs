//! Random flushes into DuckDB, against the row-by-row model that the other stores are held against, less what DuckDB can't do in one
//! transaction: those rows are `Unsupported`, and their neighbours none the worse.

use barge_core::store::{ForeignKey, Outcome};
use barge_core::{ErrorKind, Operation, Table};
use barge_testkit::Value;
use barge_testkit::conformance::Constraints;
use barge_testkit::flushes::{self, Answer, Model, Reference, Tables, Write};

use super::{DuckDb, Kind};

type Row = Vec<Value>;

/// Tables as DuckDB keeps them: its foreign keys go by indexes that still hold what the transaction removed.
#[derive(Clone, Default)]
struct DuckDbModel {
    model: Model,
    /// The rows when the flush began.
    committed: Model,
    /// Whether a row was to be replaced that has children of the same flush: DuckDB can, where the plan sends it before them.
    undecided: bool,
}

impl Reference for DuckDbModel {
    fn write(&mut self, tables: &Tables, write: &Write) -> Answer {
        let before = self.model.clone();
        let can = self.can(tables, write);
        match self.model.write(tables, write) {
            Ok(Outcome::Inserted | Outcome::Updated | Outcome::Deleted) if !can => {
                self.model = before;
                Err(ErrorKind::Unsupported)
            }
            answer => answer,
        }
    }

    fn begin(&mut self) {
        self.model.begin();
        self.committed = self.model.clone();
    }

    fn end(&mut self, keep: bool) {
        self.model.end(keep);
    }

    fn is_undecided(&self) -> bool {
        self.undecided
    }

    fn rows(&self, table: &str) -> Vec<Row> {
        self.model.rows(table)
    }
}

impl DuckDbModel {
    /// Whether DuckDB can do what a write asks, if the constraints allow it.
    fn can(&mut self, tables: &Tables, write: &Write) -> bool {
        let shape = &tables.shapes[write.shape];
        let (table, constraints) = &tables.definitions[shape.table];
        let given = |name: &str| {
            let place = shape.view.columns().iter().position(|column| column.name() == name)?;
            Some(&write.row[place])
        };
        let is_row = |row: &Row| {
            let mut key = shape.view.columns().iter().filter(|column| column.is_key());
            key.all(|key| given(key.name()) == Some(cell(table, row, key.name())))
        };
        let found: Vec<Row> = self.model.rows(table.name().name()).into_iter().filter(is_row).collect();
        let value = |name: &str| {
            let there = || found.first().map(|row| cell(table, row, name));
            given(name).or_else(there).cloned().unwrap_or(Value::Null)
        };
        let is_own_parent = constraints.foreign_keys.iter().any(|key| {
            key.parent == *table.name()
                && key
                    .columns
                    .iter()
                    .zip(&key.parent_columns)
                    .all(|(own, parent)| !value(own).is_null() && value(own) == value(parent))
        });
        if is_own_parent && write.operation != Operation::Delete {
            return false;
        }
        match write.operation {
            Operation::Insert | Operation::InsertIfAbsent => true,
            Operation::Delete => !found.iter().any(|row| referenced(&self.committed, tables, table, row)),
            Operation::Update | Operation::Upsert => {
                let mut assigned = shape.view.columns().iter().filter(|column| !column.is_key());
                let replaces = assigned.any(|column| is_indexed(constraints, column.name()));
                let named = |model: &Model| found.iter().any(|row| referenced(model, tables, table, row));
                let (before, now) = (named(&self.committed), named(&self.model));
                self.undecided |= replaces && now && !before;
                !replaces || !(before || now)
            }
        }
    }
}

/// Whether a change of the column has DuckDB delete the row and insert it again.
fn is_indexed(constraints: &Constraints, column: &str) -> bool {
    let foreign = constraints.foreign_keys.iter().map(|key| &key.columns);
    constraints.unique.iter().chain(foreign).flatten().any(|indexed| indexed == column)
}

/// Whether rows of other tables, or its own, name a row.
fn referenced(model: &Model, tables: &Tables, parent: &Table, row: &Row) -> bool {
    tables.definitions.iter().any(|(child, constraints)| {
        let keys = constraints.foreign_keys.iter().filter(|key| key.parent == *parent.name());
        let names = |key: &ForeignKey, other: &Row| {
            key.columns.iter().zip(&key.parent_columns).all(|(own, parent_column)| {
                let value = cell(parent, row, parent_column);
                !value.is_null() && value == cell(child, other, own)
            })
        };
        keys.into_iter().any(|key| model.rows(child.name().name()).iter().any(|other| names(key, other)))
    })
}

fn cell<'a>(table: &Table, row: &'a Row, column: &str) -> &'a Value {
    &row[table.column(column).unwrap()]
}

fn check(kind: Kind, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let harness = DuckDb::new(kind);
    flushes::for_each(cases, |case| {
        runtime.block_on(flushes::check(&case, &harness, DuckDbModel::default()))
    });
}

#[test]
fn a_flush_does_what_the_model_does() {
    check(Kind::Memory, 100);
}

#[test]
fn a_flush_into_a_file_does_so_too() {
    check(Kind::File, 15);
}
