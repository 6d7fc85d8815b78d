//! A table's constraints as DuckDB tells them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use barge_core::store::{Description, Target};
use barge_core::{Result, TableName};

use crate::connection::Connection;
use crate::sql::{MAIN, literal, names};
use crate::types::DuckType;

/// One constraint of a table, or of another that names it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constraint {
    pub(crate) name: Option<String>,
    /// The table's columns it looks at.
    pub(crate) columns: Vec<String>,
    pub(crate) rule: Rule,
}

/// What it asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Rule {
    /// That an expression isn't false.
    Check(String),
    /// That no other row has the same values.
    Unique,
    /// That what expressions give of the row, an index over which there is, is not the same of another.
    UniqueExpressions(Vec<String>),
    /// That another table has a row with these values.
    Parent { table: TableName, columns: Vec<String>, own: bool },
    /// That rows of another table name the row.
    Child {
        table: TableName,
        columns: Vec<String>,
        own: bool,
        /// Whether the target's columns make DuckDB replace rows that it changes.
        replaced: bool,
    },
}

impl Connection {
    /// The constraints that a target's rows may break, but for NOT NULL.
    pub(crate) fn constraints(&mut self, target: &Target) -> Result<Vec<Arc<Constraint>>> {
        let description = &target.description;
        let mut constraints = Vec::new();
        let indexes = self.indexes(&description.name)?;
        for (name, columns, expression) in self.checks(&description.name)? {
            constraints.push(Constraint { name: Some(name), columns, rule: Rule::Check(expression) });
        }
        for unique in &description.unique {
            if let Some(columns) = unique.columns.iter().cloned().collect::<Option<Vec<_>>>() {
                constraints.push(Constraint { name: Some(unique.name.clone()), columns, rule: Rule::Unique });
            } else if let Some(index) = indexes.iter().find(|index| index.name == unique.name) {
                constraints.extend(over_expressions(description, index));
            }
        }
        for key in &description.foreign_keys {
            let own = key.parent.name().eq_ignore_ascii_case(description.name.name());
            let rule = Rule::Parent { table: key.parent.clone(), columns: key.parent_columns.clone(), own };
            constraints.push(Constraint { name: key.name.clone(), columns: key.columns.clone(), rule });
        }
        if !description.referenced_by.is_empty() {
            let replaced = is_replaced(target, &indexes);
            constraints.extend(self.children(&description.name, replaced)?);
        }
        Ok(constraints.into_iter().map(Arc::new).collect())
    }

    /// Whether a table has CHECK constraints.
    pub(crate) fn has_checks(&mut self, table: &TableName) -> Result<bool> {
        let checks = self.checks(table);
        // A failure has ended the transaction in DuckDB.
        Ok(!checks.inspect_err(|_| self.roll_back())?.is_empty())
    }

    fn checks(&mut self, table: &TableName) -> Result<Vec<(String, Vec<String>, String)>> {
        let rows = self.read(
            &format!(
                "SELECT constraint_name, constraint_column_names, expression FROM duckdb_constraints() \
                 WHERE constraint_type = 'CHECK' AND {} ORDER BY constraint_index",
                self.of_table("table_name", table)
            ),
            None,
        )?;
        let row = |batch: &RecordBatch, row| (text(batch, 0, row), texts(batch, 1, row), text(batch, 2, row));
        Ok(each(&rows, row))
    }

    /// The foreign keys of other tables, and its own, that name a table.
    fn children(&mut self, table: &TableName, replaced: bool) -> Result<Vec<Constraint>> {
        let rows = self.read(
            &format!(
                "SELECT constraint_name, table_name, constraint_column_names, referenced_column_names \
                 FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY' AND {}",
                self.of_table("referenced_table", table)
            ),
            None,
        )?;
        Ok(each(&rows, |batch, row| {
            let child = text(batch, 1, row);
            let own = child.eq_ignore_ascii_case(table.name());
            let child = match table.schema() {
                Some(schema) => TableName::in_schema(schema, child),
                None => TableName::new(child),
            };
            Constraint {
                name: Some(text(batch, 0, row)),
                columns: texts(batch, 3, row),
                rule: Rule::Child { table: child, columns: texts(batch, 2, row), own, replaced },
            }
        }))
    }

    /// The indexes that were made for themselves, and not with a table's keys.
    pub(crate) fn indexes(&mut self, table: &TableName) -> Result<Vec<Index>> {
        let rows = self.read(
            &format!(
                "SELECT index_name, CASE WHEN is_unique AND NOT is_primary THEN 'yes' END, expressions::VARCHAR[] FROM duckdb_indexes() WHERE {}",
                self.of_table("table_name", table)
            ),
            None,
        )?;
        Ok(each(&rows, |batch, row| Index {
            name: text(batch, 0, row),
            unique: optional_text(batch, 1, row).is_some(),
            expressions: texts(batch, 2, row),
        }))
    }

    /// The condition that a catalog's row speaks of a table.
    pub(crate) fn of_table(&self, column: &str, table: &TableName) -> String {
        self.of_table_in(column, &literal(table.schema().unwrap_or(MAIN)), table)
    }

    /// The same for a schema that is given as an expression.
    pub(crate) fn of_table_in(&self, column: &str, schema: &str, table: &TableName) -> String {
        format!(
            "database_name = {} AND lower(schema_name) = lower({schema}) AND lower({column}) = lower({})",
            literal(&self.catalog),
            literal(table.name())
        )
    }
}

/// An index as DuckDB tells of it.
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) unique: bool,
    /// Columns, quoted where they need it, and other expressions.
    pub(crate) expressions: Vec<String>,
}

impl Index {
    fn names(&self, column: &str) -> bool {
        self.expressions.iter().any(|expression| names(expression, column))
    }
}

/// What a unique index over expressions asks for. How one with a collation beneath compares isn't known; such rows are found by trying.
fn over_expressions(description: &Description, index: &Index) -> Option<Constraint> {
    let named = description.columns.iter().filter(|column| index.names(&column.name));
    let rule = Rule::UniqueExpressions(index.expressions.clone());
    let columns = named.clone().map(|column| column.name.clone()).collect();
    let is_plain = named.clone().all(|column| column.collation.is_none() && !column.computed);
    is_plain.then(|| Constraint { name: Some(index.name.clone()), columns, rule })
}

/// Whether DuckDB changes the target's rows by deleting and inserting them: where it sets a column of an index, or a list.
fn is_replaced(target: &Target, indexes: &[Index]) -> bool {
    let description = &target.description;
    let keyed = |name: &str| {
        description.unique.iter().any(|unique| unique.covers(name))
            || description
                .foreign_keys
                .iter()
                .any(|key| key.columns.iter().any(|column| column.eq_ignore_ascii_case(name)))
            || indexes.iter().any(|index| index.names(name))
    };
    target.assigned().any(|index| {
        let is_list = target
            .described(index)
            .is_some_and(|described| DuckType::parse(&described.declared_type).is_updated_by_replacing());
        is_list || keyed(target.columns[index].name())
    })
}

/// Every row of some batches.
pub(crate) fn each<T>(batches: &[RecordBatch], row: impl Fn(&RecordBatch, usize) -> T) -> Vec<T> {
    batches
        .iter()
        .flat_map(|batch| (0..batch.num_rows()).map(|place| row(batch, place)).collect::<Vec<T>>())
        .collect()
}

/// A text of a row; empty for NULL.
pub(crate) fn text(batch: &RecordBatch, column: usize, row: usize) -> String {
    optional_text(batch, column, row).unwrap_or_default()
}

/// A text of a row, unless it is NULL.
pub(crate) fn optional_text(batch: &RecordBatch, column: usize, row: usize) -> Option<String> {
    let texts = batch.column(column).as_string_opt::<i32>()?;
    texts.is_valid(row).then(|| texts.value(row).to_owned())
}

/// A list of texts of a row; empty for NULL.
pub(crate) fn texts(batch: &RecordBatch, column: usize, row: usize) -> Vec<String> {
    let Some(lists) = batch.column(column).as_list_opt::<i32>() else { return Vec::new() };
    let list = lists.value(row);
    let Some(list) = list.as_string_opt::<i32>() else { return Vec::new() };
    list.iter().flatten().map(str::to_owned).collect()
}
