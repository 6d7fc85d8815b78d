//! Steps a batch at a time: one statement, or COPY.

use std::sync::Arc;

use arrow::array::{Array, Int64Array};
use barge_core::store::{Applied, Operation, Outcome, Step, TableKind, Target};
use barge_core::{ErrorKind, Result};
use bytes::BytesMut;
use futures::SinkExt;
use tokio_postgres::types::Type;
use tokio_postgres::{CopyInSink, Row, Statement};

use crate::batch::Batch;
use crate::connection::Connection;
use crate::describe::rewrites;
use crate::encode::{COPY_HEADER, COPY_TRAILER, copy_rows};
use crate::error::error_of;
use crate::options::Without;
use crate::statements::{Plan, Rows, Source};
use crate::types::PgType;

/// From so many rows on COPY is faster than INSERT: below it its further round trip costs more than it saves.
pub(crate) const COPY_ROWS: usize = 200;
/// From so many bytes on a batch goes through a temporary table: an array of this size is held several times over by the server.
const TABLE_BYTES: usize = 32 << 20;
/// Bytes in a message of COPY.
const MESSAGE_BYTES: usize = 128 << 10;

/// A step made ready: its statement's text, its values in the database's types.
pub(crate) struct Prepared<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) batch: Batch,
    pub(crate) outcomes: bool,
    pub(crate) way: Way,
    /// A statement that was prepared, and its text.
    named: Option<(Arc<str>, Statement)>,
}

/// How a step is sent.
#[derive(Clone, PartialEq)]
pub(crate) enum Way {
    /// As COPY, without the column at this place.
    Copy(Option<usize>),
    /// A statement that says only how many rows it changed.
    Count,
    /// The same; where it didn't change all, it is asked before COMMIT which it changed.
    CountFirst,
    /// A statement that gives the ordinals of the rows it changed.
    Ordinals,
    /// A statement that gives each row's drawn key.
    Drawn(usize),
    /// Upserts where nobody can tell inserted rows from updated ones: update, then insert what was not there.
    UpdateThenInsert,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(step: &'a Step, without: Without) -> Result<Self> {
        let plan = Plan::new(&step.target, without);
        let fields = step.target.columns.iter().map(|column| &*column.field);
        let batch = Batch::new(&step.batch, fields.zip(plan.types.iter().cloned()))?;
        let way = way(&plan, &batch, step.outcomes);
        Ok(Prepared { plan, batch, outcomes: step.outcomes, way, named: None })
    }

    /// The same for some of its rows.
    pub(crate) fn of_rows(&self, rows: &[u32]) -> Result<Prepared<'a>> {
        Ok(Prepared {
            plan: self.plan.clone(),
            batch: self.batch.select(rows)?,
            outcomes: self.outcomes,
            way: self.way.clone(),
            named: self.named.clone(),
        })
    }

    /// Sees to it that its statement can be sent behind others without being prepared first.
    pub(crate) async fn prepare(&self, connection: &Connection) -> Result<()> {
        connection.prepare(&self.sql(Rows::Sorted), &self.parameter_types()).await
    }

    /// Prepares the statement of one row as long as this lives, for itself and what is made of its rows. Like all that has a name, it must end
    /// within its transaction.
    pub(crate) async fn name(&mut self, connection: &Connection) -> Result<()> {
        if self.named.is_none() {
            let sql = self.sql(Rows::Alone);
            let statement = connection.named(&sql, &self.parameter_types()).await?;
            self.named = Some((sql.into(), statement));
        }
        Ok(())
    }

    fn parameter_types(&self) -> Vec<Type> {
        self.plan.types.iter().map(PgType::parameter_array_type).collect()
    }

    /// Whether what the step did is known before it is done, if it is done at all.
    pub(crate) fn is_foreseen(&self) -> bool {
        is_plain(self.plan.target)
            && self.plan.target.operation == Operation::Insert
            && matches!(self.way, Way::Copy(_) | Way::Count)
    }

    /// What an insert of every row is.
    pub(crate) fn foreseen(&self) -> Applied {
        self.counted(self.batch.rows as u64)
    }

    /// Whether its one statement can be sent among others.
    pub(crate) fn is_one_statement(&self) -> bool {
        is_plain(self.plan.target)
            && matches!(self.way, Way::Count | Way::CountFirst | Way::Ordinals | Way::Drawn(_))
            && !self.wants_table()
    }

    /// Counts the rows of updates first, where it can be asked afterwards which they were: the rows of the answer cost a flush of 1,000 updates a
    /// sixth of its time, and mostly all rows are there. For a step that is alone in its transaction.
    pub(crate) fn count_first(&mut self) {
        let target = self.plan.target;
        let key: Vec<&str> = target.key.iter().map(|&index| target.columns[index].name()).collect();
        let tells = self.way == Way::Ordinals
            && target.operation == Operation::Update
            && !self.plan.without.xmax
            && !target.description.inherited
            && target.description.is_unique(&key);
        if tells {
            self.way = Way::CountFirst;
        }
    }

    /// Which rows were updated by this transaction, where the count didn't tell. They stay unknown where it may not be asked (the user reads some
    /// columns only), or the answer is not that many: a trigger came, or the server's system columns mean something else.
    pub(crate) async fn ask(&self, connection: &Connection, applied: &mut Applied) -> Result<()> {
        let parameters = self.batch.parameters();
        applied.statements += 1;
        let told = match connection.query(&self.plan.written_here(), &parameters.bind()).await {
            Err(error) if error.kind() == ErrorKind::Permission => return Ok(()),
            told => ordinals(&told?)?,
        };
        let mut outcomes = vec![Outcome::NotFound; self.batch.rows];
        told.iter().for_each(|&place| outcomes[place] = Outcome::Updated);
        applied.outcomes = (told.len() as u64 == applied.affected).then_some(outcomes);
        Ok(())
    }

    /// Whether the batch should go into a temporary table first.
    pub(crate) fn wants_table(&self) -> bool {
        let without = self.plan.without;
        let refused = matches!(self.way, Way::Copy(_)) || without.copy || without.temporary;
        !refused && self.batch.copies() && self.batch.bytes() > TABLE_BYTES
    }

    /// The text of its one statement.
    pub(crate) fn sql(&self, rows: Rows) -> String {
        let rows = if self.batch.rows == 1 { Rows::Alone } else { rows };
        match self.way {
            Way::Drawn(place) => self.plan.insert_drawn(place, rows),
            Way::Ordinals => self.plan.write_with_outcomes(rows),
            Way::Copy(_) | Way::Count | Way::CountFirst | Way::UpdateThenInsert => self.plan.write(rows),
        }
    }

    /// Runs its one statement.
    pub(crate) async fn run(&self, connection: &Connection, rows: Rows) -> Result<Applied> {
        let sql = self.sql(rows);
        let parameters = self.batch.parameters();
        let bound = match self.plan.source {
            Source::Arrays => parameters.bind(),
            Source::Table(_) => Vec::new(),
        };
        let named = self.named.as_ref().filter(|(text, _)| **text == *sql).map(|(_, statement)| statement);
        let query = async || match named {
            Some(statement) => connection.query_named(statement, &bound).await,
            None => connection.query(&sql, &bound).await,
        };
        match (&self.way, named) {
            (Way::Ordinals, _) => self.told(&query().await?),
            (Way::Drawn(_), _) => self.drawn(&query().await?),
            (_, Some(statement)) => Ok(self.counted(connection.execute_named(statement, &bound).await?)),
            (_, None) => Ok(self.counted(connection.execute(&sql, &bound).await?)),
        }
    }

    /// Sends the rows by COPY.
    pub(crate) async fn copy(&self, connection: &Connection, statement: Statement) -> Result<Applied> {
        let sink = self.copy_data(connection, statement).await?;
        Ok(self.counted(connection.finish(sink).await?))
    }

    /// Sends all rows by COPY, but not their end.
    pub(crate) async fn copy_data(
        &self,
        connection: &Connection,
        statement: Statement,
    ) -> Result<std::pin::Pin<Box<CopyInSink<bytes::Bytes>>>> {
        let left_out = match self.way {
            Way::Copy(left_out) => left_out,
            _ => None,
        };
        let columns = self.batch.columns.iter().enumerate();
        let columns = columns.filter(|(index, _)| Some(*index) != left_out).map(|(_, column)| column.clone());
        copy_in(connection, statement, &columns.collect::<Vec<_>>(), self.batch.rows).await
    }

    /// What a count tells: fewer rows than were sent leave open which they are.
    pub(crate) fn counted(&self, affected: u64) -> Applied {
        let outcome = match affected {
            all if all == self.batch.rows as u64 => Some(written(self.plan.target.operation, true)),
            0 => Some(missing(self.plan.target.operation)),
            _ => None,
        };
        let outcomes = outcome.filter(|_| self.outcomes).map(|outcome| vec![outcome; self.batch.rows]);
        Applied { affected, outcomes, generated: None, statements: 1 }
    }

    /// Rows of ordinals, and whether the row is new. A row without an ordinal leaves open which it is.
    fn told(&self, rows: &[Row]) -> Result<Applied> {
        let operation = self.plan.target.operation;
        let mut outcomes = vec![missing(operation); self.batch.rows];
        let mut known = true;
        for row in rows {
            let (ordinal, inserted): (Option<i64>, bool) =
                (row.try_get(0).map_err(error_of)?, row.try_get(1).map_err(error_of)?);
            let place = ordinal.and_then(|ordinal| usize::try_from(ordinal).ok());
            match place.and_then(|place| outcomes.get_mut(place)) {
                Some(outcome) => *outcome = written(operation, inserted),
                None => known = false,
            }
        }
        let outcomes = known.then_some(outcomes);
        Ok(Applied { affected: rows.len() as u64, outcomes, generated: None, statements: 1 })
    }

    /// Rows of ordinals, keys, and whether the row is there.
    fn drawn(&self, rows: &[Row]) -> Result<Applied> {
        let mut keys: Vec<Option<i64>> = vec![None; self.batch.rows];
        for row in rows {
            let (ordinal, key, there): (i64, i64, bool) = (
                row.try_get(0).map_err(error_of)?,
                row.try_get(1).map_err(error_of)?,
                row.try_get(2).map_err(error_of)?,
            );
            if let Some(slot) = usize::try_from(ordinal).ok().and_then(|row| keys.get_mut(row)) {
                *slot = there.then_some(key);
            }
        }
        let outcome = |key: &Option<i64>| key.map_or(Outcome::Unchanged, |_| Outcome::Inserted);
        // Where no trigger was known of, one came since that keeps rows out or changes their keys, and which of both isn't known.
        let known = self.batch.rows == 1 || !is_plain(self.plan.target) || keys.iter().all(Option::is_some);
        Ok(Applied {
            affected: keys.iter().flatten().count() as u64,
            outcomes: known.then(|| keys.iter().map(outcome).collect()),
            generated: Some(Int64Array::from_iter(keys)),
            statements: 1,
        })
    }
}

/// The places of rows that a statement tells of.
pub(crate) fn ordinals(rows: &[Row]) -> Result<Vec<usize>> {
    let ordinal = |row: &Row| Ok(row.try_get::<_, i64>(0).map_err(error_of)? as usize);
    rows.iter().map(ordinal).collect()
}

/// Sends columns by COPY, but not their end. Dropped, the COPY fails and leaves nothing; dropped while rows wait to be sent, its connection goes,
/// too: the server may wait for a lock, and who came next for the server.
pub(crate) async fn copy_in(
    connection: &Connection,
    statement: Statement,
    columns: &[(arrow::array::ArrayRef, PgType)],
    rows: usize,
) -> Result<std::pin::Pin<Box<CopyInSink<bytes::Bytes>>>> {
    let mut sink = connection.copy_in(statement).await?;
    let unanswered = connection.unanswered();
    let mut buffer = BytesMut::with_capacity(MESSAGE_BYTES + (MESSAGE_BYTES >> 2));
    buffer.extend_from_slice(COPY_HEADER);
    let mut sent = 0;
    // As many rows as make a message; how many that are, the rows before tell.
    let mut rows_a_message = 64;
    while sent < rows {
        let end = rows.min(sent + rows_a_message);
        let before = buffer.len();
        copy_rows(columns, sent..end, &mut buffer);
        let row_bytes = ((buffer.len() - before) / (end - sent)).max(1);
        rows_a_message = (MESSAGE_BYTES / row_bytes / 4).max(1);
        sent = end;
        if buffer.len() >= MESSAGE_BYTES {
            sink.send(buffer.split().freeze()).await.map_err(error_of)?;
            buffer.reserve(MESSAGE_BYTES);
        }
    }
    buffer.extend_from_slice(&COPY_TRAILER);
    sink.send(buffer.freeze()).await.map_err(error_of)?;
    unanswered.came();
    Ok(sink)
}

/// What a row is that was not written.
pub(crate) fn missing(operation: Operation) -> Outcome {
    match operation {
        Operation::Update | Operation::Delete => Outcome::NotFound,
        _ => Outcome::Unchanged,
    }
}

fn written(operation: Operation, inserted: bool) -> Outcome {
    match operation {
        Operation::Delete => Outcome::Deleted,
        Operation::Update => Outcome::Updated,
        _ if inserted => Outcome::Inserted,
        _ => Outcome::Updated,
    }
}

/// Whether nothing but the statement itself decides what becomes of a row.
pub(crate) fn is_plain(target: &Target) -> bool {
    let description = &target.description;
    let reacts = match target.operation {
        Operation::Insert | Operation::InsertIfAbsent => description.reacts_to_inserts,
        _ => !description.triggers.is_empty(),
    };
    description.kind == TableKind::Table && !reacts
}

/// Whether COPY does what INSERT would do.
fn may_copy(target: &Target) -> bool {
    target.description.kind == TableKind::Table && !rewrites(&target.description)
}

fn way(plan: &Plan<'_>, batch: &Batch, outcomes: bool) -> Way {
    let target = plan.target;
    let operation = target.operation;
    if operation == Operation::Insert {
        let copies = may_copy(target) && !plan.without.copy && batch.copies() && batch.rows >= COPY_ROWS;
        return match target.generated() {
            Some(place) if outcomes => Way::Drawn(place),
            Some(place) => match batch.columns[place].0.null_count() {
                0 if copies => Way::Copy(None),
                nulls if copies && nulls == batch.rows && batch.columns.len() > 1 => Way::Copy(Some(place)),
                _ => Way::Count,
            },
            None if copies => Way::Copy(None),
            None => Way::Count,
        };
    }
    if !outcomes {
        return Way::Count;
    }
    let sees_versions =
        !plan.without.xmax && !target.description.partitioned && target.description.kind == TableKind::Table;
    match operation {
        Operation::Upsert if !sees_versions && target.assigned().next().is_some() => Way::UpdateThenInsert,
        _ => Way::Ordinals,
    }
}
