//! Which table a name of the command line means.

use barge::{Database, Dialect, Result, TableName};

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
