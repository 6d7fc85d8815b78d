//! Which table rows go to, by which operation and key: decided once a file, before its rows are written.

use std::collections::HashMap;
use std::sync::Arc;

use barge::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use barge::store::{Description, Target};
use barge::{Database, Dialect, Error, ErrorKind, Operation, Result, Table, TableName};
use barge_files::{DeadLetter, ReadOptions, Source, suggestion};

use super::reader::holds_letters;
use super::replace::Replacement;
use crate::args::Mode;
use crate::{Stop, is_missing_table};

/// Where rows go.
#[derive(Clone)]
pub(crate) struct Route {
    /// The table as the rows have it.
    pub(crate) table: Arc<Table>,
    pub(crate) operation: Operation,
    /// The table's name as the user knows it.
    pub(crate) name: TableName,
}

/// Finds routes, and makes tables.
pub(crate) struct Planner {
    database: Database,
    /// The table of the command line.
    table: Option<TableName>,
    mode: Option<Mode>,
    key: Vec<String>,
    /// The key of a new table where the command line has none: that of the table that is copied.
    key_of_new: Vec<String>,
    /// The tables met, as they are in the database; `None` for one that isn't there.
    known: HashMap<TableName, Option<Arc<Description>>>,
    letter_routes: Vec<(DeadLetter, SchemaRef, Route)>,
    replacement: Option<Replacement>,
    /// The columns of the table that this load made.
    created: Option<usize>,
    /// The first of several files and its columns, where it settles those of all.
    first: Option<(String, SchemaRef)>,
}

impl Planner {
    /// Looks the table up.
    ///
    /// # Errors
    /// `InvalidConfig` where `create` finds the table, `MissingTable` where `update` does not.
    pub(crate) async fn new(
        database: Database,
        table: Option<TableName>,
        mode: Option<Mode>,
        key: Vec<String>,
    ) -> Result<Self> {
        let mut planner = Planner {
            database,
            table: table.clone(),
            mode,
            key,
            key_of_new: Vec::new(),
            known: HashMap::new(),
            letter_routes: Vec::new(),
            replacement: None,
            created: None,
            first: None,
        };
        let Some(table) = table else { return Ok(planner) };
        match (planner.describe(&table).await?, mode) {
            (Some(_), Some(Mode::Create)) => {
                let message = "the table exists already, and --mode create makes a new one: \
                               use append, upsert, update or replace";
                Err(Error::new(ErrorKind::InvalidConfig, message).with_table(table.to_string()))
            }
            (None, Some(Mode::Update)) => Err(planner.missing_table(&table).await),
            _ => Ok(planner),
        }
    }

    /// The same, with a primary key for a table that is made and for which the command line has none.
    pub(crate) fn with_key_of_new(mut self, key: Vec<String>) -> Self {
        self.key_of_new = key;
        self
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The table of the command line as it is in the database, if it is there.
    pub(crate) fn description(&self) -> Option<&Arc<Description>> {
        self.known.get(self.table.as_ref()?)?.as_ref()
    }

    /// The columns of the table of the command line that are lists. A source that has no lists holds them in a form of its own,
    /// and has to be told.
    pub(crate) fn lists(&self) -> Option<SchemaRef> {
        let columns = schema_of(self.description()?);
        let is_list =
            |data_type: &DataType| matches!(data_type, DataType::List(_) | DataType::FixedSizeList(..));
        let lists = columns.fields().iter().filter(|field| is_list(field.data_type())).cloned();
        Some(Arc::new(Schema::new(lists.collect::<Vec<_>>())))
    }

    /// The table's name, where the command line has one.
    pub(crate) fn table(&self) -> Option<&TableName> {
        self.table.as_ref()
    }

    /// How many columns the table has that this load made.
    pub(crate) fn created(&self) -> Option<usize> {
        self.created
    }

    /// Whether rows wait beside the table until the end.
    pub(crate) fn is_replacing(&self) -> bool {
        self.mode == Some(Mode::Replace)
    }

    /// Adds the types of the tables that are there.
    pub(crate) fn read_options(&self, mut options: ReadOptions) -> ReadOptions {
        options.schema = self.description().map(|description| schema_of(description));
        let (database, given) = (self.database.clone(), self.table.clone());
        let runtime = tokio::runtime::Handle::current();
        // Called on the reader's thread, and on this one where all files are looked at first: both may wait.
        options.tables = Some(Arc::new(move |letter: &DeadLetter| {
            let table = given.clone().unwrap_or_else(|| table_of(letter));
            let describe = database.describe(&table);
            let description = tokio::task::block_in_place(|| runtime.block_on(describe));
            description.ok().map(|description| schema_of(&description))
        }));
        options
    }

    /// Looks at an open file before any row is written.
    pub(crate) fn check(&mut self, source: &Source) -> Result<(), Stop> {
        if holds_letters(source) {
            return Ok(());
        }
        let Some(table) = self.table.clone() else { return Err(needs_table(source.name())) };
        let description = self.known.get(&table).cloned().flatten();
        let (name, schema) = (source.name(), source.schema());
        if description.is_none() {
            self.check_spellings(name, source.header_line(), schema)?;
        }
        self.route_to(name, &table, schema, self.operation(None)?, description.as_ref())?;
        if description.is_none() || self.is_replacing() {
            self.check_follows(name, schema)?;
        }
        Ok(())
    }

    /// The first file settles the columns of a new table, and those that a replacement sets: later files must not bring others.
    fn check_follows(&mut self, file: &str, schema: &SchemaRef) -> Result<()> {
        let (first, columns) = self.first.get_or_insert_with(|| (file.to_owned(), schema.clone()));
        let names = || columns.fields().iter().map(|field| field.name().as_str());
        let is_new = |name: &&str| !names().any(|other| other.eq_ignore_ascii_case(name));
        let Some(name) = schema.fields().iter().map(|field| field.name().as_str()).find(is_new) else {
            return Ok(());
        };
        let message = format!(
            "{file} has a column {name}, which the first file, {first}, lacks{}: load it by itself, or put it first; \
             nothing was written",
            suggestion(name, names())
        );
        Err(Error::new(ErrorKind::MissingColumn, message))
    }

    /// The route for the rows of a file. Makes the table where it is missing and the mode allows it.
    pub(crate) async fn route(
        &mut self,
        file: &str,
        header_line: Option<u64>,
        schema: &SchemaRef,
    ) -> Result<Route, Stop> {
        let Some(name) = self.table.clone() else { return Err(needs_table(file)) };
        let operation = self.operation(None)?;
        if let Some(replacement) = &self.replacement {
            let route = self.route_to(file, &name, schema, operation, Some(&replacement.description))?;
            return Ok(replacement.redirect(route)?);
        }
        let description = self.describe(&name).await?;
        if description.is_none() {
            self.check_spellings(file, header_line, schema)?;
        }
        let route = self.route_to(file, &name, schema, operation, description.as_ref())?;
        if self.is_replacing() {
            // A key that the database draws need not be in the file.
            let found = self.key_of(file, schema, description.as_ref());
            let key = if self.key.is_empty() { found.unwrap_or_default() } else { found? };
            let replacement =
                Replacement::prepare(&self.database, &name, description, &route.table, &key).await?;
            let redirected = replacement.redirect(route)?;
            self.replacement = Some(replacement);
            return Ok(redirected);
        }
        if description.is_none() {
            let created = self.database.create(&route.table).await;
            self.known.remove(&name);
            let description = match (created, self.describe(&name).await?) {
                (Ok(()), Some(description)) => {
                    self.created = Some(route.table.columns().len());
                    description
                }
                // Another load made it at the same moment.
                (Err(_), Some(description)) if self.mode != Some(Mode::Create) => description,
                (Err(error), _) => return Err(error.into()),
                (Ok(()), None) => return Err(self.missing_table(&name).await.context(file).into()),
            };
            self.known.insert(name.clone(), Some(Arc::clone(&description)));
            return self.route_to(file, &name, schema, operation, Some(&description));
        }
        Ok(route)
    }

    /// The route for dead letters.
    pub(crate) async fn letter_route(
        &mut self,
        file: &str,
        letter: &DeadLetter,
        schema: &SchemaRef,
    ) -> Result<Route, Stop> {
        let found =
            self.letter_routes.iter().find(|(other, columns, _)| other == letter && columns == schema);
        if let Some((_, _, route)) = found {
            return Ok(route.clone());
        }
        if matches!(self.mode, Some(Mode::Create | Mode::Replace)) {
            let message = format!("{file} holds dead letters: --mode create and replace are not for them");
            return Err(Stop::Usage(message));
        }
        let name = self.table.clone().unwrap_or_else(|| table_of(letter));
        let Some(description) = self.describe(&name).await? else {
            return Err(self.missing_table(&name).await.context(file).into());
        };
        let operation = self.operation(Some(letter)).map_err(|error| error.context(file))?;
        let route = self.route_to(file, &name, schema, operation, Some(&description))?;
        self.letter_routes.push((letter.clone(), schema.clone(), route.clone()));
        Ok(route)
    }

    /// Ends a load: where rows were gathered beside the table, puts them in its place, or throws them away.
    pub(crate) async fn finish(&mut self, complete: bool) -> Result<()> {
        match self.replacement.take() {
            Some(replacement) if complete => {
                let created = replacement.swap(&self.database).await?;
                self.created = created;
                Ok(())
            }
            Some(replacement) => replacement.discard(&self.database).await,
            None => Ok(()),
        }
    }

    fn operation(&self, letter: Option<&DeadLetter>) -> Result<Operation> {
        match (self.mode, letter) {
            (Some(mode), _) => Ok(mode.operation()),
            (None, None) => Ok(Operation::Insert),
            (None, Some(letter)) => Operation::from_name(&letter.operation).ok_or_else(|| {
                let message = format!(
                    "a dead letter asks for {}, which is not one of insert, insert_if_absent, upsert, update, delete",
                    letter.operation
                );
                Error::new(ErrorKind::InvalidConfig, message)
            }),
        }
    }

    /// Holds a file's columns against the table's.
    fn route_to(
        &self,
        file: &str,
        name: &TableName,
        schema: &SchemaRef,
        operation: Operation,
        description: Option<&Arc<Description>>,
    ) -> Result<Route, Stop> {
        if let Some(description) = description {
            check_columns(file, schema, description)?;
        }
        let key = if operation.is_keyed() || description.is_none() || !self.key.is_empty() {
            self.key_of(file, schema, description)?
        } else {
            Vec::new()
        };
        if operation.is_keyed() && key.is_empty() {
            let message = match description {
                Some(_) => format!(
                    "{operation} finds rows by key, and the table has no primary key: name columns with --key"
                ),
                None => format!("{operation} finds rows by key: name its columns with --key"),
            };
            return Err(Stop::Usage(format!("table {name}: {message}")));
        }
        let key: Vec<&str> = key.iter().map(String::as_str).collect();
        let table = Table::of_schema(name.clone(), schema, &key)?;
        if let Some(description) = description {
            if operation == Operation::Insert && !key.is_empty() && !description.is_unique(&key) {
                let message = format!(
                    "the table has no primary key or unique index on exactly ({}): \
                     leave --key out, or make one",
                    key.join(", ")
                );
                return Err(Error::new(ErrorKind::InvalidConfig, message)
                    .with_table(name.to_string())
                    .into());
            }
            Target::new(&table, operation, Arc::clone(description)).map_err(|error| error.context(file))?;
        }
        Ok(Route { table: Arc::new(table), operation, name: name.clone() })
    }

    /// The key's columns as the file spells them: those asked for, else the table's primary key.
    fn key_of(
        &self,
        file: &str,
        schema: &SchemaRef,
        description: Option<&Arc<Description>>,
    ) -> Result<Vec<String>> {
        let asked = match (self.key.is_empty(), description) {
            (true, Some(description)) => &description.key,
            (true, None) => &self.key_of_new,
            (false, _) => &self.key,
        };
        let columns = || schema.fields().iter().map(|field| field.name().as_str());
        let spelled = |wanted: &String| {
            let exact = columns().find(|name| name == wanted);
            let found = exact.or_else(|| columns().find(|name| name.eq_ignore_ascii_case(wanted)));
            found.map(str::to_owned).ok_or_else(|| {
                let message = format!(
                    "{file} lacks the key column {wanted}{}; its columns are {}",
                    suggestion(wanted, columns()),
                    columns().collect::<Vec<_>>().join(", ")
                );
                Error::new(ErrorKind::MissingColumn, message)
            })
        };
        asked.iter().map(spelled).collect()
    }

    /// A table as it is in the database, or `None` where it isn't.
    async fn describe(&mut self, table: &TableName) -> Result<Option<Arc<Description>>> {
        if let Some(known) = self.known.get(table) {
            return Ok(known.clone());
        }
        let described = match self.database.describe(table).await {
            Ok(description) => Some(description),
            Err(error) if is_missing_table(&error) => None,
            Err(error) => return Err(error),
        };
        self.known.insert(table.clone(), described.clone());
        Ok(described)
    }

    /// Columns of a new table must differ in more than case where the database compares names without regard to it.
    fn check_spellings(&self, file: &str, header_line: Option<u64>, schema: &Schema) -> Result<()> {
        if self.database.store().dialect() == Dialect::Postgres {
            return Ok(());
        }
        let mut seen: HashMap<String, &str> = HashMap::new();
        for name in schema.fields().iter().map(|field| field.name()) {
            if let Some(other) = seen.insert(name.to_ascii_lowercase(), name) {
                let line = header_line.map(|line| format!(", line {line}")).unwrap_or_default();
                let message = format!(
                    "{file}{line}: the columns {other} and {name} differ in nothing but case, which one table can't have: \
                     rename one"
                );
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
        }
        Ok(())
    }

    async fn missing_table(&self, table: &TableName) -> Error {
        let tables = self.database.tables().await.unwrap_or_default();
        let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
        let near = suggestion(&table.to_string(), names.iter().map(String::as_str));
        Error::new(ErrorKind::MissingTable, format!("there is no such table{near}"))
            .with_table(table.to_string())
    }
}

fn needs_table(file: &str) -> Stop {
    Stop::Usage(format!("{file} holds no dead letters, so --table must say where its rows go"))
}

/// The table that a letter names.
fn table_of(letter: &DeadLetter) -> TableName {
    match &letter.schema {
        Some(schema) => TableName::in_schema(Arc::clone(schema), Arc::clone(&letter.table)),
        None => TableName::new(Arc::clone(&letter.table)),
    }
}

/// Every column of the file must be one of the table, and each only once.
fn check_columns(file: &str, schema: &Schema, description: &Description) -> Result<()> {
    let mut taken: HashMap<&str, &str> = HashMap::new();
    for field in schema.fields() {
        let names = || description.columns.iter().map(|column| column.name.as_str());
        let Some(column) = description.column(field.name()) else {
            let message = format!(
                "{file} has a column {}, which the table lacks{}; the table's columns are {}",
                field.name(),
                suggestion(field.name(), names()),
                names().collect::<Vec<_>>().join(", ")
            );
            return Err(
                Error::new(ErrorKind::MissingColumn, message).with_table(description.name.to_string())
            );
        };
        if let Some(other) = taken.insert(&column.name, field.name()) {
            let message = format!(
                "{file} has the columns {other} and {}, and both are the table's {}: rename one",
                field.name(),
                column.name
            );
            return Err(
                Error::new(ErrorKind::InvalidConfig, message).with_table(description.name.to_string())
            );
        }
    }
    Ok(())
}

/// A table's columns with the types in which they are best read. Databases compare names without regard to case and files are told
/// types by exact name, so the usual spellings are given as well.
fn schema_of(description: &Description) -> SchemaRef {
    let mut fields: Vec<Field> = Vec::new();
    let spellings = description.columns.iter().map(|column| (column.name.clone(), column)).chain(
        description.columns.iter().flat_map(|column| {
            [column.name.to_ascii_lowercase(), column.name.to_ascii_uppercase()].map(|name| (name, column))
        }),
    );
    for (name, column) in spellings {
        if !fields.iter().any(|field| *field.name() == name) {
            fields.push(column.field(name));
        }
    }
    Arc::new(Schema::new(fields))
}
