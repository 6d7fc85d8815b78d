//! A table, an operation and the columns it carries, checked against the database's description.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};

use super::{DescribedColumn, Description, Operation};
use crate::record::{Column, Role};
use crate::{Error, ErrorKind, Result, Table, TableName};

/// Where the rows of a step go: made once for a record type and an operation, then shared by every batch.
#[derive(Debug)]
pub struct Target {
    /// What to do.
    pub operation: Operation,
    /// The columns that the step's batches hold, with the names the database gives them.
    pub columns: Vec<Column>,
    /// The places of the key columns among `columns`.
    pub key: Vec<usize>,
    /// The table as it is in the database.
    pub description: Arc<Description>,
    /// The same columns as a schema.
    pub schema: SchemaRef,
    /// The places of `columns` among the record's.
    projection: Vec<usize>,
}

impl Target {
    /// Holds a record's table against the database's.
    ///
    /// A delete carries the key alone. An insert or upsert of a record that lacks a column takes the column's default.
    ///
    /// # Errors
    /// `MissingColumn` where the table lacks a column of the record, or the record one that a new row needs; `InvalidConfig`
    /// where the operation needs a key and there is none, or no unique index covers it; `Unsupported` for a write to a computed column.
    pub fn new(table: &Table, operation: Operation, description: Arc<Description>) -> Result<Self> {
        let fail = |kind, message: String| Error::new(kind, message).with_table(table.name().to_string());
        if operation.is_keyed() && table.key().is_empty() {
            let message =
                format!("{operation} finds rows by key, and these rows have none: mark the key columns");
            return Err(fail(ErrorKind::InvalidConfig, message));
        }
        let mut columns = Vec::new();
        let mut projection = Vec::new();
        for (index, column) in table.columns().iter().enumerate() {
            let described =
                description.column(column.name()).ok_or_else(|| description.missing_column(column.name()))?;
            if operation == Operation::Delete && !column.is_key() {
                continue;
            }
            if described.computed {
                let message = "the database computes the column: leave it out".to_owned();
                return Err(fail(ErrorKind::Unsupported, message).with_column(column.name()));
            }
            if operation == Operation::Update && column.role == Role::CreatedAt {
                continue;
            }
            let mut column = column.clone();
            if column.name() != described.name {
                column.field = Arc::new((*column.field).clone().with_name(&described.name));
            }
            columns.push(column);
            projection.push(index);
        }
        let key: Vec<usize> = (0..columns.len()).filter(|&index| columns[index].is_key()).collect();
        let names: Vec<&str> = columns.iter().map(Column::name).collect();
        let key_names: Vec<&str> = key.iter().map(|&index| names[index]).collect();
        if matches!(operation, Operation::Upsert | Operation::InsertIfAbsent)
            && !description.is_unique(&key_names)
        {
            let message = format!(
                "{operation} needs a primary key or unique index on exactly ({})",
                key_names.join(", ")
            );
            return Err(fail(ErrorKind::InvalidConfig, message));
        }
        if matches!(operation, Operation::Insert | Operation::InsertIfAbsent | Operation::Upsert) {
            description.check_insertable(&names)?;
        }
        if operation == Operation::Update && columns.len() == key.len() {
            let message = "an update needs a column beside the key".to_owned();
            return Err(fail(ErrorKind::InvalidConfig, message));
        }
        let fields: Vec<FieldRef> = columns.iter().map(|column| column.field.clone()).collect();
        Ok(Target { operation, columns, key, description, schema: Arc::new(Schema::new(fields)), projection })
    }

    /// The table's name.
    pub fn table(&self) -> &TableName {
        &self.description.name
    }

    /// A column as the database describes it.
    pub fn described(&self, index: usize) -> Option<&DescribedColumn> {
        self.description.column(self.columns[index].name())
    }

    /// The places of the columns that are set where the row is there: neither key nor `created_at`.
    pub fn assigned(&self) -> impl Iterator<Item = usize> {
        self.columns
            .iter()
            .enumerate()
            .filter(|(_, column)| !column.is_key() && column.role != Role::CreatedAt)
            .map(|(index, _)| index)
    }

    /// The place of the key that the database draws.
    pub fn generated(&self) -> Option<usize> {
        self.columns.iter().position(|column| column.role == Role::GeneratedKey)
    }

    /// Whether a step of several rows could do something else than its rows one by one, because a row may be the parent of another, or
    /// reach one through foreign keys and triggers. Such rows [`apply_rows`](super::Transaction::apply_rows) sends one by one.
    pub fn rows_may_meet(&self) -> bool {
        crate::engine::writer::plan::statement_shows(self)
    }

    /// A record's batch as the step's: its columns alone, under the database's names.
    ///
    /// # Errors
    /// `InvalidConfig` where the batch isn't of the record's schema.
    pub fn project(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.projection.iter().map(|&index| batch.columns().get(index).cloned());
        let columns = columns.collect::<Option<Vec<_>>>().ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "the batch has fewer columns than its table says")
                .with_table(self.table().to_string())
        })?;
        // Fields of a record allow NULL only where the Rust type does; the batch's own may allow more.
        let fields = self.schema.fields().iter().zip(&columns).map(|(field, array)| {
            if array.null_count() > 0 && !field.is_nullable() {
                Arc::new((**field).clone().with_nullable(true))
            } else {
                field.clone()
            }
        });
        let schema = Schema::new(fields.collect::<Vec<FieldRef>>());
        Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
    }

    /// Whether two targets' rows can go in one step.
    pub(crate) fn same_step(&self, other: &Target) -> bool {
        self.operation == other.operation && self.table() == other.table() && self.columns == other.columns
    }
}
