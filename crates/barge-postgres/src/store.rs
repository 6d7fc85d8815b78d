//! The store: a pool of connections, and the way of nearly every flush over one of them.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use barge_core::store::{
    Applied, Capabilities, CommitError, Description, LookUp, Query, RecordStream, Step, Target, Token,
};
use barge_core::{Dialect, Error, ErrorKind, Result, Store, Table, TableName, Transaction};
use tokio_postgres::Statement;

use crate::apply::{Prepared, Way};
use crate::check::check;
use crate::claim::FLUSHES;
use crate::connection::{Call, Connection, answered, pipeline};
use crate::ddl::create_table_sql;
use crate::error::{error_of, is_refusal, leaves_commit_unknown};
use crate::look_up::Lookups;
use crate::options::PostgresOptions;
use crate::pool::Pool;
use crate::read::{Reading, keys_of};
use crate::statements::Rows;
use crate::transaction::{IN_ORDER, PostgresTransaction, meets_others, of_step, unclear};

/// How often a query is begun whose statement's name is taken.
const NAMES_TRIED: usize = 8;

/// A database in PostgreSQL.
///
/// Connections are made when they are needed, up to the pool's size. A transaction holds one from its beginning to its end, a look-up or
/// query while its rows are read. Dropping the store closes connections as they are given back.
///
/// Dropping a call's future gives up waiting for it: its transaction is rolled back, unless its COMMIT was sent already.
pub struct PostgresStore {
    pool: Arc<Pool>,
    lookups: Arc<Lookups>,
}

impl PostgresStore {
    /// Opens a database by its URL; see [`PostgresOptions::from_url`] and [`PostgresOptions::open`].
    ///
    /// # Errors
    /// As those.
    pub async fn open(url: &str) -> Result<Self> {
        PostgresOptions::from_url(url)?.open().await
    }

    pub(crate) async fn with_options(options: &PostgresOptions) -> Result<Self> {
        let pool = Arc::new(Pool::new(options)?);
        // Whether the server is there, and lets us in, is told now and not with the first row.
        drop(pool.get().await?);
        Ok(PostgresStore { pool, lookups: Arc::default() })
    }

    async fn try_transact(
        &self,
        token: Option<&Token>,
        steps: &[Step],
        prepared: &[Prepared<'_>],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        let connection = self.pool.get().await?;
        match Dispatch::of(&connection, token, prepared) {
            Some(dispatch) => dispatch.send(steps).await,
            None => in_turn(connection, Arc::clone(&self.lookups), token, steps).await,
        }
    }

    async fn try_query(&self, query: &Query) -> Result<RecordStream> {
        let reading = Reading::query(query)?;
        let connection = self.pool.get().await?;
        if let Err(error) = reading.begin(&connection, "BEGIN READ ONLY").await {
            connection.send("ROLLBACK");
            return Err(error);
        }
        reading.stream(connection, Some("COMMIT")).await
    }

    /// A look-up whose table may have changed since it was described.
    async fn try_look_up(&self, look_up: &LookUp) -> Result<RecordStream> {
        let connection = self.pool.get().await?;
        let readings = self.lookups.readings(&connection, look_up).await?;
        if readings.len() == 1 {
            return Reading::stream_all(readings, connection, None).await;
        }
        // Several statements see the database at one moment only so.
        connection.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        Reading::stream_all(readings, connection, Some("COMMIT")).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            commit_can_be_unknown: true,
            generated_keys: true,
            reuses_keys: false,
            foreign_keys: true,
            sql: true,
        }
    }

    async fn describe(&self, table: &TableName) -> Result<Description> {
        self.pool.get().await?.describe(table).await
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.pool.get().await?.tables().await
    }

    fn create_table_sql(&self, table: &Table) -> Result<String> {
        create_table_sql(table)
    }

    fn check(&self, target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
        check(target, batch)
    }

    async fn key_groups(&self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        let keys = keys_of(target, keys)?;
        self.pool.get().await?.key_groups(&keys).await
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let connection = self.pool.get().await?;
        Ok(Box::new(PostgresTransaction::begin(connection, Arc::clone(&self.lookups)).await?))
    }

    async fn transact(
        &self,
        token: Option<&Token>,
        steps: &[Step],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        let mut prepared =
            steps.iter().map(|step| Prepared::new(step, self.pool.without())).collect::<Result<Vec<_>>>()?;
        if let [only] = &mut prepared[..] {
            only.count_first();
        }
        match self.try_transact(token, steps, &prepared).await {
            // The table of tokens isn't there yet.
            Err(CommitError::RolledBack(error)) if lacks_flushes(&error) => {
                self.pool.get().await?.create_flushes().await?;
                self.try_transact(token, steps, &prepared).await
            }
            made => made,
        }
    }

    async fn query(&self, query: Query) -> Result<RecordStream> {
        // Behind a pooler, another client's statement may be left on the server's connection under the same name: the next has another.
        for _ in 1..NAMES_TRIED {
            match self.try_query(&query).await {
                Err(error) if matches!(error.code(), Some("42P05" | "26000")) => {}
                read => return read,
            }
        }
        self.try_query(&query).await
    }

    async fn look_up(&self, look_up: LookUp) -> Result<RecordStream> {
        let name = look_up.table.name();
        let known = self.lookups.known(name);
        let error = match self.try_look_up(&look_up).await {
            Err(error) if !error.is_retryable() => error,
            found => return found,
        };
        let changed = match known {
            Some(known) => self.lookups.is_changed(&self.pool.get().await?, name, &known).await,
            // It was described just now.
            None => Ok(false),
        };
        let found = match changed {
            Ok(true) => self.try_look_up(&look_up).await,
            _ => Err(error),
        };
        found.map_err(|error| error.with_table(name.to_string()))
    }

    /// Waits for connections in use, at most as long as for a free one.
    async fn close(&self) -> Result<()> {
        self.pool.close().await
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("server", &self.pool.name()).finish_non_exhaustive()
    }
}

fn lacks_flushes(error: &Error) -> bool {
    error.kind() == ErrorKind::MissingTable && error.table() == Some(FLUSHES)
}

/// Steps one after the other, in a transaction that waits for each.
async fn in_turn(
    connection: Connection,
    lookups: Arc<Lookups>,
    token: Option<&Token>,
    steps: &[Step],
) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
    let mut transaction = Box::new(PostgresTransaction::begin(connection, lookups).await?);
    if let Some(token) = token
        && !transaction.claim(token).await?
    {
        return Ok(None);
    }
    let mut applied = Vec::with_capacity(steps.len());
    for step in steps {
        applied.push(transaction.apply(step).await?);
    }
    match transaction.commit().await {
        Ok(()) => Ok(Some(applied)),
        Err(error) => Err(error.with_applied(applied)),
    }
}

/// A transaction whose calls are sent without waiting in between: BEGIN, the claim and the statements together, then COMMIT. Where what the
/// steps did is known beforehand, COMMIT goes with them.
struct Dispatch<'a> {
    connection: &'a Connection,
    token: Option<&'a Token>,
    steps: &'a [Prepared<'a>],
    /// Whether the one step is a COPY.
    copies: bool,
}

impl<'a> Dispatch<'a> {
    /// `None` where a step needs more than one statement, or one that depends on another's answer.
    fn of(connection: &'a Connection, token: Option<&'a Token>, steps: &'a [Prepared<'a>]) -> Option<Self> {
        let copies = matches!(steps, [only] if matches!(only.way, Way::Copy(_)) && only.is_foreseen());
        let possible = copies || steps.iter().all(Prepared::is_one_statement);
        possible.then_some(Dispatch { connection, token, steps, copies })
    }

    async fn send(&self, steps: &[Step]) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        let mut open = Open(Some(self.connection));
        let sent = match self.copies {
            true => self.copy(steps, &mut open).await,
            false => self.run(steps, &mut open).await,
        };
        match sent? {
            Sent::ClaimedBefore => Ok(None),
            Sent::Done(applied) => Ok(Some(applied)),
            Sent::Open(mut applied) => {
                self.ask(&mut applied).await.map_err(|error| of_step(error, &steps[0]))?;
                if self.is_untold(&applied) {
                    return Err(unclear().into());
                }
                let committed = self.connection.end("COMMIT").await;
                open.is_over();
                match committed {
                    Ok(()) => Ok(Some(applied)),
                    Err(error) => Err(of_commit(error, applied)),
                }
            }
        }
    }

    /// BEGIN, the claim, and every step's statement; COMMIT too, where nothing has to be known before it.
    async fn run(&self, steps: &[Step], open: &mut Open<'_>) -> Result<Sent, CommitError<Vec<Applied>>> {
        let foreseen = self.steps.iter().all(Prepared::is_foreseen);
        self.prepare().await?;
        let begin = match steps.iter().any(meets_others) {
            true => format!("BEGIN; {IN_ORDER}"),
            false => "BEGIN".to_owned(),
        };
        let mut begun = None;
        let mut claimed = None;
        let mut committed: Option<Result<(), tokio_postgres::Error>> = None;
        let mut answers = Vec::new();
        answers.resize_with(self.steps.len(), || None);
        let mut calls: Vec<Call<'_>> = Vec::with_capacity(self.steps.len() + 3);
        calls.push(Box::pin(async { begun = Some(self.connection.run(&begin).await) }));
        calls.push(Box::pin(async { claimed = Some(self.claim().await) }));
        for (prepared, answer) in self.steps.iter().zip(&mut answers) {
            calls.push(Box::pin(async { *answer = Some(prepared.run(self.connection, Rows::Sorted).await) }));
        }
        if foreseen {
            calls.push(Box::pin(async {
                committed = Some(self.connection.end("COMMIT").await);
            }));
        }
        pipeline(calls).await;
        if committed.is_some() {
            open.is_over();
        }
        let answers = answers.into_iter().zip(steps);
        let answers: Vec<Result<Applied>> =
            answers.map(|(answer, step)| answered(answer).map_err(|error| of_step(error, step))).collect();
        if let Some(Err(error)) =
            committed.take_if(|committed| committed.as_ref().is_err_and(leaves_commit_unknown))
        {
            return self.cut_off(error, answered(begun), answered(claimed), answers);
        }
        if let Err(error) = answered(begun) {
            // What was sent behind a BEGIN that was refused committed by itself, each statement for its own.
            let happened = claimed.is_some_and(|claimed| claimed.is_ok_and(|claimed| claimed))
                || answers.iter().any(Result::is_ok);
            return Err(match happened {
                true => CommitError::Unknown { error, applied: self.foreseen() },
                false => error.into(),
            });
        }
        if !answered(claimed)? {
            return Ok(Sent::ClaimedBefore);
        }
        let applied = answers.into_iter().collect::<Result<Vec<_>>>()?;
        match committed {
            None => Ok(Sent::Open(applied)),
            Some(Ok(())) => Ok(Sent::Done(applied)),
            Some(Err(error)) => Err(of_commit(error, applied)),
        }
    }

    /// The connection went while all was on its way. What the server said before decides: it had refused, or nobody knows.
    fn cut_off(
        &self,
        error: tokio_postgres::Error,
        begun: Result<()>,
        claimed: Result<bool>,
        answers: Vec<Result<Applied>>,
    ) -> Result<Sent, CommitError<Vec<Applied>>> {
        let applied = |answers: Vec<Result<Applied>>| {
            answers
                .into_iter()
                .zip(self.foreseen())
                .map(|(answer, foreseen)| answer.unwrap_or(foreseen))
                .collect()
        };
        match (begun, claimed) {
            // The server ended the connection before it began: while it was idle, as a rule.
            (Err(ended), _) if is_refusal(&ended) && ended.kind() == ErrorKind::ConnectionLost => {
                Err(ended.into())
            }
            (_, Ok(false)) => Ok(Sent::ClaimedBefore),
            (_, Err(refused)) if is_refusal(&refused) => Err(refused.into()),
            _ => match answers
                .iter()
                .find_map(|answer| answer.as_ref().err().filter(|&error| is_refusal(error)))
            {
                Some(refused) => Err(refused.clone().into()),
                None => Err(of_commit(error, applied(answers))),
            },
        }
    }

    /// BEGIN and the claim, then the rows by COPY with COMMIT right behind.
    async fn copy(&self, steps: &[Step], open: &mut Open<'_>) -> Result<Sent, CommitError<Vec<Applied>>> {
        let [prepared] = self.steps else { return Err(crate::error::ended().into()) };
        let Way::Copy(left_out) = prepared.way else { return Err(crate::error::ended().into()) };
        let named = |error: Error| of_step(error, &steps[0]);
        self.prepare().await?;
        let mut begun = None;
        let mut claimed = None;
        let mut statement: Option<Result<Statement>> = None;
        let calls: Vec<Call<'_>> = vec![
            Box::pin(async { begun = Some(self.connection.run("BEGIN").await) }),
            Box::pin(async { claimed = Some(self.claim().await) }),
            Box::pin(async {
                statement = Some(prepared.plan.prepare_copy(self.connection, left_out).await);
            }),
        ];
        pipeline(calls).await;
        answered(begun)?;
        if !answered(claimed)? {
            return Ok(Sent::ClaimedBefore);
        }
        let statement = answered(statement).map_err(named)?;
        let data = prepared.copy_data(self.connection, statement).await.map_err(named)?;
        let mut copied = None;
        let mut committed = None;
        let calls: Vec<Call<'_>> = vec![
            Box::pin(async { copied = Some(self.connection.finish(data).await) }),
            Box::pin(async { committed = Some(self.connection.end("COMMIT").await) }),
        ];
        pipeline(calls).await;
        open.is_over();
        match (answered(copied), committed) {
            // Fewer than were sent, where a trigger came after the table was described.
            (Ok(rows), Some(Ok(()))) => Ok(Sent::Done(vec![prepared.counted(rows)])),
            // Said by the server, so that COMMIT found nothing to commit.
            (Err(error), Some(Ok(()))) => Err(named(error).into()),
            (Err(error), _) if is_refusal(&error) => Err(named(error).into()),
            (_, Some(Err(error))) => Err(of_commit(error, self.foreseen())),
            (Err(error), _) => Err(CommitError::Unknown { error, applied: self.foreseen() }),
            (Ok(_), None) => Err(crate::error::ended().into()),
        }
    }

    /// Where statements are kept, those that are not there yet are prepared now: nothing must be sent behind what follows it.
    async fn prepare(&self) -> Result<()> {
        if self.token.is_some() {
            self.connection.prepare_claim().await?;
        }
        if !self.copies {
            for prepared in self.steps {
                prepared.prepare(self.connection).await?;
            }
        }
        Ok(())
    }

    async fn claim(&self) -> Result<bool> {
        match self.token {
            Some(token) => self.connection.claim(token).await,
            None => Ok(true),
        }
    }

    /// Which rows were written, where a count came first and doesn't tell.
    async fn ask(&self, applied: &mut [Applied]) -> Result<()> {
        match (self.steps, applied) {
            ([step], [applied]) if step.way == Way::CountFirst && applied.outcomes.is_none() => {
                step.ask(self.connection, applied).await
            }
            _ => Ok(()),
        }
    }

    /// Whether rows were kept out by what the description doesn't know, so that it isn't known which. Before COMMIT nothing is lost by going
    /// row by row.
    fn is_untold(&self, applied: &[Applied]) -> bool {
        self.steps.iter().zip(applied).any(|(step, applied)| step.outcomes && applied.outcomes.is_none())
    }

    fn foreseen(&self) -> Vec<Applied> {
        self.steps.iter().map(Prepared::foreseen).collect()
    }
}

/// How far a dispatch came.
enum Sent {
    /// An earlier one did it.
    ClaimedBefore,
    /// All but COMMIT.
    Open(Vec<Applied>),
    /// COMMIT, too.
    Done(Vec<Applied>),
}

fn of_commit(error: tokio_postgres::Error, applied: Vec<Applied>) -> CommitError<Vec<Applied>> {
    match leaves_commit_unknown(&error) {
        true => CommitError::Unknown { error: error_of(error), applied },
        false => CommitError::RolledBack(error_of(error)),
    }
}

/// A connection with a transaction on it, which is rolled back when this is dropped before its end.
struct Open<'a>(Option<&'a Connection>);

impl Open<'_> {
    /// COMMIT was answered, or nobody is there to answer.
    fn is_over(&mut self) {
        self.0 = None;
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            connection.send("ROLLBACK");
        }
    }
}

impl PostgresOptions {
    /// Opens the database: makes a first connection, so that a wrong address or password is told at once.
    ///
    /// # Errors
    /// `ConnectionLost` where the server can't be reached, which may be tried again; `Permission` where it refuses the user, `InvalidConfig`
    /// for settings that contradict each other, files that can't be read and a database that isn't there.
    pub async fn open(self) -> Result<PostgresStore> {
        PostgresStore::with_options(&self).await
    }
}
