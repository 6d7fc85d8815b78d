//! `--mode replace`: all rows of a table for new ones, at the end and at once.
//!
//! The new rows gather in a table beside the old one, batch by batch, each row checked. One transaction at the end puts them in
//! the old rows' place, so that a load which fails, is interrupted or rejects too much leaves the table as it was. The
//! table itself stays, with its indexes, triggers and foreign keys; where there was none, the gathered one takes its name.

use std::sync::Arc;

use barge::record::quote;
use barge::store::{Action, Description, TableKind};
use barge::{Database, Dialect, Error, ErrorKind, Result, Sql, Table, TableName};

use super::plan::Route;

/// The rows gathered for a table.
pub(crate) struct Replacement {
    name: TableName,
    /// Where they gather.
    beside: TableName,
    /// Whether the table was there before.
    existed: bool,
    /// What rows are held against: the table there was, else the one beside.
    pub(crate) description: Arc<Description>,
    columns: Vec<String>,
}

impl Replacement {
    /// Makes the table beside.
    pub(crate) async fn prepare(
        database: &Database,
        name: &TableName,
        description: Option<Arc<Description>>,
        table: &Table,
        key: &[String],
    ) -> Result<Self> {
        let beside = beside(name);
        let existed = description.is_some();
        database.execute(format!("DROP TABLE IF EXISTS {}", beside.quoted())).await?;
        let description = match description {
            Some(description) => {
                check_replaceable(&description)?;
                database.execute(creation_sql(&beside, &description, table, key)).await?;
                description
            }
            None => {
                database.create(&renamed(table, &beside)?).await?;
                database.describe(&beside).await?
            }
        };
        let columns = table.columns().iter().map(|column| {
            let described = description.column(column.name());
            described.map_or(column.name(), |described| &described.name).to_owned()
        });
        let columns = columns.collect();
        Ok(Replacement { name: name.clone(), beside, existed, description, columns })
    }

    /// Sends a route's rows beside the table. Later files must not bring columns that the first did not have.
    pub(crate) fn redirect(&self, route: Route) -> Result<Route> {
        for column in route.table.columns() {
            if !self.columns.iter().any(|name| name.eq_ignore_ascii_case(column.name())) {
                let message = format!(
                    "a later file has a column {} that the first one lacks: load it by itself, or put it first",
                    column.name()
                );
                return Err(Error::new(ErrorKind::MissingColumn, message).with_table(self.name.to_string()));
            }
        }
        Ok(Route { table: Arc::new(renamed(&route.table, &self.beside)?), ..route })
    }

    /// Puts the gathered rows in the old ones' place. Returns the number of columns where the table is new.
    pub(crate) async fn swap(self, database: &Database) -> Result<Option<usize>> {
        let swapped = self.try_swap(database).await;
        if let Err(error) = swapped {
            let error =
                error.context("the new rows can't take the old ones' place, and the table is as it was");
            return match self.discard(database).await {
                Ok(()) => Err(error),
                Err(also) => Err(error.context(also)),
            };
        }
        Ok((!self.existed).then_some(self.columns.len()))
    }

    async fn try_swap(&self, database: &Database) -> Result<()> {
        let (name, beside) = (self.name.quoted(), self.beside.quoted());
        let mut tx = database.begin().await?;
        if !self.existed {
            tx.execute(format!("ALTER TABLE {beside} RENAME TO {}", quote(self.name.name()))).await?;
            return tx.commit().await;
        }
        if database.store().dialect() == Dialect::Sqlite {
            // Rows that others refer to may go and come back before the end.
            tx.execute("PRAGMA defer_foreign_keys = ON").await?;
        }
        let columns: Vec<String> = self.columns.iter().map(|column| quote(column)).collect();
        let columns = columns.join(", ");
        tx.execute(format!("DELETE FROM {name}")).await?;
        tx.execute(Sql::new(format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM {beside}")).on(
            Dialect::Sqlite,
            format!("INSERT OR ABORT INTO {name} ({columns}) SELECT {columns} FROM {beside}"),
        ))
        .await?;
        tx.execute(format!("DROP TABLE {beside}")).await?;
        tx.writes(self.name.clone());
        tx.commit().await
    }

    /// Throws the gathered rows away.
    pub(crate) async fn discard(&self, database: &Database) -> Result<()> {
        let dropped = database.execute(format!("DROP TABLE IF EXISTS {}", self.beside.quoted())).await;
        let left = || format!("the table {} is left over and can be dropped", self.beside);
        dropped.map(drop).map_err(|error| error.context(left()))
    }
}

/// Emptying the table must not take rows of others with it.
fn check_replaceable(description: &Description) -> Result<()> {
    let refuse = |message: String| {
        Err(Error::new(ErrorKind::Unsupported, message).with_table(description.name.to_string()))
    };
    if description.kind != TableKind::Table {
        return refuse("only the rows of a table can be replaced, and this is none".into());
    }
    let taken = description.referenced_by.iter().find(|reference| reference.on_delete != Action::Refuse);
    match taken {
        Some(reference) if reference.child != description.name => refuse(format!(
            "replacing its rows would delete or change those of {}, whose foreign key says so; \
             use --mode upsert, or empty both tables yourself",
            reference.child
        )),
        _ => Ok(()),
    }
}

/// The table's columns that the file has, as the database declares them, with the keys that rows must keep.
fn creation_sql(beside: &TableName, description: &Description, table: &Table, key: &[String]) -> String {
    let given = |name: &str| table.columns().iter().any(|column| column.name().eq_ignore_ascii_case(name));
    let mut lines = Vec::new();
    for column in description.columns.iter().filter(|column| given(&column.name)) {
        let mut line = format!("{} {}", quote(&column.name), column.declared_type);
        if let Some(collation) = &column.collation {
            line.push_str(&format!(" COLLATE {}", quote(collation)));
        }
        if !column.nullable && !column.identity {
            line.push_str(" NOT NULL");
        }
        lines.push(line);
    }
    let list = |names: &mut dyn Iterator<Item = &str>| names.map(quote).collect::<Vec<_>>().join(", ");
    if !key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", list(&mut key.iter().map(String::as_str))));
    }
    for unique in description.unique.iter().filter(|unique| !unique.partial) {
        let names: Option<Vec<&str>> = unique.columns.iter().map(Option::as_deref).collect();
        let is_key =
            |names: &[&str]| names.len() == key.len() && key.iter().all(|column| unique.covers(column));
        if let Some(names) = names.filter(|names| names.iter().all(|name| given(name)) && !is_key(names)) {
            lines.push(format!("UNIQUE ({})", list(&mut names.into_iter())));
        }
    }
    format!("CREATE TABLE {} (\n  {}\n)", beside.quoted(), lines.join(",\n  "))
}

fn beside(name: &TableName) -> TableName {
    let beside = format!("{}__barge_replace_{}", name.name(), std::process::id());
    match name.schema() {
        Some(schema) => TableName::in_schema(schema, beside),
        None => TableName::new(beside),
    }
}

fn renamed(table: &Table, name: &TableName) -> Result<Table> {
    Table::new(name.clone(), table.columns().to_vec())
}
