//! `barge copy`: a table, or what a query gives, into a table of another database.
//!
//! It is a load whose reader is a query: one statement, so that all rows are of one moment. The stream reads as fast as rows are
//! written, so that memory stays flat.

use std::sync::Arc;

use barge::Dialect;

use crate::args::Copy;
use crate::load::Prepared;
use crate::load::plan::Planner;
use crate::load::reader;
use crate::load::summary::Subject;
use crate::progress::Progress;
use crate::query::{Reading, is_same_table};
use crate::table::Named;
use crate::url::Url;
use crate::{Status, Stop};

/// Runs a copy.
pub(crate) async fn run(copy: Copy) -> Result<Status, Stop> {
    let Copy { from, target } = copy;
    let mut prepared = Prepared::new(&target, Some(&Url::parse(&from.url)?))?;
    if target.table.is_none() && from.table.is_none() {
        return Err(Stop::Usage("--query: --table must say where its rows go".into()));
    }
    prepared.open_letters()?;
    // The source first: where it isn't there, no database is made for its rows. Its first statement is run when the target
    // is open, which on SQLite makes sure that who reads a file does not keep others from writing it.
    let reading = Reading::open(&from, Some(prepared.url())).await?;
    let database = prepared.open().await?;
    let table = match (&target.table, reading.description()) {
        (Some(name), _) => {
            Named { schema: target.schema.clone(), name: name.clone() }.find(&database).await?
        }
        (None, Some(description)) => barge::TableName::new(description.name.name()),
        (None, None) => return Err(Stop::Usage("--table must say where the rows go".into())),
    };
    if let Some(description) = reading.description()
        && is_same_table((&reading.database, &description.name), (&database, &table)).await?
    {
        let message = format!("table {table} would be copied onto itself: choose another with --table");
        return Err(Stop::Usage(message));
    }
    let key_of_new = reading.description().map(|description| description.key.clone()).unwrap_or_default();
    let planner = Planner::new(database, Some(table), target.mode, prepared.key()).await?;
    let planner = planner.with_key_of_new(key_of_new);

    // What the target computes itself can't be written.
    let computed: Vec<String> = planner.description().map_or_else(Vec::new, |description| {
        let computed = description.columns.iter().filter(|column| column.computed);
        computed.map(|column| column.name.to_lowercase()).collect()
    });
    let is_computed = |column: &str| computed.contains(&column.to_lowercase());
    // SQLite has no lists, and has to be told which texts are some. Elsewhere one that doesn't fit is its row's, and not the copy's, end.
    let lists = match reading.database.store().dialect() {
        Dialect::Sqlite => planner.lists(),
        _ => None,
    };
    let stream = reading.start(is_computed, lists).await?;
    let messages = reader::start_rows(reading.name.as_str().into(), stream, prepared.limits().rows);
    let progress = Arc::new(Progress::new(None));
    let subject = Subject::Rows { name: reading.name.clone(), from };
    let status = prepared.run(subject, planner, messages, progress).await?;
    if status == Status::Done {
        reading.close().await;
    }
    Ok(status)
}
