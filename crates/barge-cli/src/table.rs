//! Which table a name of the command line means.

use std::sync::Arc;

use barge::store::Description;
use barge::{Database, Dialect, Error, Result, TableName};
use barge_files::suggestion;

use crate::is_missing_table;

/// A table's name as the command line gives it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl Named {
    /// The table that is meant. A name with a dot is that of a table where there is one; else the dot parts schema and
    /// table: on PostgreSQL always, on SQLite and DuckDB where there is such a table, for names with dots are nothing unusual there.
    pub(crate) async fn find(self, database: &Database) -> Result<TableName> {
        if let Some(schema) = self.schema {
            return Ok(TableName::in_schema(schema, self.name));
        }
        let whole = TableName::new(self.name.as_str());
        let parted =
            self.name.split_once('.').filter(|(schema, table)| !schema.is_empty() && !table.is_empty());
        let Some((schema, table)) = parted else { return Ok(whole) };
        match database.describe(&whole).await {
            Ok(_) => return Ok(whole),
            Err(error) if is_missing_table(&error) => {}
            Err(error) => return Err(error),
        }
        let parted = TableName::in_schema(schema, table);
        let is_meant =
            database.store().dialect() == Dialect::Postgres || database.describe(&parted).await.is_ok();
        Ok(if is_meant { parted } else { whole })
    }
}

/// Describes a table that has to be there.
///
/// # Errors
/// `MissingTable`, with the name that may have been meant.
pub(crate) async fn described(database: &Database, table: &TableName) -> Result<Arc<Description>> {
    match database.describe(table).await {
        Err(error) if is_missing_table(&error) => {
            let tables = database.tables().await.unwrap_or_default();
            let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
            let near = suggestion(&table.to_string(), names.iter().map(String::as_str));
            let message = format!("{}{near}", error.message());
            Err(Error::new(error.kind(), message).with_table(table.to_string()))
        }
        described => described,
    }
}
