//! Statements that read: their rows as record batches, as fast as they are asked for.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, SchemaRef};
use barge_core::store::{ORDINAL, Query, RecordStream, Target};
use barge_core::{Error, ErrorKind, Result};
use futures::{StreamExt, stream};
use tokio::time::timeout;
use tokio_postgres::{Column, RowStream, Statement};

use crate::batch::{Batch, named_relation, relation};
use crate::connection::{Connection, answered, pipeline};
use crate::decode::Decoder;
use crate::error::error_of;
use crate::types::PgType;

/// Rows in a batch of a stream.
const BATCH_ROWS: usize = 4_096;
/// Bytes at which a batch of a stream is full, whatever its rows: huge values must not add up.
const BATCH_BYTES: usize = 4 << 20;

/// For so long an error waits for the rows behind it.
const READ_ON_TIME: Duration = Duration::from_millis(100);

/// A statement ready to be sent.
pub(crate) struct Reading {
    sql: String,
    batch: Option<Batch>,
    wanted: Option<SchemaRef>,
    /// Whether `wanted` says all its columns.
    columns_are_wanted: bool,
    /// Whether a statement that gives no columns is a mistake.
    must_read: bool,
    /// A user's statement, once it is prepared. It ends with this, within its transaction.
    statement: OnceLock<Statement>,
}

impl Reading {
    /// A user's statement; `{batch}` in it stands for the batch.
    pub(crate) fn over(query: &Query) -> Result<Self> {
        let Some(batch) = &query.batch else {
            return Ok(Reading {
                sql: query.sql.clone(),
                batch: None,
                wanted: query.schema.clone(),
                columns_are_wanted: false,
                must_read: false,
                statement: OnceLock::new(),
            });
        };
        let schema = batch.schema();
        let fields: Vec<&Field> = schema.fields().iter().map(|field| &**field).collect();
        let types = fields.iter().map(|field| PgType::for_field(field)).collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        let sql = query.sql.replace("{batch}", &named_relation(&types, &names));
        check_fits(batch, &fields, &types)?;
        let batch = Batch::new(batch, fields.into_iter().zip(types))?;
        Ok(Reading {
            sql,
            batch: Some(batch),
            wanted: query.schema.clone(),
            columns_are_wanted: false,
            must_read: false,
            statement: OnceLock::new(),
        })
    }

    /// The same, of a statement that has to read.
    pub(crate) fn query(query: &Query) -> Result<Self> {
        Ok(Reading { must_read: true, ..Reading::over(query)? })
    }

    /// A look-up's statement, which gives the columns that are wanted.
    pub(crate) fn look_up(sql: String, keys: Batch, wanted: SchemaRef) -> Self {
        Reading {
            sql,
            batch: Some(keys),
            wanted: Some(wanted),
            columns_are_wanted: true,
            must_read: true,
            statement: OnceLock::new(),
        }
    }

    /// Whether some key was none of its column's type.
    pub(crate) fn has_misfits(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.misfits)
    }

    /// Begins a transaction and prepares the statement in it, in one round trip.
    pub(crate) async fn begin(&self, connection: &Connection, begin: &str) -> Result<()> {
        let (mut begun, mut prepared) = (None, None);
        pipeline(vec![
            Box::pin(async { begun = Some(connection.run(begin).await) }),
            Box::pin(async { prepared = Some(self.prepare(connection).await) }),
        ])
        .await;
        answered(begun)?;
        answered(prepared)
    }

    /// Prepares a user's statement, so that the types of its columns are known before its rows come: the driver asks the server for a type
    /// that it doesn't know over the same connection, and behind more rows than it takes in beforehand the answer never comes. What a look-up reads
    /// is cast to types that every server has.
    async fn prepare(&self, connection: &Connection) -> Result<()> {
        if self.columns_are_wanted || self.statement.get().is_some() {
            return Ok(());
        }
        let types = self.batch.as_ref().map(Batch::parameter_types).unwrap_or_default();
        let statement = connection.named(&self.sql, &types).await?;
        self.statement.get_or_init(|| statement);
        Ok(())
    }

    /// Runs it, and collects its rows.
    pub(crate) async fn collect(&self, connection: &Connection) -> Result<RecordBatch> {
        let mut decoder = None;
        self.collect_into(connection, &mut decoder).await?;
        self.take(connection, &mut decoder).await
    }

    /// Runs statements that give the same columns, and collects their rows.
    pub(crate) async fn collect_all(readings: &[Reading], connection: &Connection) -> Result<RecordBatch> {
        let mut decoder = None;
        for reading in readings {
            reading.collect_into(connection, &mut decoder).await?;
        }
        match readings.last() {
            Some(reading) => reading.take(connection, &mut decoder).await,
            None => Err(Error::new(ErrorKind::Statement, "there is no statement to run")),
        }
    }

    async fn collect_into(&self, connection: &Connection, decoder: &mut Option<Decoder>) -> Result<()> {
        let unanswered = connection.unanswered();
        let read = self.read_all(connection, decoder).await;
        // What the server refuses, it has answered.
        if read.as_ref().err().is_none_or(|error| error.code().is_some()) {
            unanswered.came();
        }
        read
    }

    async fn read_all(&self, connection: &Connection, decoder: &mut Option<Decoder>) -> Result<()> {
        let mut rows = self.start(connection).await?;
        while self.read(&mut rows, decoder, usize::MAX).await? {}
        Ok(())
    }

    async fn start(&self, connection: &Connection) -> Result<Pin<Box<RowStream>>> {
        self.prepare(connection).await?;
        let parameters = self.batch.as_ref().map(Batch::parameters);
        let bound = parameters.as_ref().map(|parameters| parameters.bind()).unwrap_or_default();
        let rows = match self.statement.get() {
            Some(statement) => connection.stream_of(statement, &bound).await?,
            None => connection.stream(&self.sql, &bound).await?,
        };
        Ok(Box::pin(rows))
    }

    /// Reads rows until there are `rows_max` of them, and says whether there may be more. Without a limit of rows there is none of bytes:
    /// the result is wanted whole.
    async fn read(
        &self,
        rows: &mut Pin<Box<RowStream>>,
        decoder: &mut Option<Decoder>,
        rows_max: usize,
    ) -> Result<bool> {
        let bytes_max = if rows_max == usize::MAX { usize::MAX } else { BATCH_BYTES };
        let mut bytes = 0;
        while decoder.as_ref().map_or(0, Decoder::rows) < rows_max && bytes < bytes_max {
            let Some(row) = rows.next().await else { return Ok(false) };
            let row = row.map_err(error_of)?;
            bytes += row.raw_size_bytes();
            let decoder = match decoder {
                Some(decoder) => decoder,
                None => decoder.insert(self.decoder(row.columns())?),
            };
            decoder.append(&row).map_err(|error| match row.try_get::<_, i64>(0) {
                // A look-up's rows begin with the place of their key.
                Ok(key) if self.columns_are_wanted => error.with_row(key as u64),
                _ => error,
            })?;
        }
        Ok(true)
    }

    fn decoder(&self, columns: &[Column]) -> Result<Decoder> {
        let columns = columns.iter().map(|column| (column.name().to_owned(), column.type_().clone()));
        Decoder::new(columns.collect(), self.wanted.as_deref())
    }

    /// The rows read so far. A result without rows doesn't say its columns, so the statement is asked for them.
    async fn take(&self, connection: &Connection, decoder: &mut Option<Decoder>) -> Result<RecordBatch> {
        if let Some(decoder) = decoder {
            return decoder.take();
        }
        if let (Some(wanted), true) = (&self.wanted, self.columns_are_wanted) {
            return Ok(RecordBatch::new_empty(wanted.clone()));
        }
        self.prepare(connection).await?;
        let columns = self.statement.get().map(Statement::columns).unwrap_or_default();
        if columns.is_empty() && self.must_read {
            let message = "the statement gives no rows: a query has to read";
            return Err(Error::new(ErrorKind::Statement, message));
        }
        decoder.insert(self.decoder(columns)?).take()
    }

    /// Runs it on a connection of its own, which is given back at the end; `end` is then sent over it. A stream dropped before ends the
    /// query.
    pub(crate) async fn stream(
        self,
        connection: Connection,
        end: Option<&'static str>,
    ) -> Result<RecordStream> {
        Reading::stream_all([self], connection, end).await
    }

    /// The same with statements one after another, which give the same columns.
    pub(crate) async fn stream_all(
        readings: impl Into<VecDeque<Reading>>,
        connection: Connection,
        end: Option<&'static str>,
    ) -> Result<RecordStream> {
        let readings = readings.into();
        let mut guard = Guard { connection: Some(connection), end };
        let rows = match (&guard.connection, readings.front()) {
            (Some(connection), Some(reading)) => reading.start(connection).await,
            _ => return Err(crate::error::closed()),
        };
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                drop(readings);
                guard.finish();
                return Err(error);
            }
        };
        let state = Some(Streaming { readings, guard, rows, decoder: None });
        let parts = stream::unfold(state, async |state| {
            let mut state = state?;
            match state.part().await {
                Ok((part, true)) => Some((Ok(part), Some(state))),
                Ok((part, false)) => {
                    state.finish();
                    Some((Ok(part), None))
                }
                Err(error) => {
                    // Rows that nobody will read may follow: where they are few, the connection is of use after them.
                    let is_rows = error.kind() == ErrorKind::InvalidValue && error.code().is_none();
                    if is_rows
                        && state.is_look_up()
                        && timeout(READ_ON_TIME, state.read_on()).await == Ok(true)
                    {
                        state.finish();
                    }
                    Some((Err(error), None))
                }
            }
        });
        RecordStream::of_parts(Box::pin(parts)).await
    }
}

/// Statements whose rows are being read.
struct Streaming {
    /// The one under way, and those after it.
    readings: VecDeque<Reading>,
    guard: Guard,
    rows: Pin<Box<RowStream>>,
    decoder: Option<Decoder>,
}

impl Streaming {
    /// Statements end before their transaction: behind a pooler, another client may use the server's connection then, and the same names.
    fn finish(self) {
        let Streaming { readings, mut guard, rows, .. } = self;
        drop((rows, readings));
        guard.finish();
    }

    /// Reads on to the end of the last statement's rows, as far as a batch goes; whether it came there.
    async fn read_on(&mut self) -> bool {
        let (mut rows, mut bytes) = (0, 0);
        while rows < BATCH_ROWS && bytes < BATCH_BYTES {
            match self.rows.next().await {
                Some(Ok(row)) => (rows, bytes) = (rows + 1, bytes + row.raw_size_bytes()),
                Some(Err(_)) => return false,
                None => return self.readings.len() == 1,
            }
        }
        false
    }

    fn is_look_up(&self) -> bool {
        self.readings.front().is_some_and(|reading| reading.columns_are_wanted)
    }

    /// A batch's worth of rows, and whether there may be more.
    async fn part(&mut self) -> Result<(RecordBatch, bool)> {
        let Streaming { readings, guard, rows, decoder } = self;
        let Some(connection) = &guard.connection else { return Err(crate::error::closed()) };
        loop {
            let Some(reading) = readings.front() else { return Err(crate::error::closed()) };
            let more = reading.read(rows, decoder, BATCH_ROWS).await?;
            if more || readings.len() == 1 {
                return Ok((reading.take(connection, decoder).await?, more));
            }
            readings.pop_front();
            if let Some(next) = readings.front() {
                *rows = next.start(connection).await?;
            }
        }
    }
}

/// A connection while a stream reads from it.
struct Guard {
    connection: Option<Connection>,
    end: Option<&'static str>,
}

impl Guard {
    fn finish(&mut self) {
        if let (Some(connection), Some(end)) = (self.connection.take(), self.end) {
            connection.send(end);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.spoil();
        }
    }
}

/// A batch's values must survive: a query over other values would answer another question.
fn check_fits(batch: &RecordBatch, fields: &[&Field], types: &[PgType]) -> Result<()> {
    for ((array, field), pg_type) in batch.columns().iter().zip(fields).zip(types) {
        let fitted = crate::fit::fit(array, field, pg_type)?;
        if let Some((row, message)) = fitted.rejected.into_iter().next() {
            return Err(Error::new(ErrorKind::InvalidValue, message)
                .with_column(field.name())
                .with_row(row as u64));
        }
    }
    Ok(())
}

/// Keys in the types of their columns.
pub(crate) fn keys_of(target: &Target, keys: &RecordBatch) -> Result<Batch> {
    let schema = keys.schema();
    let types = schema.fields().iter().map(|field| {
        let described = target.description.column(field.name());
        let pg_type = described.map_or_else(|| PgType::for_field(field), |column| Ok(PgType::of(column)));
        Ok((&**field, pg_type?))
    });
    Batch::new(keys, types.collect::<Result<Vec<_>>>()?)
}

impl Connection {
    /// Numbers keys so that two have one number exactly where the database takes them as equal.
    pub(crate) async fn key_groups(&self, keys: &Batch) -> Result<Vec<u32>> {
        let types: Vec<PgType> = keys.columns.iter().map(|(_, pg_type)| pg_type.clone()).collect();
        let order: Vec<String> = (0..types.len()).map(|index| format!("b.c{index}")).collect();
        let sql = format!(
            "SELECT dense_rank() OVER (ORDER BY {}) FROM {} AS b ORDER BY b.{ORDINAL}",
            order.join(", "),
            relation(&types, 1)
        );
        let parameters = keys.parameters();
        let rows = self.query(&sql, &parameters.bind()).await?;
        rows.iter()
            .map(|row| Ok(u32::try_from(row.try_get::<_, i64>(0).map_err(error_of)? - 1).unwrap_or(u32::MAX)))
            .collect()
    }
}
