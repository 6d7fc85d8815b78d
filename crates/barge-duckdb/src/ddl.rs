//! The statements that create a table.

use barge_core::record::{Role, quote};
use barge_core::{Error, ErrorKind, Result, Table, TableName};

use crate::sql::{literal, qualified};
use crate::types::DuckType;

/// `CREATE TABLE IF NOT EXISTS …` for a record type, and before it the sequence of a key that the database draws.
pub(crate) fn create_table_sql(table: &Table, catalog: &str) -> Result<String> {
    let mut sequence = String::new();
    let mut lines = Vec::with_capacity(table.columns().len() + 1);
    for column in table.columns() {
        let fail = |error: Error| error.with_table(table.name().to_string()).with_column(column.name());
        let own = DuckType::for_field(&column.field).map_err(fail)?;
        let mut line = format!("{} {}", quote(column.name()), own.sql);
        if column.role == Role::GeneratedKey {
            if !column.field.data_type().is_integer() {
                let message = "DuckDB draws keys for columns of integers only";
                return Err(fail(Error::new(ErrorKind::Unsupported, message)));
            }
            let name = sequence_name(table.name(), column.name(), catalog);
            sequence = format!("CREATE SEQUENCE IF NOT EXISTS {name};\n");
            line.push_str(&format!(" DEFAULT nextval({})", literal(&name)));
        }
        if column.is_key() || !column.field.is_nullable() {
            line.push_str(" NOT NULL");
        }
        lines.push(line);
    }
    let key: Vec<String> = table.key().iter().map(|&index| quote(table.columns()[index].name())).collect();
    if !key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    let name = sql_name(table.name(), catalog);
    Ok(format!("{sequence}CREATE TABLE IF NOT EXISTS {name} (\n  {}\n)", lines.join(",\n  ")))
}

fn sequence_name(table: &TableName, column: &str, catalog: &str) -> String {
    let name = format!("{}_{column}_seq", table.name());
    let name = match table.schema() {
        Some(schema) => TableName::in_schema(schema, name),
        None => TableName::new(name),
    };
    sql_name(&name, catalog)
}

/// A name as people write it, but for a schema that is called like its database and is meant only where that stands before it.
fn sql_name(name: &TableName, catalog: &str) -> String {
    match name.schema() {
        Some(schema) if schema.eq_ignore_ascii_case(catalog) => qualified(catalog, name),
        _ => name.quoted(),
    }
}
