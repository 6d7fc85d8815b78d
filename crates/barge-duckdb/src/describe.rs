//! Tables as DuckDB's catalog describes them.

use arrow::array::RecordBatch;
use barge_core::record::quote;
use barge_core::store::{
    Action, DescribedColumn, Description, ForeignKey, KeyEquality, Reference, TableKind, UniqueKey,
};
use barge_core::{Error, ErrorKind, Result, TableName};

use crate::claim::FLUSHES;
use crate::connection::Connection;
use crate::constraints::{each, of_table, optional_text, text, texts};
use crate::ddl::literal;
use crate::types::DuckType;

/// The schema that tables are in where nothing else is said.
const MAIN: &str = "main";

impl Connection {
    /// The tables and views that a user made, sorted by name; those of other schemas with their schema.
    pub(crate) fn tables(&mut self) -> Result<Vec<TableName>> {
        let sql = format!(
            "SELECT schema_name, name FROM (SELECT schema_name, table_name AS name, database_name, internal FROM duckdb_tables() \
             UNION ALL SELECT schema_name, view_name, database_name, internal FROM duckdb_views()) \
             WHERE NOT internal AND database_name = current_database() AND name <> {}",
            literal(FLUSHES)
        );
        let rows = self.read(&sql, None)?;
        let mut tables = each(&rows, |batch, row| table_name(&text(batch, 0, row), text(batch, 1, row)));
        tables.sort();
        Ok(tables)
    }

    /// A table or view as it is in the database: of one moment, though it takes several queries.
    pub(crate) fn describe(&mut self, name: &TableName) -> Result<Description> {
        if self.in_transaction() {
            return self.describe_now(name);
        }
        self.begin()?;
        let description = self.describe_now(name);
        self.roll_back();
        description
    }

    fn describe_now(&mut self, name: &TableName) -> Result<Description> {
        let (name, kind, sql) = self.find(name)?;
        let mut description = Description {
            kind,
            partitioned: false,
            columns: self.columns(&name, &sql)?,
            key: Vec::new(),
            unique: Vec::new(),
            foreign_keys: Vec::new(),
            referenced_by: self.references(&name)?,
            triggers: Vec::new(),
            reacts_to_inserts: false,
            name,
        };
        self.describe_constraints(&mut description)?;
        self.describe_indexes(&mut description)?;
        Ok(description)
    }

    /// The table's own name, what it is, and the statement that made it.
    fn find(&mut self, name: &TableName) -> Result<(TableName, TableKind, String)> {
        let sql = format!(
            "SELECT schema_name, table_name, sql, 'table' FROM duckdb_tables() WHERE {} \
             UNION ALL SELECT schema_name, view_name, sql, 'view' FROM duckdb_views() WHERE {}",
            of_table("table_name", name),
            of_table("view_name", name)
        );
        let rows = self.read(&sql, None)?;
        let found = each(&rows, |batch, row| {
            (text(batch, 0, row), text(batch, 1, row), text(batch, 2, row), text(batch, 3, row))
        });
        let Some((schema, table, sql, kind)) = found.into_iter().next() else {
            let message = "there is no such table or view";
            return Err(Error::new(ErrorKind::MissingTable, message).with_table(name.to_string()));
        };
        let found = match name.schema() {
            Some(_) => TableName::in_schema(schema, table),
            None => TableName::new(table),
        };
        let kind = if kind == "view" { TableKind::View } else { TableKind::Table };
        Ok((found, kind, sql))
    }

    fn columns(&mut self, name: &TableName, sql: &str) -> Result<Vec<DescribedColumn>> {
        let rows = self.read(
            &format!(
                "SELECT column_name, data_type, column_default, CASE WHEN is_nullable THEN 'yes' END FROM duckdb_columns() WHERE {} ORDER BY column_index",
                of_table("table_name", name)
            ),
            None,
        )?;
        Ok(each(&rows, |batch, row| {
            let nullable = optional_text(batch, 3, row).is_some();
            column(&text(batch, 0, row), &text(batch, 1, row), nullable, optional_text(batch, 2, row), sql)
        }))
    }

    fn describe_constraints(&mut self, description: &mut Description) -> Result<()> {
        let rows = self.read(
            &format!(
                "SELECT constraint_type, constraint_name, constraint_column_names, referenced_table, referenced_column_names \
                 FROM duckdb_constraints() WHERE {} ORDER BY constraint_index",
                of_table("table_name", &description.name)
            ),
            None,
        )?;
        for batch in &rows {
            for row in 0..batch.num_rows() {
                let (kind, name, columns) = (text(batch, 0, row), text(batch, 1, row), texts(batch, 2, row));
                match kind.as_str() {
                    "PRIMARY KEY" | "UNIQUE" => {
                        let unique = columns.iter().cloned().map(Some).collect();
                        description.unique.push(UniqueKey { name, columns: unique, partial: false });
                        if kind == "PRIMARY KEY" {
                            description.key = columns;
                        }
                    }
                    "FOREIGN KEY" => description.foreign_keys.push(ForeignKey {
                        name: Some(name),
                        columns,
                        parent: beside(&description.name, text(batch, 3, row)),
                        parent_columns: texts(batch, 4, row),
                        on_delete: Action::Refuse,
                        on_update: Action::Refuse,
                    }),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn describe_indexes(&mut self, description: &mut Description) -> Result<()> {
        let rows = self.read(
            &format!(
                "SELECT index_name, expressions FROM duckdb_indexes() WHERE is_unique AND NOT is_primary AND {}",
                of_table("table_name", &description.name)
            ),
            None,
        )?;
        for (name, expressions) in each(&rows, |batch, row| (text(batch, 0, row), text(batch, 1, row))) {
            let columns = index_columns(&expressions, &description.columns);
            description.unique.push(UniqueKey { name, columns, partial: false });
        }
        Ok(())
    }

    fn references(&mut self, name: &TableName) -> Result<Vec<Reference>> {
        let rows = self.read(
            &format!(
                "SELECT table_name, referenced_column_names FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY' AND {}",
                of_table("referenced_table", name)
            ),
            None,
        )?;
        Ok(each(&rows, |batch: &RecordBatch, row| Reference {
            child: beside(name, text(batch, 0, row)),
            columns: texts(batch, 1, row),
            on_delete: Action::Refuse,
            on_update: Action::Refuse,
        }))
    }
}

/// A table's name, with its schema where that isn't the usual one.
fn table_name(schema: &str, name: String) -> TableName {
    if schema == MAIN { TableName::new(name) } else { TableName::in_schema(schema, name) }
}

/// The name of another table in the same schema: DuckDB's foreign keys stay in theirs.
fn beside(table: &TableName, name: String) -> TableName {
    match table.schema() {
        Some(schema) => TableName::in_schema(schema, name),
        None => TableName::new(name),
    }
}

fn column(name: &str, declared: &str, nullable: bool, default: Option<String>, sql: &str) -> DescribedColumn {
    let own = DuckType::parse(declared);
    let mut column = DescribedColumn::new(name, declared, own.arrow_type());
    column.extension = own.extension();
    column.nullable = nullable;
    column.computed = definition(name, sql).any(|text| text.contains(" GENERATED ALWAYS AS"));
    column.collation = definition(name, sql).find_map(collation_of);
    column.identity = default.as_deref().is_some_and(|default| default.starts_with("nextval("));
    column.default = default.filter(|_| !column.computed);
    if own.is_loosely_equal() {
        column.equality = KeyEquality::Database;
    }
    if matches!(own.kind, crate::types::Kind::Enum(_)) {
        column.base_type = Some("enum".into());
    }
    column
}

/// Where the statement that made the table may define a column, from behind its name to the next comma: the catalog tells neither of computed columns
/// nor of collations.
fn definition<'a>(name: &str, sql: &'a str) -> impl Iterator<Item = &'a str> {
    let written = [format!("{name} "), format!("{} ", quote(name))];
    written.into_iter().flat_map(move |written| {
        let places: Vec<usize> = sql.match_indices(&written).map(|(place, _)| place).collect();
        let begins = places.into_iter().filter(|&place| sql[..place].ends_with(['(', ' ']));
        begins
            .map(move |place| sql[place + written.len()..].split(", ").next().unwrap_or_default())
            .collect::<Vec<_>>()
    })
}

/// The collation that a column's definition names: what follows its type.
fn collation_of(definition: &str) -> Option<String> {
    let rest = definition.strip_prefix("VARCHAR COLLATE ")?;
    let end = rest.find([' ', ')', ';']).unwrap_or(rest.len());
    Some(rest[..end].trim_matches('"').to_owned())
}

/// The columns of an index from DuckDB's list of its expressions, as in `[a, '"b c"']`; `None` for what is no column.
fn index_columns(expressions: &str, columns: &[DescribedColumn]) -> Vec<Option<String>> {
    let list = expressions.trim_start_matches('[').trim_end_matches(']');
    list.split(", ")
        .map(|expression| {
            let plain = expression.trim_matches('\'').trim_matches('"').replace("\"\"", "\"");
            let column = columns.iter().find(|column| column.name.eq_ignore_ascii_case(&plain));
            column.map(|column| column.name.clone())
        })
        .collect()
}
