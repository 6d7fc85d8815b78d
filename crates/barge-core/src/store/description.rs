//! A table as the database describes it.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};

use crate::{Error, ErrorKind, Result, TableName};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TableKind {
    /// A table that holds rows.
    Table,
    /// A view; writes to it run its triggers or rules.
    View,
    /// A virtual or foreign table.
    Foreign,
}

/// How the database compares keys of a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyEquality {
    /// Equal bytes, equal keys, and no others.
    #[default]
    Exact,
    /// Keys that differ may be equal to the database (NOCASE, citext, char(n)): it must be asked.
    Database,
}

/// What a foreign key does when its parent goes or its parent's key changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// Refuse (NO ACTION, RESTRICT).
    #[default]
    Refuse,
    /// Remove or change the children with it (CASCADE).
    Cascade,
    /// Set the children's columns to NULL or their default.
    Set,
}

/// A column of a table in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedColumn {
    /// Its name.
    pub name: String,
    /// The type as the database writes it; may be empty on SQLite.
    pub declared_type: String,
    /// The built-in type that values have, where the declared type is one a user made: a domain's own, or `enum`.
    pub base_type: Option<String>,
    /// The Arrow type in which it is best read.
    pub data_type: DataType,
    /// The extension type of what is read, where it has one: `arrow.uuid`, `arrow.json`.
    pub extension: Option<&'static str>,
    /// Whether it may hold NULL.
    pub nullable: bool,
    /// The default's SQL, where it has one.
    pub default: Option<String>,
    /// Whether the database computes it from others; such columns can't be written.
    pub computed: bool,
    /// Whether the database draws a value where none is given: an identity, or SQLite's INTEGER PRIMARY KEY.
    pub identity: bool,
    /// How the database compares it in keys.
    pub equality: KeyEquality,
    /// The collation, where it isn't the database's default.
    pub collation: Option<String>,
}

impl DescribedColumn {
    /// A nullable column with no default.
    pub fn new(name: impl Into<String>, declared_type: impl Into<String>, data_type: DataType) -> Self {
        DescribedColumn {
            name: name.into(),
            declared_type: declared_type.into(),
            base_type: None,
            data_type,
            extension: None,
            nullable: true,
            default: None,
            computed: false,
            identity: false,
            equality: KeyEquality::Exact,
            collation: None,
        }
    }

    /// The column as it is best read, under a name.
    pub fn field(&self, name: impl Into<String>) -> Field {
        let field = Field::new(name, self.data_type.clone(), true);
        match self.extension {
            Some(extension) => {
                let name = ("ARROW:extension:name".to_owned(), extension.to_owned());
                field.with_metadata(HashMap::from([name]))
            }
            None => field,
        }
    }
}

/// A unique index or constraint, the primary key's among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    /// Its name.
    pub name: String,
    /// Its columns; `None` for an expression.
    pub columns: Vec<Option<String>>,
    /// Whether it can't decide an upsert: it covers only some rows (`WHERE …`), or is checked later (DEFERRABLE).
    pub partial: bool,
}

/// A foreign key of this table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// Its name, where the database keeps one.
    pub name: Option<String>,
    /// The columns of this table.
    pub columns: Vec<String>,
    /// The parent table.
    pub parent: TableName,
    /// The parent's columns.
    pub parent_columns: Vec<String>,
    /// What happens when a parent is deleted.
    pub on_delete: Action,
    /// What happens when a parent's columns change.
    pub on_update: Action,
}

/// A foreign key of another table that names this one as its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The table that holds the foreign key.
    pub child: TableName,
    /// This table's columns it names.
    pub columns: Vec<String>,
    /// What happens to the children when a row here is deleted.
    pub on_delete: Action,
    /// What happens to them when the columns here change.
    pub on_update: Action,
}

/// A table or view as it is in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: TableName,
    /// Table, view or foreign table.
    pub kind: TableKind,
    /// Whether its rows live in partitions.
    pub partitioned: bool,
    /// Whether other tables inherit from it: what is done to its rows is done to theirs, which its unique keys don't see.
    pub inherited: bool,
    /// Its columns, in order.
    pub columns: Vec<DescribedColumn>,
    /// The primary key's columns, in the key's order; empty where there is none.
    pub key: Vec<String>,
    /// Unique indexes and constraints, the primary key among them.
    pub unique: Vec<UniqueKey>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// Foreign keys of other tables, and its own, that point here.
    pub referenced_by: Vec<Reference>,
    /// The names of its triggers.
    pub triggers: Vec<String>,
    /// Whether any of them runs when rows are inserted. A store that can't tell says so where there are any.
    pub reacts_to_inserts: bool,
}

impl Description {
    /// A column by name. Names are compared as given, then without regard to ASCII case.
    pub fn column(&self, name: &str) -> Option<&DescribedColumn> {
        let exact = self.columns.iter().find(|column| column.name == name);
        exact.or_else(|| self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)))
    }

    /// Whether a unique index or constraint covers exactly these columns, in any order, and all rows.
    pub fn is_unique(&self, columns: &[&str]) -> bool {
        self.unique.iter().any(|unique| {
            !unique.partial
                && unique.columns.len() == columns.len()
                && columns.iter().all(|column| unique.covers(column))
        })
    }

    /// The error for a column that isn't there, naming those that are.
    pub(crate) fn missing_column(&self, name: &str) -> Error {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        Error::new(
            ErrorKind::MissingColumn,
            format!("the table has no such column; it has {}", names.join(", ")),
        )
        .with_table(self.name.to_string())
        .with_column(name)
    }

    /// The columns that are needed to insert a row: no NULL allowed, no default, not drawn or computed.
    pub(crate) fn check_insertable(&self, columns: &[&str]) -> Result<()> {
        let missing = self.columns.iter().find(|column| {
            !column.nullable
                && column.default.is_none()
                && !column.computed
                && !column.identity
                && !columns.iter().any(|name| name.eq_ignore_ascii_case(&column.name))
        });
        match missing {
            Some(column) if self.triggers.is_empty() && self.kind == TableKind::Table => Err(Error::new(
                ErrorKind::MissingColumn,
                "the column allows no NULL and has no default, so a new row must give it",
            )
            .with_table(self.name.to_string())
            .with_column(&column.name)),
            _ => Ok(()),
        }
    }
}

impl UniqueKey {
    /// Whether it covers a column.
    pub fn covers(&self, name: &str) -> bool {
        self.columns.iter().flatten().any(|column| column.eq_ignore_ascii_case(name))
    }
}
