//! Tables as SQLite's pragmas describe them.
//!
//! SQLite's types are hints, so the Arrow type of a column is the one in which what its affinity lets in reads back equal: a
//! NUMERIC column without precision is read as `Float64`, one with precision and scale as a decimal; dates and times
//! are text, whatever the column is declared as, since they may be written in many ways.

use arrow::datatypes::{DataType, TimeUnit};
use barge_core::store::{
    Action, DescribedColumn, Description, ForeignKey, KeyEquality, Reference, TableKind, UniqueKey,
};
use barge_core::{Error, ErrorKind, Result, TableName};
use rusqlite::{OptionalExtension, params};

use crate::affinity::Affinity;
use crate::claim::FLUSHES;
use crate::connection::Connection;
use crate::statement::{ColumnMetadata, column_metadata};

/// SQLite's own collation, under which equal keys have equal bytes.
const BINARY: &str = "BINARY";

impl Connection {
    /// The tables and views that a user made, sorted by name; those of attached databases with their schema.
    pub(crate) fn tables(&self) -> Result<Vec<TableName>> {
        let sql = "SELECT schema, name FROM pragma_table_list WHERE type <> 'shadow' AND schema <> 'temp'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> ?1 COLLATE NOCASE
             AND name NOT LIKE 'barge\\_batch\\_%' ESCAPE '\\'";
        let tables = self.collect(sql, params![FLUSHES], |row| {
            let (schema, name): (String, String) = (row.get(0)?, row.get(1)?);
            Ok(if schema == "main" { TableName::new(name) } else { TableName::in_schema(schema, name) })
        });
        let mut tables = tables?;
        tables.sort();
        Ok(tables)
    }

    /// A table or view as it is in the database: of one moment, though it takes a dozen queries.
    pub(crate) fn describe(&mut self, name: &TableName) -> Result<Description> {
        if self.in_transaction() {
            return self.describe_now(name);
        }
        self.run("BEGIN")?;
        let description = self.describe_now(name);
        self.roll_back();
        description
    }

    fn describe_now(&self, name: &TableName) -> Result<Description> {
        let found = self
            .inner
            .query_row(
                "SELECT schema, name, type, wr FROM pragma_table_list
                 WHERE name = ?1 COLLATE NOCASE AND schema = coalesce(?2, schema) COLLATE NOCASE
                 ORDER BY CASE schema WHEN 'temp' THEN 0 WHEN 'main' THEN 1 ELSE 2 END",
                params![name.name(), name.schema()],
                |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, String>(2)?,
                        row.get::<_, bool>(3)?,
                    ))
                },
            )
            .optional()
            .map_err(|error| self.rusqlite_error(error))?;
        let Some((schema, table, kind, without_rowid)) = found else {
            return Err(Error::new(ErrorKind::MissingTable, format!("{} has no such table", self.name))
                .with_table(name.to_string()));
        };
        let kind = match kind.as_str() {
            "view" => TableKind::View,
            "virtual" => TableKind::Foreign,
            _ => TableKind::Table,
        };
        let (mut columns, key) = self.columns(&schema, &table)?;
        let identity = match key.as_slice() {
            [only] if kind == TableKind::Table && !without_rowid => {
                self.is_rowid(&schema, &table, &columns, only)?
            }
            _ => false,
        };
        for column in &mut columns {
            column.identity = identity && key.contains(&column.name);
            // Such a column never holds NULL, nor does any key of a table without row ids.
            if column.identity || (without_rowid && key.contains(&column.name)) {
                column.nullable = false;
            }
        }
        let mut unique = self.unique_keys(&schema, &table, &columns)?;
        if identity {
            let columns = key.iter().cloned().map(Some).collect();
            unique.insert(0, UniqueKey { name: "PRIMARY KEY".into(), columns, partial: false });
        }
        // However a table is written, it has one name, so that its rows are seen to be of one table.
        let canonical = match schema.as_str() {
            "main" if name.schema().is_none() || !self.is_temporary(&table)? => {
                TableName::new(table.as_str())
            }
            _ => TableName::in_schema(schema.as_str(), table.as_str()),
        };
        let triggers = self.triggers(&schema, &table)?;
        Ok(Description {
            name: canonical,
            kind,
            partitioned: false,
            inherited: false,
            foreign_keys: self.foreign_keys(&schema, &table)?,
            referenced_by: self.references(&schema, &table, &key)?,
            reacts_to_inserts: !triggers.is_empty(),
            triggers,
            columns,
            key,
            unique,
        })
    }

    /// Whether there is a temporary table of this name, which hides others.
    fn is_temporary(&self, table: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM pragma_table_list WHERE name = ?1 COLLATE NOCASE AND schema = 'temp'";
        Ok(!self.collect(sql, params![table], |_| Ok(()))?.is_empty())
    }

    /// A name by which a table's row ids can be reached: one that no column has. `None` where it has no row ids.
    pub(crate) fn rowid_name(&self, description: &Description) -> Option<&'static str> {
        let name = &description.name;
        let sql = "SELECT 1 FROM pragma_table_list WHERE name = ?1 COLLATE NOCASE
                   AND schema = coalesce(?2, schema) COLLATE NOCASE AND type = 'table' AND wr = 0";
        self.inner.query_row(sql, params![name.name(), name.schema()], |_| Ok(())).ok()?;
        ["rowid", "_rowid_", "oid"].into_iter().find(|name| description.column(name).is_none())
    }

    fn columns(&self, schema: &str, table: &str) -> Result<(Vec<DescribedColumn>, Vec<String>)> {
        let sql = "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1, ?2)
                   WHERE hidden <> 1 ORDER BY cid";
        let columns = self.collect(sql, params![table, schema], |row| {
            let declared: String = row.get::<_, Option<String>>(1)?.unwrap_or_default();
            let mut column = DescribedColumn::new(row.get::<_, String>(0)?, &declared, read_as(&declared));
            column.nullable = !row.get::<_, bool>(2)?;
            column.default = row.get(3)?;
            column.computed = row.get::<_, i64>(5)? >= 2;
            Ok((column, row.get::<_, i64>(4)?))
        })?;
        let mut key: Vec<(i64, String)> = columns
            .iter()
            .filter(|(_, place)| *place > 0)
            .map(|(column, place)| (*place, column.name.clone()))
            .collect();
        key.sort();
        let columns = columns.into_iter().map(|(mut column, _)| {
            // SAFETY: the connection is open.
            let metadata = unsafe { column_metadata(self.raw(), schema, table, &column.name) };
            if let Some(ColumnMetadata { collation, .. }) = metadata
                && !collation.eq_ignore_ascii_case(BINARY)
            {
                column.equality = KeyEquality::Database;
                column.collation = Some(collation);
            }
            column
        });
        Ok((columns.collect(), key.into_iter().map(|(_, name)| name).collect()))
    }

    /// Whether a table's only key column is its row id: declared `INTEGER`, and not by an index of its own (`INTEGER PRIMARY KEY DESC`).
    fn is_rowid(&self, schema: &str, table: &str, columns: &[DescribedColumn], key: &str) -> Result<bool> {
        let integer = columns
            .iter()
            .any(|column| column.name == key && column.declared_type.eq_ignore_ascii_case("INTEGER"));
        let sql = "SELECT count(*) FROM pragma_index_list(?1, ?2) WHERE origin = 'pk'";
        let indexes = self.collect(sql, params![table, schema], |row| row.get::<_, i64>(0))?;
        Ok(integer && indexes == [0])
    }

    fn unique_keys(&self, schema: &str, table: &str, columns: &[DescribedColumn]) -> Result<Vec<UniqueKey>> {
        let sql = "SELECT name, partial FROM pragma_index_list(?1, ?2) WHERE \"unique\" ORDER BY origin <> 'pk', seq DESC";
        let indexes = self.collect(sql, params![table, schema], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
        })?;
        let mut unique = Vec::with_capacity(indexes.len());
        for (name, partial) in indexes {
            let sql = "SELECT name, coll FROM pragma_index_xinfo(?1, ?2) WHERE key ORDER BY seqno";
            let covered = self.collect(sql, params![name, schema], |row| {
                Ok((row.get::<_, Option<String>>(0)?, row.get::<_, String>(1)?))
            })?;
            // An index under another collation than its column's decides other keys equal, so it doesn't count as the column's.
            let covered = covered.into_iter().map(|(column, collation)| {
                column.filter(|name| {
                    let own = columns.iter().find(|column| &column.name == name);
                    let own = own.and_then(|column| column.collation.as_deref()).unwrap_or(BINARY);
                    own.eq_ignore_ascii_case(&collation)
                })
            });
            unique.push(UniqueKey { name, columns: covered.collect(), partial });
        }
        Ok(unique)
    }

    fn foreign_keys(&self, schema: &str, table: &str) -> Result<Vec<ForeignKey>> {
        let sql = "SELECT id, \"table\", \"from\", \"to\", on_delete, on_update
                   FROM pragma_foreign_key_list(?1, ?2) ORDER BY id, seq";
        let parts = self.collect(sql, params![table, schema], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, String>(2)?,
                row.get::<_, Option<String>>(3)?,
                row.get::<_, String>(4)?,
                row.get::<_, String>(5)?,
            ))
        })?;
        let mut keys: Vec<ForeignKey> = Vec::new();
        let mut last = None;
        for (id, parent, column, parent_column, on_delete, on_update) in parts {
            if last != Some(id) {
                last = Some(id);
                keys.push(ForeignKey {
                    name: None,
                    columns: Vec::new(),
                    parent: if schema == "main" {
                        TableName::new(parent)
                    } else {
                        TableName::in_schema(schema, parent)
                    },
                    parent_columns: Vec::new(),
                    on_delete: action(&on_delete),
                    on_update: action(&on_update),
                });
            }
            if let Some(key) = keys.last_mut() {
                key.columns.push(column);
                key.parent_columns.extend(parent_column);
            }
        }
        for key in &mut keys {
            if key.parent_columns.is_empty() {
                key.parent_columns = self.columns(schema, key.parent.name())?.1;
            }
        }
        Ok(keys)
    }

    fn references(&self, schema: &str, table: &str, key: &[String]) -> Result<Vec<Reference>> {
        let sql = "SELECT t.name, f.id, f.\"to\", f.on_delete, f.on_update
                   FROM pragma_table_list AS t, pragma_foreign_key_list(t.name, t.schema) AS f
                   WHERE t.schema = ?2 AND t.type = 'table' AND f.\"table\" = ?1 COLLATE NOCASE
                   ORDER BY t.name, f.id, f.seq";
        let parts = self.collect(sql, params![table, schema], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, i64>(1)?,
                row.get::<_, Option<String>>(2)?,
                row.get::<_, String>(3)?,
                row.get::<_, String>(4)?,
            ))
        })?;
        let mut references: Vec<Reference> = Vec::new();
        let mut last = None;
        for (child, id, column, on_delete, on_update) in parts {
            if last.as_ref() != Some(&(child.clone(), id)) {
                last = Some((child.clone(), id));
                references.push(Reference {
                    child: if schema == "main" {
                        TableName::new(child)
                    } else {
                        TableName::in_schema(schema, child)
                    },
                    columns: Vec::new(),
                    on_delete: action(&on_delete),
                    on_update: action(&on_update),
                });
            }
            if let Some(reference) = references.last_mut() {
                match column {
                    Some(column) => reference.columns.push(column),
                    None => reference.columns = key.to_vec(),
                }
            }
        }
        Ok(references)
    }

    fn triggers(&self, schema: &str, table: &str) -> Result<Vec<String>> {
        let schemas = if schema == "temp" { vec![schema] } else { vec![schema, "temp"] };
        let mut triggers = Vec::new();
        for schema in schemas {
            let master = format!("{}.sqlite_master", barge_core::record::quote(schema));
            let sql = format!(
                "SELECT name FROM {master} WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY name"
            );
            triggers.extend(self.collect(&sql, params![table], |row| row.get::<_, String>(0))?);
        }
        Ok(triggers)
    }

    fn collect<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let rows = || -> rusqlite::Result<Vec<T>> {
            let mut statement = self.inner.prepare_cached(sql)?;
            statement.query_map(params, read)?.collect()
        };
        rows().map_err(|error| self.rusqlite_error(error))
    }
}

/// The text that created a table.
pub(crate) fn creation_sql(connection: &rusqlite::Connection, table: &TableName) -> Option<String> {
    let schema = barge_core::record::quote(table.schema().unwrap_or("main"));
    let sql =
        format!("SELECT sql FROM {schema}.sqlite_master WHERE name = ?1 COLLATE NOCASE AND type = 'table'");
    connection.query_row(&sql, params![table.name()], |row| row.get(0)).ok()
}

fn action(text: &str) -> Action {
    match text {
        "CASCADE" => Action::Cascade,
        "SET NULL" | "SET DEFAULT" => Action::Set,
        _ => Action::Refuse,
    }
}

/// The Arrow type in which a column of a declared type is best read.
pub(crate) fn read_as(declared: &str) -> DataType {
    let upper = declared.to_ascii_uppercase();
    match upper.split('(').next().unwrap_or_default().trim_end() {
        "DATE_TEXT" => return DataType::Date32,
        "TIME_TEXT" => return DataType::Time64(TimeUnit::Microsecond),
        "TIMESTAMP_TEXT" => return DataType::Timestamp(TimeUnit::Microsecond, None),
        "TIMESTAMPTZ_TEXT" => return DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        "DECIMAL_TEXT" => {
            return precision_and_scale(&upper)
                .map_or(DataType::Utf8, |(precision, scale)| DataType::Decimal128(precision, scale));
        }
        _ => {}
    }
    match Affinity::of(declared) {
        _ if upper.starts_with("BOOL") => DataType::Boolean,
        Affinity::Integer => DataType::Int64,
        Affinity::Real => DataType::Float64,
        Affinity::Blob if !upper.is_empty() => DataType::Binary,
        Affinity::Text | Affinity::Blob => DataType::Utf8,
        Affinity::Numeric if upper.starts_with("NUMERIC") || upper.starts_with("DEC") => {
            match precision_and_scale(&upper) {
                Some((precision, scale)) => DataType::Decimal128(precision, scale),
                None => DataType::Float64,
            }
        }
        Affinity::Numeric => DataType::Utf8,
    }
}

/// The numbers in `DECIMAL(20, 4)`.
fn precision_and_scale(declared: &str) -> Option<(u8, i8)> {
    let (_, rest) = declared.split_once('(')?;
    let (numbers, _) = rest.split_once(')')?;
    let (precision, scale) = numbers.split_once(',').unwrap_or((numbers, "0"));
    let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    ((1..=38).contains(&precision) && scale >= 0 && scale as u8 <= precision).then_some((precision, scale))
}
