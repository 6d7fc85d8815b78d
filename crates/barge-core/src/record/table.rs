//! What a record type, or a caller with a record batch, says about its table: names, column types, the key.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::{Error, ErrorKind, Result};

/// A table's name, with the schema it lives in where one is given.
///
/// Any text is a valid name: stores quote it. `Display` prints `schema.name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    schema: Option<Arc<str>>,
    name: Arc<str>,
}

impl TableName {
    /// A table in the database's default schema. The name is taken as it is: a dot in it is part of it.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        TableName { schema: None, name: name.into() }
    }

    /// A table in a schema (on SQLite: in an attached database).
    pub fn in_schema(schema: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        TableName { schema: Some(schema.into()), name: name.into() }
    }

    /// The schema, where one was given.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// The name without its schema.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name as SQL: each part in double quotes, with quotes inside doubled.
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&self.name)),
            None => quote(&self.name),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl From<&str> for TableName {
    fn from(name: &str) -> Self {
        TableName::new(name)
    }
}

/// An identifier as SQL, in double quotes, with quotes inside doubled.
pub fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// What Barge does with a column beside storing it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nothing.
    #[default]
    Plain,
    /// Part of the key: finds the row, and is never updated.
    Key,
    /// The key, drawn by the database where the row holds NULL.
    GeneratedKey,
    /// Filled with the time at which the batch is sealed where it is NULL; never overwritten by an upsert or update.
    CreatedAt,
    /// Filled with the time at which the batch is sealed where it is NULL, by every operation that writes.
    UpdatedAt,
}

/// A column as its record type declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Name, Arrow type, whether NULL is allowed, and the extension type (`arrow.uuid`, `arrow.json`).
    pub field: FieldRef,
    /// What Barge does with it.
    pub role: Role,
}

impl Column {
    /// A column with no role.
    pub fn new(field: impl Into<FieldRef>) -> Self {
        Column { field: field.into(), role: Role::Plain }
    }

    /// The same column with a role.
    #[must_use]
    pub fn with_role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// The column's name.
    pub fn name(&self) -> &str {
        self.field.name()
    }

    /// Whether it is part of the key.
    pub fn is_key(&self) -> bool {
        matches!(self.role, Role::Key | Role::GeneratedKey)
    }
}

/// A table as a record type, or a caller with record batches, sees it: possibly fewer columns than the database has.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    name: TableName,
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl Table {
    /// A table from its columns, in the order in which batches hold them.
    ///
    /// # Errors
    /// `InvalidConfig` where there are no columns, two have one name, one is called `_ordinal` (by which Barge counts the rows of
    /// a batch), or a generated key is not the only key column.
    pub fn new(name: impl Into<TableName>, columns: Vec<Column>) -> Result<Self> {
        let name = name.into();
        let invalid =
            |message: String| Error::new(ErrorKind::InvalidConfig, message).with_table(name.to_string());
        if columns.is_empty() {
            return Err(invalid("a table needs at least one column".into()));
        }
        for (index, column) in columns.iter().enumerate() {
            if columns[..index].iter().any(|other| other.name() == column.name()) {
                return Err(invalid(format!("two columns are called {}: rename one", column.name())));
            }
            if column.name().eq_ignore_ascii_case("_ordinal") {
                let message =
                    "a column is called _ordinal, by which Barge counts the rows of a batch: rename it";
                return Err(invalid(message.into()));
            }
        }
        let generated = columns.iter().filter(|column| column.role == Role::GeneratedKey).count();
        if generated > 0 && columns.iter().filter(|column| column.is_key()).count() > 1 {
            return Err(invalid("a generated key must be the only key column".into()));
        }
        let fields: Vec<FieldRef> = columns.iter().map(|column| Arc::clone(&column.field)).collect();
        let schema = Arc::new(Schema::new(fields));
        Ok(Table { name, columns, schema })
    }

    /// A table for record batches of a schema, with the named columns as its key.
    ///
    /// # Errors
    /// `MissingColumn` where a key names no column of the schema; else as [`Table::new`].
    pub fn of_schema(name: impl Into<TableName>, schema: &Schema, key: &[&str]) -> Result<Self> {
        let name = name.into();
        for key in key {
            if schema.field_with_name(key).is_err() {
                let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(Error::new(
                    ErrorKind::MissingColumn,
                    format!("the key names column {key}, but the rows have only {}", columns.join(", ")),
                )
                .with_table(name.to_string())
                .with_column(*key));
            }
        }
        let columns = schema.fields().iter().map(|field| {
            let role = if key.contains(&field.name().as_str()) { Role::Key } else { Role::Plain };
            Column::new(Arc::clone(field)).with_role(role)
        });
        Table::new(name, columns.collect())
    }

    /// The table's name.
    pub fn name(&self) -> &TableName {
        &self.name
    }

    /// Its columns, in the order in which batches hold them.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The schema of its record batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The places of the key columns among [`columns`](Table::columns); empty for a table without a key.
    pub fn key(&self) -> Vec<usize> {
        (0..self.columns.len()).filter(|&index| self.columns[index].is_key()).collect()
    }

    /// The place of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name() == name)
    }
}

/// Whether a field holds UUIDs: 16 bytes with the extension type `arrow.uuid`.
pub fn is_uuid(field: &Field) -> bool {
    field.data_type() == &DataType::FixedSizeBinary(16) && extension(field) == Some("arrow.uuid")
}

/// Whether a field holds JSON: text with the extension type `arrow.json`.
pub fn is_json(field: &Field) -> bool {
    field.data_type() == &DataType::Utf8 && extension(field) == Some("arrow.json")
}

fn extension(field: &Field) -> Option<&str> {
    field.extension_type_name()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_part_by_part() {
        assert_eq!(TableName::new("a\"b").quoted(), "\"a\"\"b\"");
        assert_eq!(TableName::in_schema("s.t", "select").quoted(), "\"s.t\".\"select\"");
        assert_eq!(TableName::in_schema("app", "tasks").to_string(), "app.tasks");
    }

    #[test]
    fn a_table_refuses_two_columns_of_one_name_and_half_generated_keys() {
        let id = Column::new(Field::new("id", DataType::Int64, false));
        let twice = Table::new("t", vec![id.clone(), id.clone()]).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::InvalidConfig);
        let ordinal = Column::new(Field::new("_Ordinal", DataType::Int64, false));
        assert_eq!(Table::new("t", vec![ordinal]).unwrap_err().kind(), ErrorKind::InvalidConfig);
        let other = Column::new(Field::new("other", DataType::Int64, false)).with_role(Role::Key);
        let generated = Table::new("t", vec![id.with_role(Role::GeneratedKey), other]).unwrap_err();
        assert!(generated.to_string().contains("only key column"), "{generated}");
    }

    #[test]
    fn a_key_must_be_a_column_of_the_rows() {
        let schema = Schema::new(vec![Field::new("id", DataType::Int64, false)]);
        let error = Table::of_schema("t", &schema, &["key"]).unwrap_err();
        assert_eq!((error.kind(), error.column()), (ErrorKind::MissingColumn, Some("key")));
    }
}
