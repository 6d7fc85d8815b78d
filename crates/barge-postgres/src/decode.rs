//! Results as arrays: the bytes of binary results go straight into builders.
//!
//! A column's type is the one wanted, else the one it is best read in; the server doesn't tell a numeric's digits with a
//! result, so that it is read as text. What doesn't fit the wanted type is an `InvalidValue` that names column and row, never
//! a NULL and never rounded.

mod builder;
pub(crate) mod numeric;
mod source;

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use barge_core::{Error, ErrorKind, Result};
use postgres_types::{FromSql, Type};
use tokio_postgres::Row;

use crate::fit::value::Form;
pub(crate) use builder::Builder;
use source::{Misfit, Source, elements};

/// Turns result rows into record batches of one schema.
pub(crate) struct Decoder {
    columns: Vec<Column>,
    schema: SchemaRef,
    /// Rows that batches were made of before.
    rows_before: u64,
    rows: usize,
}

/// One result column on its way into an array.
struct Column {
    source: Source,
    target: Target,
}

/// Where values go, with what they must be there.
struct Target {
    form: Option<Form>,
    builder: Builder,
}

/// A value's bytes as the server sent them.
struct Raw<'a>(Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(Some(bytes)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Decoder {
    /// A decoder of a result's columns; `wanted` gives Arrow types by column name.
    ///
    /// # Errors
    /// `Unsupported` where a column's type has no binary form known here, or the wanted type holds nothing of PostgreSQL's.
    pub(crate) fn new(columns: Vec<(String, Type)>, wanted: Option<&Schema>) -> Result<Decoder> {
        let columns = columns.into_iter().map(|(name, column_type)| Column::new(&name, &column_type, wanted));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let fields = columns.iter().map(|column| Arc::clone(column.target.builder.field()));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Ok(Decoder { columns, schema, rows_before: 0, rows: 0 })
    }

    /// Appends a row.
    ///
    /// # Errors
    /// `InvalidValue` where a value doesn't fit its column's type; what was appended before is then of no use.
    pub(crate) fn append(&mut self, row: &Row) -> Result<()> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            let appended = match row.try_get(index) {
                Ok(Raw(bytes)) => column.append(bytes),
                Err(error) => Err(error.to_string()),
            };
            if let Err(message) = appended {
                return Err(Error::new(ErrorKind::InvalidValue, message)
                    .with_column(self.schema.field(index).name())
                    .with_row(self.rows_before + self.rows as u64));
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// How many rows were appended that no batch took.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The rows appended so far as a batch; the decoder goes on with the next.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        let arrays = self.columns.iter_mut().map(|column| column.target.builder.finish());
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?;
        self.rows_before += self.rows as u64;
        self.rows = 0;
        Ok(batch)
    }
}

impl Column {
    fn new(name: &str, column_type: &Type, wanted: Option<&Schema>) -> Result<Self> {
        let source = Source::of(column_type).ok_or_else(|| {
            let message = format!(
                "values of type {} can't be read: cast the column to text in the query, {name}::text",
                column_type.name()
            );
            Error::new(ErrorKind::Unsupported, message).with_column(name)
        })?;
        let field = wanted.and_then(|schema| schema.field_with_name(name).ok());
        let field = field.map_or_else(|| source.pg_type().field(name), Field::clone).with_nullable(true);
        Ok(Column { target: Target::new(Builder::new(Arc::new(field))?), source })
    }

    fn append(&mut self, bytes: Option<&[u8]>) -> Result<(), Misfit> {
        let Some(bytes) = bytes else {
            self.target.builder.append_null();
            return Ok(());
        };
        match &self.source {
            Source::Array(item) => self.target.append_list(item, bytes),
            source => self.target.append(source, bytes),
        }
    }
}

impl Target {
    fn new(builder: Builder) -> Self {
        Target { form: builder.form(), builder }
    }

    /// Appends a value that isn't NULL.
    #[inline]
    fn append(&mut self, source: &Source, bytes: &[u8]) -> Result<(), Misfit> {
        append(&mut self.builder, self.form.as_ref(), source, bytes)
    }

    fn append_list(&mut self, source: &Source, bytes: &[u8]) -> Result<(), Misfit> {
        let elements = elements(bytes)?;
        let count = elements.left();
        let Some(items) = self.builder.items() else {
            let data_type = self.builder.field().data_type();
            return Err(format!("an array can't be read as {data_type}: cast it to text in the query"));
        };
        let form = items.form();
        for element in elements {
            match element? {
                Some(bytes) => append(items, form.as_ref(), source, bytes)?,
                None if items.field().is_nullable() => items.append_null(),
                None => return Err("the array holds a NULL, which the list wanted has no place for".into()),
            }
        }
        let ended = self.builder.end_list();
        let data_type = self.builder.field().data_type();
        ended.ok_or_else(|| format!("an array of {count} elements can't be read as {data_type}"))
    }
}

fn append(builder: &mut Builder, form: Option<&Form>, source: &Source, bytes: &[u8]) -> Result<(), Misfit> {
    // The digits of a numeric become an integer at once: there is no text in between.
    if *source == Source::Numeric
        && let Some((_, scale)) = builder.decimal()
        && numeric::scaled(bytes, scale.into()).and_then(|value| builder.append_scaled(value)).is_some()
    {
        return Ok(());
    }
    let appended = form.and_then(|form| builder.append(source.value(bytes).ok()?.into_form(form)?));
    match appended {
        Some(()) => Ok(()),
        None => Err(format!("{} can't be read as {}", source.value(bytes)?, builder.field().data_type())),
    }
}

#[cfg(test)]
mod tests;
