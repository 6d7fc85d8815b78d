//! `--mode replace`: all rows of a table for new ones, at the end and at once.
//!
//! The new rows gather in a table beside the old one, batch by batch, each row checked. One transaction at the end puts them in
//! the old rows' place, so that a load which fails, is interrupted or rejects too much leaves the table as it was. The
//! table itself stays, with its indexes, triggers, foreign keys, views and grants; where there was none, the gathered one takes its name.
//!
//! On PostgreSQL, who reads meanwhile sees the old rows until the end, and who writes waits while the rows change places. They are
//! deleted and inserted, and the table isn't emptied by TRUNCATE, which would make readers wait and show an empty table to those who
//! began before. One statement does both, so that rows of other tables may refer to rows that go and come back. The table beside is
//! a logged one: after a crash of the server an unlogged one would be empty, and the load would go on with the rows that follow.

use std::sync::Arc;
use std::time::SystemTime;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use barge::record::quote;
use barge::store::{Action, Description, ForeignKey, TableKind};
use barge::{Database, Dialect, Error, ErrorKind, Result, Table, TableName, Tx};

use super::plan::Route;
use crate::is_missing_table;
use crate::query::sql_name;

/// The rows gathered for a table.
pub(crate) struct Replacement {
    name: TableName,
    /// Where they gather.
    beside: TableName,
    /// The two as SQL names them.
    name_sql: String,
    beside_sql: String,
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
        let (name_sql, beside_sql) = (sql_name(database, name).await?, sql_name(database, &beside).await?);
        let existed = description.is_some();
        let description = match description {
            Some(description) => {
                check_replaceable(&description, database.store().dialect())?;
                let copy = Copy { beside: &beside_sql, description: &description, table, key };
                match database.store().dialect() {
                    Dialect::Postgres => copy.make_like(database).await?,
                    _ => copy.make_anew(database).await?,
                }
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
        Ok(Replacement { name: name.clone(), beside, name_sql, beside_sql, existed, description, columns })
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
        let made = (!self.existed).then_some(self.columns.len());
        let Err(error) = self.try_swap(database).await else { return Ok(made) };
        let error = error.context("the new rows can't take the old ones' place, and the table is as it was");
        match self.discard(database).await {
            // The connection was lost on COMMIT, and yet all was done.
            Err(gone) if is_missing_table(&gone) => Ok(made),
            Err(also) => Err(error.context(also)),
            Ok(()) => Err(error),
        }
    }

    async fn try_swap(&self, database: &Database) -> Result<()> {
        let statements = &self.swap_sql(database.store().dialect());
        let swapped = database.retry(|mut tx| async move {
            // The last one drops the table beside, or gives it its name.
            for (place, statement) in statements.iter().enumerate() {
                if self.existed && place + 1 == statements.len() {
                    self.check_swapped(&mut tx).await?;
                }
                tx.execute(statement.as_str()).await?;
            }
            tx.writes(self.name.clone());
            Ok((tx, ()))
        });
        swapped.await?;
        if let (false, Dialect::Postgres) = (self.existed, database.store().dialect()) {
            // The key's index is still named after the table beside. What it is called makes no difference to the rows.
            if let Some(sql) = self.rename_key_sql() {
                let _ = database.execute(sql).await;
            }
        }
        Ok(())
    }

    /// Sees to it that the table holds the new rows and no others: triggers and rules may keep new rows out, and old ones in.
    async fn check_swapped(&self, tx: &mut Tx) -> Result<()> {
        // A batch, because there is no other statement in a transaction that gives rows.
        let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let one = RecordBatch::try_from_iter([("one", one)])?;
        let count = |table: &str| format!("CAST((SELECT count(*) FROM {table}) AS bigint)");
        let sql =
            format!("SELECT {}, {} FROM {{batch}} AS b", count(&self.name_sql), count(&self.beside_sql));
        let counted = tx.over(&one, sql.as_str()).await?;
        let number = |index: usize| {
            let numbers = arrow::compute::cast(counted.column(index), &DataType::Int64)?;
            Ok::<_, Error>(numbers.as_primitive::<Int64Type>().value(0))
        };
        let (there, loaded) = (number(0)?, number(1)?);
        if there == loaded {
            return Ok(());
        }
        let message = format!(
            "the table would hold {there} rows where {loaded} were loaded: a trigger or rule keeps new rows out, or old ones in; use --mode \
             upsert or append, which tell what became of each row"
        );
        Err(Error::new(ErrorKind::Unsupported, message).with_table(self.name.to_string()))
    }

    fn swap_sql(&self, dialect: Dialect) -> Vec<String> {
        let (name, beside) = (&self.name_sql, &self.beside_sql);
        if !self.existed {
            return vec![format!("ALTER TABLE {beside} RENAME TO {}", quote(self.name.name()))];
        }
        let columns: Vec<String> = self.columns.iter().map(|column| quote(column)).collect();
        let columns = columns.join(", ");
        let drop = format!("DROP TABLE {beside}");
        match dialect {
            Dialect::Postgres => vec![
                format!("LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE"),
                // The condition is there to have all old rows gone before the first new one comes.
                format!(
                    "WITH gone AS (DELETE FROM {name} RETURNING 1) \
                     INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE \
                     SELECT {columns} FROM {beside} WHERE (SELECT count(*) FROM gone) >= 0"
                ),
                drop,
            ],
            Dialect::DuckDb => vec![
                format!("DELETE FROM {name}"),
                format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM {beside}"),
                drop,
            ],
            _ => vec![
                // Rows that others refer to may go and come back before the end.
                "PRAGMA defer_foreign_keys = ON".to_owned(),
                format!("DELETE FROM {name}"),
                format!("INSERT OR ABORT INTO {name} ({columns}) SELECT {columns} FROM {beside}"),
                drop,
            ],
        }
    }

    /// `…_pkey` is what PostgreSQL calls the key of a table.
    fn rename_key_sql(&self) -> Option<String> {
        let made = self.description.unique.first()?;
        let name = format!("{}_pkey", self.name.name());
        (name.len() <= NAME_MAX).then(|| {
            format!(
                "ALTER TABLE {} RENAME CONSTRAINT {} TO {}",
                self.name_sql,
                quote(&made.name),
                quote(&name)
            )
        })
    }

    /// Throws the gathered rows away.
    ///
    /// # Errors
    /// `MissingTable` where they are gone already; else what the database reports.
    pub(crate) async fn discard(&self, database: &Database) -> Result<()> {
        let dropped = database.execute(format!("DROP TABLE {}", self.beside_sql)).await;
        let left = || format!("the table {} is left over and can be dropped", self.beside);
        dropped.map(drop).map_err(|error| error.context(left()))
    }
}

/// Emptying the table must not take rows of others with it.
fn check_replaceable(description: &Description, dialect: Dialect) -> Result<()> {
    let refuse = |message: String| {
        Err(Error::new(ErrorKind::Unsupported, message).with_table(description.name.to_string()))
    };
    if description.kind != TableKind::Table {
        return refuse("only the rows of a table can be replaced, and this is none".into());
    }
    if description.inherited {
        return refuse(
            "other tables inherit from it, and replacing its rows would delete theirs; use --mode upsert, or empty them yourself".into(),
        );
    }
    if let (Dialect::DuckDb, Some(reference)) = (dialect, description.referenced_by.first()) {
        return refuse(format!(
            "DuckDB can't take away rows that those of {} name and put them back in one transaction; use --mode upsert, or empty both \
             tables yourself",
            reference.child
        ));
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

/// A table beside another: the columns that the file has, with the keys that rows must keep.
struct Copy<'a> {
    /// As SQL names it.
    beside: &'a str,
    description: &'a Description,
    table: &'a Table,
    key: &'a [String],
}

impl Copy<'_> {
    fn has(&self, name: &str) -> bool {
        self.table.columns().iter().any(|column| column.name().eq_ignore_ascii_case(name))
    }

    /// Makes the table from its description.
    async fn make_anew(&self, database: &Database) -> Result<()> {
        let mut lines = Vec::new();
        for column in self.description.columns.iter().filter(|column| self.has(&column.name)) {
            let mut line = format!("{} {}", quote(&column.name), column.declared_type);
            if let Some(collation) = &column.collation {
                line.push_str(&format!(" COLLATE {}", quote(collation)));
            }
            if !column.nullable && !column.identity {
                line.push_str(" NOT NULL");
            }
            lines.push(line);
        }
        lines.extend(self.keys());
        database.execute(format!("CREATE TABLE {} (\n  {}\n)", self.beside, lines.join(",\n  "))).await?;
        Ok(())
    }

    /// Makes the table by PostgreSQL's LIKE, which keeps types, collations, NOT NULL and CHECK. Of the foreign keys, those to other
    /// tables are checked with each row, too; those to the table itself can only be checked when all rows are there.
    async fn make_like(&self, database: &Database) -> Result<()> {
        let (beside, like) = (self.beside, self.description.name.quoted());
        let left_out = self.description.columns.iter().filter(|column| !self.has(&column.name));
        let drops = left_out.map(|column| format!("DROP COLUMN {} CASCADE", quote(&column.name)));
        let changes: Vec<String> = drops.chain(self.keys().map(|key| format!("ADD {key}"))).collect();
        let mut statements = vec![format!("CREATE TABLE {beside} (LIKE {like} INCLUDING CONSTRAINTS)")];
        if !changes.is_empty() {
            statements.push(format!("ALTER TABLE {beside} {}", changes.join(", ")));
        }
        let statements = &statements;
        let made = database.retry(|mut tx| async move {
            for statement in statements {
                tx.execute(statement.as_str()).await?;
            }
            Ok((tx, ()))
        });
        made.await?;
        for key in self.description.foreign_keys.iter().filter(|key| self.is_checked(key)) {
            let add = format!(
                "ALTER TABLE {beside} ADD FOREIGN KEY ({}) REFERENCES {} ({})",
                list(&key.columns),
                key.parent.quoted(),
                list(&key.parent_columns)
            );
            match database.execute(add).await {
                // Who may not refer to the parent learns of rows without one at the end.
                Err(error) if error.kind() != ErrorKind::Permission => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn is_checked(&self, key: &ForeignKey) -> bool {
        key.parent != self.description.name && key.columns.iter().all(|column| self.has(column))
    }

    /// The primary key, and the unique keys of all rows.
    fn keys(&self) -> impl Iterator<Item = String> {
        let key = (!self.key.is_empty()).then(|| format!("PRIMARY KEY ({})", list(self.key)));
        let unique = self.description.unique.iter().filter(|unique| !unique.partial).filter_map(|unique| {
            let columns: Vec<String> = unique.columns.iter().cloned().collect::<Option<_>>()?;
            let is_key =
                columns.len() == self.key.len() && self.key.iter().all(|column| unique.covers(column));
            let wanted = !is_key && columns.iter().all(|column| self.has(column));
            wanted.then(|| format!("UNIQUE ({})", list(&columns)))
        });
        key.into_iter().chain(unique)
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// The longest name, in bytes, that every store keeps whole.
const NAME_MAX: usize = 63;

/// The name of a table beside another, which no other load takes, on this machine or another.
fn beside(name: &TableName) -> TableName {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let own = format!("__barge_replace_{:x}_{:x}", std::process::id(), now.as_nanos() as u64);
    let kept = &name.name()[..name.name().floor_char_boundary(NAME_MAX.saturating_sub(own.len()))];
    match name.schema() {
        Some(schema) => TableName::in_schema(schema, format!("{kept}{own}")),
        None => TableName::new(format!("{kept}{own}")),
    }
}

fn renamed(table: &Table, name: &TableName) -> Result<Table> {
    Table::new(name.clone(), table.columns().to_vec())
}
