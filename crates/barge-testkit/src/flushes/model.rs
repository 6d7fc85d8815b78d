//! The reference without a database: tables as lists of rows, gone through from end to end.

use std::collections::BTreeMap;

use barge_core::store::{Action, ForeignKey, Outcome};
use barge_core::{ErrorKind, Operation, Table};

use super::{Answer, Reference, Tables, Write};
use crate::Value;
use crate::conformance::Constraints;

type Row = Vec<Value>;

/// Tables in memory, as plain as can be.
#[derive(Clone, Debug, Default)]
pub struct Model {
    rows: BTreeMap<String, Vec<Row>>,
    before: BTreeMap<String, Vec<Row>>,
}

impl Reference for Model {
    fn write(&mut self, tables: &Tables, write: &Write) -> Answer {
        let before = self.rows.clone();
        let mut statement = Statement { tables, rows: &mut self.rows };
        let answer = statement.write(write).and_then(|outcome| {
            statement.check_foreign_keys()?;
            Ok(outcome)
        });
        if answer.is_err() {
            self.rows = before;
        }
        answer
    }

    fn begin(&mut self) {
        self.before = self.rows.clone();
    }

    fn end(&mut self, keep: bool) {
        if !keep {
            self.rows = std::mem::take(&mut self.before);
        }
    }

    fn rows(&self, table: &str) -> Vec<Row> {
        let mut rows = self.rows.get(table).cloned().unwrap_or_default();
        rows.sort();
        rows
    }
}

/// One row's statement. After an error the rows are of no use.
struct Statement<'a> {
    tables: &'a Tables,
    rows: &'a mut BTreeMap<String, Vec<Row>>,
}

impl Statement<'_> {
    fn write(&mut self, write: &Write) -> Answer {
        let shape = &self.tables.shapes[write.shape];
        let (table, constraints) = &self.tables.definitions[shape.table];
        let found = self.find(write);
        let mut new: Row = table.columns().iter().map(|column| default(constraints, column.name())).collect();
        self.set(&mut new, write, |_| true);
        match write.operation {
            Operation::Update | Operation::Delete if found.is_empty() => Ok(Outcome::NotFound),
            Operation::Delete => self.delete(table, &found),
            Operation::Update => self.update(write, &found),
            // What would be inserted must be a valid row, also where it is there already.
            _ if !takes(table, constraints, &new)? => Ok(Outcome::Unchanged),
            Operation::InsertIfAbsent if !found.is_empty() => Ok(Outcome::Unchanged),
            Operation::Upsert if !found.is_empty() => self.update(write, &found),
            Operation::Insert | Operation::InsertIfAbsent | Operation::Upsert => {
                self.must_be_unique(table, constraints, &new, None)?;
                self.rows_of(table).push(new);
                Ok(Outcome::Inserted)
            }
        }
    }

    fn delete(&mut self, table: &Table, found: &[usize]) -> Answer {
        for &place in found.iter().rev() {
            let old = self.rows_of(table).remove(place);
            self.parent_goes(table, &old, None)?;
        }
        Ok(Outcome::Deleted)
    }

    fn update(&mut self, write: &Write, found: &[usize]) -> Answer {
        let shape = &self.tables.shapes[write.shape];
        let (table, constraints) = &self.tables.definitions[shape.table];
        let mut outcome = Outcome::Unchanged;
        if shape.view.columns().iter().all(|column| column.is_key()) {
            return Ok(outcome);
        }
        for &place in found {
            let old = self.rows_of(table)[place].clone();
            let mut new = old.clone();
            self.set(&mut new, write, |column| !table.columns()[column].is_key());
            if takes(table, constraints, &new)? {
                self.must_be_unique(table, constraints, &new, Some(place))?;
                self.rows_of(table)[place] = new.clone();
                self.parent_goes(table, &old, Some(&new))?;
                outcome = Outcome::Updated;
            }
        }
        Ok(outcome)
    }

    /// Sets a row's columns to those of a write.
    fn set(&self, row: &mut Row, write: &Write, wanted: impl Fn(usize) -> bool) {
        let shape = &self.tables.shapes[write.shape];
        let (table, _) = &self.tables.definitions[shape.table];
        for (column, value) in shape.view.columns().iter().zip(&write.row) {
            let place = table.column(column.name()).unwrap();
            if wanted(place) {
                row[place] = value.clone();
            }
        }
    }

    /// The places of the rows with a write's key.
    fn find(&mut self, write: &Write) -> Vec<usize> {
        let table = self.tables.shapes[write.shape].table;
        let key = self.tables.key_of(write);
        let tables = self.tables;
        let rows = self.rows_of(&tables.definitions[table].0).iter().enumerate();
        rows.filter(|(_, row)| tables.key_in(table, row) == key).map(|(place, _)| place).collect()
    }

    fn rows_of(&mut self, table: &Table) -> &mut Vec<Row> {
        self.rows.entry(table.name().name().to_owned()).or_default()
    }

    fn must_be_unique(
        &mut self,
        table: &Table,
        constraints: &Constraints,
        new: &Row,
        own: Option<usize>,
    ) -> Result<(), ErrorKind> {
        let key: Vec<String> = table.columns().iter().filter(|column| column.is_key()).map(name_of).collect();
        let key = Some(&key).filter(|_| !constraints.keyless);
        for columns in constraints.unique.iter().chain(key) {
            let values = |row: &Row| -> Vec<Value> {
                let value = |column: &String| fold(constraints, column, cell(table, row, column));
                columns.iter().map(value).collect()
            };
            let given = values(new);
            let mut others = self.rows_of(table).iter().enumerate().filter(|(place, _)| Some(*place) != own);
            if !given.contains(&Value::Null) && others.any(|(_, row)| values(row) == given) {
                return Err(ErrorKind::UniqueViolation);
            }
        }
        Ok(())
    }

    /// Does what foreign keys say of a row that went, or became another.
    fn parent_goes(&mut self, parent: &Table, old: &Row, new: Option<&Row>) -> Result<(), ErrorKind> {
        let tables = self.tables;
        for (child, constraints) in &tables.definitions {
            for key in constraints.foreign_keys.iter().filter(|key| key.parent == *parent.name()) {
                let (gone, now) =
                    (parent_values(parent, key, old), new.map(|new| parent_values(parent, key, new)));
                let action = if new.is_some() { key.on_update } else { key.on_delete };
                if action != Action::Refuse && now.as_ref() != Some(&gone) {
                    self.change_children(child, key, action, &gone, now)?;
                }
            }
        }
        Ok(())
    }

    fn change_children(
        &mut self,
        child: &Table,
        key: &ForeignKey,
        action: Action,
        gone: &[Value],
        now: Option<Vec<Value>>,
    ) -> Result<(), ErrorKind> {
        let names_it = |row: &Row| child_values(child, key, row) == gone && !gone.contains(&Value::Null);
        while let Some(place) = self.rows_of(child).iter().position(names_it) {
            if action == Action::Cascade && now.is_none() {
                let row = self.rows_of(child).remove(place);
                self.parent_goes(child, &row, None)?;
                continue;
            }
            for (index, column) in key.columns.iter().enumerate() {
                let value = match (action, &now) {
                    (Action::Cascade, Some(now)) => now[index].clone(),
                    _ => Value::Null,
                };
                self.rows_of(child)[place][child.column(column).unwrap()] = value;
            }
        }
        Ok(())
    }

    /// Every child has its parent.
    fn check_foreign_keys(&mut self) -> Result<(), ErrorKind> {
        let tables = self.tables;
        for (child, constraints) in &tables.definitions {
            for key in &constraints.foreign_keys {
                let (parent, _) =
                    tables.definitions.iter().find(|(table, _)| *table.name() == key.parent).unwrap();
                let parents: Vec<Vec<Value>> =
                    self.rows_of(parent).iter().map(|row| parent_values(parent, key, row)).collect();
                for row in self.rows_of(child) {
                    let values = child_values(child, key, row);
                    if !values.contains(&Value::Null) && !parents.contains(&values) {
                        return Err(ErrorKind::ForeignKeyViolation);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a table takes a row: not where its trigger keeps it out.
fn takes(table: &Table, constraints: &Constraints, row: &Row) -> Result<bool, ErrorKind> {
    let below = |(column, least): &(String, i64)| {
        let value = cell(table, row, column);
        !value.is_null() && *value < Value::from(*least)
    };
    if constraints.keep_out_below.iter().any(below) {
        return Ok(false);
    }
    if table.columns().iter().zip(row).any(|(column, value)| value.is_null() && !column.field.is_nullable()) {
        return Err(ErrorKind::NotNullViolation);
    }
    if constraints.at_least.iter().any(below) { Err(ErrorKind::CheckViolation) } else { Ok(true) }
}

fn default(constraints: &Constraints, column: &str) -> Value {
    let given = constraints.defaults.iter().find(|(name, _)| name == column);
    given.map_or(Value::Null, |(_, value)| value.clone())
}

fn parent_values(parent: &Table, key: &ForeignKey, row: &Row) -> Vec<Value> {
    key.parent_columns.iter().map(|column| cell(parent, row, column).clone()).collect()
}

fn child_values(child: &Table, key: &ForeignKey, row: &Row) -> Vec<Value> {
    key.columns.iter().map(|column| cell(child, row, column).clone()).collect()
}

fn cell<'a>(table: &Table, row: &'a Row, column: &str) -> &'a Value {
    &row[table.column(column).unwrap()]
}

fn name_of(column: &barge_core::record::Column) -> String {
    column.name().to_owned()
}

/// A value as keys compare it.
pub(super) fn fold(constraints: &Constraints, column: &str, value: &Value) -> Value {
    match value {
        Value::Text(text) if constraints.ignore_case.iter().any(|name| name == column) => {
            text.to_ascii_lowercase().into()
        }
        value => value.clone(),
    }
}
