//! What a table in memory is made of: columns, keys, constraints, triggers.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::DataType;
use barge_core::record::{Column, Role};
use barge_core::store::{
    Action, DescribedColumn, Description, Direction, ForeignKey, KeyEquality, OrderBy, TableKind, UniqueKey,
};
use barge_core::{Error, ErrorKind, Result, Table, TableName};
use serde_json::{Value as Json, json};

use crate::Value;
use crate::conformance::Constraints;

/// The first word of the text that stands for a table: see [`MemoryTable::to_text`].
const TEXT_PREFIX: &str = "MEMORY TABLE ";

/// A table to be created in a [`MemoryStore`](super::MemoryStore).
#[derive(Clone, Debug)]
pub struct MemoryTable {
    pub(super) name: TableName,
    pub(super) columns: Vec<MemoryColumn>,
    /// The primary key and the unique keys, by column names.
    pub(super) key: Vec<String>,
    pub(super) unique: Vec<Vec<String>>,
    pub(super) foreign_keys: Vec<ForeignKey>,
    pub(super) checks: Vec<Rule>,
    pub(super) triggers: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(super) struct MemoryColumn {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    pub(super) identity: bool,
    pub(super) ignores_case: bool,
}

/// A named condition on a row.
#[derive(Clone)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) holds: Condition,
}

type Condition = Arc<dyn Fn(&MemoryRow<'_>) -> bool + Send + Sync>;

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A row as a CHECK or a trigger sees it.
#[derive(Debug)]
pub struct MemoryRow<'a> {
    pub(super) table: &'a MemoryTable,
    pub(super) values: &'a [Value],
}

impl MemoryRow<'_> {
    /// The value of a column; NULL where there is no such column.
    pub fn get(&self, column: &str) -> &Value {
        let index = self.table.columns.iter().position(|described| described.name == column);
        index.map_or(&Value::Null, |index| &self.values[index])
    }
}

impl MemoryTable {
    /// A table with a record's columns and key. A generated key is drawn by the store.
    pub fn new(table: &Table) -> Self {
        let columns = table.columns().iter().map(MemoryColumn::new).collect();
        let key = table.columns().iter().filter(|column| column.is_key());
        MemoryTable {
            name: table.name().clone(),
            columns,
            key: key.map(|column| column.name().to_owned()).collect(),
            unique: Vec::new(),
            foreign_keys: Vec::new(),
            checks: Vec::new(),
            triggers: Vec::new(),
        }
    }

    /// A table with a record's columns and key, and with constraints.
    pub fn constrained(table: &Table, constraints: &Constraints) -> Self {
        let mut memory = MemoryTable::new(table);
        if constraints.keyless {
            memory = memory.without_key();
        }
        memory.unique = constraints.unique.clone();
        for key in &constraints.foreign_keys {
            let (columns, parents) = (borrowed(&key.columns), borrowed(&key.parent_columns));
            memory = memory.foreign_key(&columns, key.parent.clone(), &parents, key.on_delete, key.on_update);
        }
        for (column, least) in constraints.at_least.clone() {
            let name = format!("{column}_least");
            memory = memory.check(name, move |row| {
                row.get(&column).is_null() || *row.get(&column) >= Value::from(least)
            });
        }
        for (column, value) in &constraints.defaults {
            memory = memory.default(column, value.clone());
        }
        for column in &constraints.ignore_case {
            memory = memory.ignore_case(column);
        }
        for (column, least) in constraints.keep_out_below.clone() {
            let name = format!("{column}_trigger");
            memory = memory.keep_out(name, move |row| {
                !row.get(&column).is_null() && *row.get(&column) < Value::from(least)
            });
        }
        memory
    }

    /// The same table without a primary key, so that rows may repeat.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.key.clear();
        self
    }

    /// Rows must differ in these columns; NULL differs from everything.
    #[must_use]
    pub fn unique(mut self, columns: &[&str]) -> Self {
        self.unique.push(owned(columns));
        self
    }

    /// A foreign key to columns of another table, or this one, that are unique there.
    #[must_use]
    pub fn foreign_key(
        mut self,
        columns: &[&str],
        parent: impl Into<TableName>,
        parent_columns: &[&str],
        on_delete: Action,
        on_update: Action,
    ) -> Self {
        self.foreign_keys.push(ForeignKey {
            name: Some(format!("{}_{}_fkey", self.name.name(), columns.join("_"))),
            columns: owned(columns),
            parent: parent.into(),
            parent_columns: owned(parent_columns),
            on_delete,
            on_update,
        });
        self
    }

    /// Every row must meet a condition.
    #[must_use]
    pub fn check(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&MemoryRow<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.checks.push(Rule { name: name.into(), holds: Arc::new(holds) });
        self
    }

    /// A trigger that keeps the rows that meet a condition out, without an error.
    #[must_use]
    pub fn keep_out(
        mut self,
        name: impl Into<String>,
        holds: impl Fn(&MemoryRow<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.triggers.push(Rule { name: name.into(), holds: Arc::new(holds) });
        self
    }

    /// What a column holds in new rows that leave it out.
    #[must_use]
    pub fn default(mut self, column: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        for described in self.columns.iter_mut().filter(|described| described.name == column) {
            described.default = Some(value.clone());
        }
        self
    }

    /// A column of text in which `A` and `a` are one key.
    #[must_use]
    pub fn ignore_case(mut self, column: &str) -> Self {
        for described in self.columns.iter_mut().filter(|described| described.name == column) {
            described.ignores_case = true;
        }
        self
    }

    /// The primary key's columns and the unique keys'.
    pub(super) fn unique_keys(&self) -> impl Iterator<Item = (String, &Vec<String>)> {
        let primary = Some(&self.key).filter(|key| !key.is_empty()).into_iter();
        let primary = primary.map(|key| (format!("{}_pkey", self.name.name()), key));
        primary
            .chain(self.unique.iter().map(|key| (format!("{}_{}_key", self.name.name(), key.join("_")), key)))
    }

    /// The columns of an order, by their places.
    pub(super) fn order(&self, order: &[OrderBy]) -> Result<Vec<(usize, Direction)>> {
        let names: Vec<&str> = order.iter().map(|by| by.column.as_str()).collect();
        Ok(self.places(&names)?.into_iter().zip(order.iter().map(|by| by.direction)).collect())
    }

    /// Which of two rows comes first in an order. NULL is greater than every value.
    pub(super) fn compare(&self, order: &[(usize, Direction)], one: &[Value], other: &[Value]) -> Ordering {
        let columns = order.iter().map(|&(place, direction)| {
            let key = |row: &[Value]| (row[place].is_null(), self.columns[place].key_value(&row[place]));
            let ascending = key(one).cmp(&key(other));
            if direction == Direction::Descending { ascending.reverse() } else { ascending }
        });
        columns.fold(Ordering::Equal, Ordering::then)
    }

    /// The places of columns by name, as [`Description::column`] compares names.
    pub(super) fn places<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<usize>> {
        let place = |name: &str| {
            let exact = self.columns.iter().position(|column| column.name == name);
            exact.or_else(|| self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)))
        };
        let places = names.iter().map(|name| {
            place(name.as_ref()).ok_or_else(|| {
                Error::new(ErrorKind::MissingColumn, "the table has no such column")
                    .with_table(self.name.to_string())
                    .with_column(name.as_ref())
            })
        });
        places.collect()
    }

    /// The table as a store describes it, but for what other tables' foreign keys say.
    pub(super) fn describe(&self) -> Description {
        let unique = self.unique_keys().map(|(name, columns)| UniqueKey {
            name,
            columns: columns.iter().cloned().map(Some).collect(),
            partial: false,
        });
        Description {
            name: self.name.clone(),
            kind: TableKind::Table,
            partitioned: false,
            inherited: false,
            columns: self.columns.iter().map(MemoryColumn::describe).collect(),
            key: self.key.clone(),
            unique: unique.collect(),
            foreign_keys: self.foreign_keys.clone(),
            referenced_by: Vec::new(),
            triggers: self.triggers.iter().map(|trigger| trigger.name.clone()).collect(),
            reacts_to_inserts: !self.triggers.is_empty(),
        }
    }

    /// The table as text that [`MemoryTable::from_text`] reads: what stands for `CREATE TABLE IF NOT EXISTS` where there is
    /// no SQL. Columns and key only.
    pub(super) fn to_text(&self) -> String {
        let columns = self.columns.iter().map(|column| {
            json!({
                "name": column.name,
                "type": column.data_type.to_string(),
                "nullable": column.nullable,
                "identity": column.identity,
            })
        });
        let table = json!({
            "schema": self.name.schema(),
            "name": self.name.name(),
            "columns": columns.collect::<Vec<Json>>(),
            "key": self.key,
        });
        format!("{TEXT_PREFIX}{table}")
    }

    /// The table that [`MemoryTable::to_text`] wrote; `None` for any other text.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let table: Json = serde_json::from_str(text.strip_prefix(TEXT_PREFIX)?).ok()?;
        let name = table["name"].as_str()?;
        let columns = table["columns"].as_array()?.iter().map(|column| {
            Some(MemoryColumn {
                name: column["name"].as_str()?.to_owned(),
                data_type: column["type"].as_str()?.parse().ok()?,
                nullable: column["nullable"].as_bool()?,
                default: None,
                identity: column["identity"].as_bool()?,
                ignores_case: false,
            })
        });
        let key = table["key"].as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
        Some(MemoryTable {
            name: match table["schema"].as_str() {
                Some(schema) => TableName::in_schema(schema, name),
                None => TableName::new(name),
            },
            columns: columns.collect::<Option<_>>()?,
            key: key.collect::<Option<_>>()?,
            unique: Vec::new(),
            foreign_keys: Vec::new(),
            checks: Vec::new(),
            triggers: Vec::new(),
        })
    }
}

impl MemoryColumn {
    fn new(column: &Column) -> Self {
        MemoryColumn {
            name: column.name().to_owned(),
            data_type: column.field.data_type().clone(),
            nullable: column.field.is_nullable() && !column.is_key(),
            default: None,
            identity: column.role == Role::GeneratedKey,
            ignores_case: false,
        }
    }

    fn describe(&self) -> DescribedColumn {
        let mut described =
            DescribedColumn::new(&self.name, self.data_type.to_string(), self.data_type.clone());
        described.nullable = self.nullable;
        described.default = self.default.as_ref().map(|value| format!("{value:?}"));
        described.identity = self.identity;
        if self.ignores_case {
            described.equality = KeyEquality::Database;
            described.collation = Some("NOCASE".into());
        }
        described
    }

    /// A value as keys compare it.
    pub(super) fn key_value(&self, value: &Value) -> Value {
        match value {
            Value::Text(text) if self.ignores_case => text.to_ascii_lowercase().into(),
            _ => value.clone(),
        }
    }
}

fn borrowed(columns: &[String]) -> Vec<&str> {
    columns.iter().map(String::as_str).collect()
}

fn owned(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|&column| column.to_owned()).collect()
}
