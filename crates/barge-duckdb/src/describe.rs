//! Tables as DuckDB's catalog describes them.

use arrow::array::RecordBatch;
use barge_core::store::{
    Action, DescribedColumn, Description, ForeignKey, KeyEquality, Reference, TableKind, UniqueKey,
};
use barge_core::{Error, ErrorKind, Result, TableName};

use crate::claim::FLUSHES;
use crate::connection::Connection;
use crate::constraints::{each, optional_text, text, texts};
use crate::sql::{MAIN, after_words, definitions, literal, unquoted};
use crate::types::DuckType;

impl Connection {
    /// The tables and views that a user made, sorted by name; those of other schemas with their schema.
    pub(crate) fn tables(&mut self) -> Result<Vec<TableName>> {
        let sql = format!(
            "SELECT schema_name, name FROM (SELECT schema_name, table_name AS name, database_name, internal FROM duckdb_tables() \
             UNION ALL SELECT schema_name, view_name, database_name, internal FROM duckdb_views()) \
             WHERE NOT internal AND database_name = {} AND name <> {}",
            literal(&self.catalog),
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
            inherited: false,
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
        let schema = name.schema().map_or_else(|| "current_schema()".to_owned(), literal);
        let sql = format!(
            "SELECT schema_name, table_name, sql, 'table' FROM duckdb_tables() WHERE {} \
             UNION ALL SELECT schema_name, view_name, sql, 'view' FROM duckdb_views() WHERE {}",
            self.of_table_in("table_name", &schema, name),
            self.of_table_in("view_name", &schema, name)
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
            // After USE it may be another than the usual one.
            None => table_name(&schema, table),
        };
        let kind = if kind == "view" { TableKind::View } else { TableKind::Table };
        Ok((found, kind, sql))
    }

    fn columns(&mut self, name: &TableName, sql: &str) -> Result<Vec<DescribedColumn>> {
        let rows = self.read(
            &format!(
                "SELECT column_name, data_type, column_default, CASE WHEN is_nullable THEN 'yes' END FROM duckdb_columns() WHERE {} ORDER BY column_index",
                self.of_table("table_name", name)
            ),
            None,
        )?;
        let definitions = definitions(sql);
        Ok(each(&rows, |batch, row| {
            let nullable = optional_text(batch, 3, row).is_some();
            let default = optional_text(batch, 2, row);
            column(&text(batch, 0, row), &text(batch, 1, row), nullable, default, &definitions)
        }))
    }

    fn describe_constraints(&mut self, description: &mut Description) -> Result<()> {
        let rows = self.read(
            &format!(
                "SELECT constraint_type, constraint_name, constraint_column_names, referenced_table, referenced_column_names \
                 FROM duckdb_constraints() WHERE {} ORDER BY constraint_index",
                self.of_table("table_name", &description.name)
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
        let indexes = self.indexes(&description.name)?;
        for index in indexes.into_iter().filter(|index| index.unique) {
            let columns = index_columns(&index.expressions, &description.columns);
            description.unique.push(UniqueKey { name: index.name, columns, partial: false });
        }
        Ok(())
    }

    fn references(&mut self, name: &TableName) -> Result<Vec<Reference>> {
        let rows = self.read(
            &format!(
                "SELECT table_name, referenced_column_names FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY' AND {}",
                self.of_table("referenced_table", name)
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

fn column(
    name: &str,
    declared: &str,
    nullable: bool,
    default: Option<String>,
    definitions: &[(String, &str)],
) -> DescribedColumn {
    let own = DuckType::parse(declared);
    // The catalog tells neither of computed columns nor of collations: only the statement that made the table does.
    let definition = definitions.iter().find(|(column, _)| column.eq_ignore_ascii_case(name));
    let definition = definition.map_or("", |(_, definition)| definition);
    let mut column = DescribedColumn::new(name, declared, own.arrow_type());
    column.extension = own.extension();
    column.nullable = nullable;
    column.computed = after_words(definition, &["GENERATED", "ALWAYS", "AS"]).is_some();
    column.collation = after_words(definition, &["COLLATE"]).map(collation);
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

/// The collation at the beginning of what follows its word.
fn collation(text: &str) -> String {
    let end =
        text.find(|letter: char| letter.is_whitespace() || ",;)".contains(letter)).unwrap_or(text.len());
    text[..end].trim_matches('"').to_owned()
}

/// The columns of an index; `None` for expressions that are no column.
fn index_columns(expressions: &[String], columns: &[DescribedColumn]) -> Vec<Option<String>> {
    let column = |expression: &String| {
        let name = unquoted(expression);
        let column = columns.iter().find(|column| column.name.eq_ignore_ascii_case(&name));
        column.map(|column| column.name.clone())
    };
    expressions.iter().map(column).collect()
}
