//! Rows that are read from a database, for export and copy: one statement, so that all of them are of one moment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use barge::arrow::array::{Array, AsArray};
use barge::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use barge::record::quote;
use barge::store::{DescribedColumn, Description, Query, RecordStream};
use barge::{Database, Dialect, Error, ErrorKind, Result, TableName};

use crate::args::Origin;
use crate::output::{shown, without_password};
use crate::table::{Named, described};
use crate::url::Url;
use crate::{Stop, output};

/// What is read, and from where.
pub(crate) struct Reading {
    pub(crate) database: Database,
    /// As messages call it: `table prices of sqlite:market.db`.
    pub(crate) name: String,
    pub(crate) rows: Rows,
}

/// Which rows.
pub(crate) enum Rows {
    Table(Arc<Description>),
    Query(String),
}

impl Reading {
    /// Opens the database, and finds the table.
    ///
    /// # Errors
    /// `MissingTable`, with what may have been meant; what opening says.
    pub(crate) async fn open(from: &Origin, written: Option<&Url>) -> Result<Self, Stop> {
        let database = Url::parse(&from.url)?.open_to_look_beside(written).await?;
        let url = shown(&without_password(&from.url));
        if let Some(query) = &from.query {
            let (name, rows) = (format!("the query on {url}"), Rows::Query(query.clone()));
            return Ok(Reading { database, name, rows });
        }
        // The command line has a table where it has no query.
        let table = Named { schema: from.schema.clone(), name: from.table.clone().unwrap_or_default() };
        let table = table.find(&database).await?;
        let description = described(&database, &table).await?;
        let name = format!("table {} of {url}", shown(&table.to_string()));
        Ok(Reading { database, name, rows: Rows::Table(description) })
    }

    pub(crate) fn description(&self) -> Option<&Arc<Description>> {
        match &self.rows {
            Rows::Table(description) => Some(description),
            Rows::Query(_) => None,
        }
    }

    /// Begins to read, all columns but some, and some in the types that are wanted.
    ///
    /// # Errors
    /// `Unsupported` where there are no columns, or two have one name; what the database says.
    pub(crate) async fn start(
        &self,
        but: impl Fn(&str) -> bool,
        wanted: Option<SchemaRef>,
    ) -> Result<RecordStream> {
        let sql = match &self.rows {
            Rows::Query(query) => query.clone(),
            Rows::Table(description) => {
                let dialect = self.database.store().dialect();
                let columns = description.columns.iter().filter(|column| !but(&column.name));
                let columns: Vec<String> = columns.map(|column| read(column, dialect)).collect();
                if columns.is_empty() {
                    return Err(no_columns().context(&self.name));
                }
                let from = sql_name(&self.database, &description.name).await?;
                format!("SELECT {} FROM {from}", columns.join(", "))
            }
        };
        let wanted = wanted.or_else(|| self.decimals());
        let stream = self.database.store().query(Query { schema: wanted, ..Query::new(sql) }).await;
        let stream = stream.map_err(|error| error.context(format!("reading {}", self.name)))?;
        check_columns(stream.schema()).map_err(|error| error.context(&self.name))?;
        Ok(stream)
    }

    /// The columns of a table of PostgreSQL's that are decimals: the rows of a query don't say with how many digits.
    fn decimals(&self) -> Option<SchemaRef> {
        let description =
            self.description().filter(|_| self.database.store().dialect() == Dialect::Postgres)?;
        let decimals =
            description.columns.iter().filter(|column| matches!(column.data_type, DataType::Decimal128(..)));
        let fields: Vec<Field> =
            decimals.map(|column| Field::new(&column.name, column.data_type.clone(), true)).collect();
        Some(Arc::new(Schema::new(fields)))
    }

    /// Ends the connections. All that was wanted was read by then.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.database.store().close().await {
            output::complain(&error.context("closing the database").to_string());
        }
    }
}

/// A column as it is selected. Types of PostgreSQL's and DuckDB's that have no Arrow type are read as text in the database's own spelling.
fn read(column: &DescribedColumn, dialect: Dialect) -> String {
    let name = quote(&column.name);
    let is_text = |data_type: &DataType| *data_type == DataType::Utf8;
    match &column.data_type {
        // Inside a STRUCT or MAP, too, only DuckDB's own spelling has all values.
        data_type if dialect == Dialect::DuckDb && is_text(data_type) && column.extension.is_none() => {
            match column.declared_type.as_str() {
                "VARCHAR" => name,
                _ => format!("CAST({name} AS VARCHAR) AS {name}"),
            }
        }
        _ if dialect != Dialect::Postgres || column.extension.is_some() => name,
        data_type if is_text(data_type) && column.declared_type != "text" => {
            format!("{name}::text AS {name}")
        }
        DataType::List(item) if is_text(item.data_type()) && item.metadata().is_empty() => {
            format!("{name}::text[] AS {name}")
        }
        _ => name,
    }
}

fn no_columns() -> Error {
    Error::new(ErrorKind::Unsupported, "there are no columns to read")
}

fn check_columns(schema: &Schema) -> Result<()> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if names.is_empty() {
        return Err(no_columns());
    }
    match names.iter().enumerate().find(|(index, name)| names[..*index].contains(*name)) {
        Some((_, name)) => {
            let message = format!("two columns are named {name}: give one another name, with AS");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        None => Ok(()),
    }
}

/// A table as SQL names it. A schema of DuckDB's may be called like its file, and is meant only where the file stands before it.
pub(crate) async fn sql_name(database: &Database, table: &TableName) -> Result<String> {
    if database.store().dialect() != Dialect::DuckDb || table.schema().is_none() {
        return Ok(table.quoted());
    }
    let catalog = first_text(database, "SELECT current_database()".into()).await?;
    Ok(format!("{}.{}", quote(&catalog.unwrap_or_default()), table.quoted()))
}

/// Whether two names stand for one table.
pub(crate) async fn is_same_table(
    left: (&Database, &TableName),
    right: (&Database, &TableName),
) -> Result<bool> {
    match (left.0.store().dialect(), right.0.store().dialect()) {
        (Dialect::Postgres, Dialect::Postgres) => {
            Ok(postgres_identity(left).await? == postgres_identity(right).await?)
        }
        (left_dialect, right_dialect) if left_dialect == right_dialect => {
            let (left_file, right_file) = (file_of(left.0, left.1).await?, file_of(right.0, right.1).await?);
            // A file of SQLite's has no schemas: there they are files.
            let schema = |table: &TableName| match left_dialect {
                Dialect::DuckDb => table.schema().unwrap_or("main").to_lowercase(),
                _ => String::new(),
            };
            let same_name =
                left.1.name().eq_ignore_ascii_case(right.1.name()) && schema(left.1) == schema(right.1);
            Ok(same_name
                && left_file.zip(right_file).is_some_and(|(left, right)| is_same_file(&left, &right)))
        }
        _ => Ok(false),
    }
}

/// What names a table among all of all servers. A standby has the identity of its primary.
async fn postgres_identity((database, table): (&Database, &TableName)) -> Result<Option<String>> {
    let text = table.quoted().replace('\'', "''");
    let sql = format!(
        "SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), current_database(), \
         to_regclass('{text}')::oid)"
    );
    first_text(database, sql).await
}

/// The file that a table of SQLite lives in; of other databases with files, the one that is open.
async fn file_of(database: &Database, table: &TableName) -> Result<Option<PathBuf>> {
    let sql = match database.store().dialect() {
        Dialect::Sqlite => {
            let schema = table.schema().unwrap_or("main").replace('\'', "''");
            format!("SELECT file FROM pragma_database_list WHERE name = '{schema}' COLLATE NOCASE")
        }
        Dialect::DuckDb => {
            "SELECT path FROM duckdb_databases() WHERE database_name = current_database()".into()
        }
        _ => return Ok(None),
    };
    let file = first_text(database, sql).await?;
    Ok(file.filter(|file| !file.is_empty()).map(PathBuf::from))
}

/// The file that a database is.
pub(crate) async fn main_file(database: &Database) -> Result<Option<PathBuf>> {
    file_of(database, &TableName::new("")).await
}

/// The text in the first column of the first row.
async fn first_text(database: &Database, sql: String) -> Result<Option<String>> {
    let batch = database.query(sql).await?.into_batch().await?;
    let text = batch.column(0).as_string_opt::<i32>().filter(|column| !column.is_empty());
    Ok(text.map(|column| column.value(0).to_owned()))
}

/// Whether two paths lead to one file.
pub(crate) fn is_same_file(left: &Path, right: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        if let (Some(left), Some(right)) = (identity(left), identity(right)) {
            return left == right;
        }
    }
    matches!((left.canonicalize(), right.canonicalize()), (Ok(left), Ok(right)) if left == right)
}
