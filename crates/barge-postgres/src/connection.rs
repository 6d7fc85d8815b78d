//! A connection, and what is sent over it.
//!
//! A connection goes back to the pool when it is dropped, unless it can't be known in which state it is: a call was given up before its
//! answer came, or the server said something that holds for the connection as a whole. Then it is closed.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use barge_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use deadpool_postgres::{ClientWrapper, Object};
use futures::FutureExt;
use futures::future::join_all;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CopyInSink, Row, RowStream, Statement};
use uuid::Uuid;

use crate::claim::Tries;
use crate::error::{error_of, is_of_connection};
use crate::options::Without;
use crate::transaction::RESHAPED;

/// A value to bind, and the type it travels as.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// What is known over all connections of a store.
#[derive(Default)]
pub(crate) struct Shared {
    tries: Tries,
}

/// A connection of the caller's own.
pub(crate) struct Connection {
    /// Taken by the drop alone.
    client: Option<Object>,
    keeps_statements: bool,
    without: Without,
    shared: Arc<Shared>,
    /// Whether it must not be used again.
    spoiled: AtomicBool,
    /// Whether answers on it no longer belong to the calls they come to.
    out_of_step: AtomicBool,
    /// The lane whose token was claimed in its transaction.
    lane: Mutex<Option<(Uuid, u32)>>,
}

impl Connection {
    pub(crate) fn new(client: Object, keeps_statements: bool, without: Without, shared: Arc<Shared>) -> Self {
        let (spoiled, out_of_step, lane) = Default::default();
        Connection { client: Some(client), keeps_statements, without, shared, spoiled, out_of_step, lane }
    }

    /// What the server lacks.
    pub(crate) fn without(&self) -> Without {
        self.without
    }

    /// Which tokens were tried before, over any connection.
    pub(crate) fn tries(&self) -> &Tries {
        &self.shared.tries
    }

    /// Notes that a lane's token was claimed.
    pub(crate) fn holds(&self, lane: (Uuid, u32)) {
        *self.lane.lock().unwrap_or_else(PoisonError::into_inner) = Some(lane);
    }

    /// The lane whose token was claimed.
    pub(crate) fn held(&self) -> Option<(Uuid, u32)> {
        *self.lane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connection closed instead of given back. Its server notices when it can send nothing more. It is not asked to cancel what it
    /// does: PgBouncer 1.18 may close another client's connection then.
    pub(crate) fn spoil(&self) {
        self.spoiled.store(true, Ordering::Relaxed);
    }

    fn client(&self) -> &ClientWrapper {
        match &self.client {
            Some(client) => client,
            None => unreachable!("only the drop takes it"),
        }
    }

    /// Waits for an answer. Where nobody waits for it to the end, it would come to the next user's calls, or keep them waiting.
    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        let unanswered = self.unanswered();
        let answer = call.await;
        unanswered.came();
        if let Err(error) = &answer
            && is_of_connection(error)
        {
            self.spoil();
        }
        answer
    }

    /// Marks that an answer is awaited, until it [came](Unanswered::came).
    pub(crate) fn unanswered(&self) -> Unanswered<'_> {
        Unanswered(Some(self))
    }

    /// Runs statements that take no parameters and give no rows.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        self.run_raw(sql).await.map_err(error_of)
    }

    /// The same with PostgreSQL's own error.
    pub(crate) async fn run_raw(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.answer(self.client().batch_execute(sql)).await
    }

    /// Runs one statement and collects its rows.
    pub(crate) async fn query(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        self.query_raw(sql, parameters).await.map_err(error_of)
    }

    /// The same with PostgreSQL's own error.
    pub(crate) async fn query_raw(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.keeps_statements {
            return self.answer(self.client().query_typed(sql, parameters)).await;
        }
        self.answer(async {
            let statement = self.client().prepare_typed_cached(sql, &types_of(parameters)).await?;
            self.client().query(&statement, &values_of(parameters)).await
        })
        .await
    }

    /// Runs a statement that was prepared, and collects its rows.
    pub(crate) async fn query_named(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>> {
        self.answer(self.client().query(statement, &values_of(parameters))).await.map_err(error_of)
    }

    /// Runs a statement that was prepared, and counts the rows it changed.
    pub(crate) async fn execute_named(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
    ) -> Result<u64> {
        self.answer(self.client().execute(statement, &values_of(parameters))).await.map_err(error_of)
    }

    /// Runs one statement and gives its rows as they are read. Who gives up reading them must [`spoil`](Self::spoil) the connection.
    pub(crate) async fn stream(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<RowStream> {
        let parameters = parameters.iter().map(|(value, data_type)| (*value, data_type.clone()));
        self.answer(self.client().query_typed_raw(sql, parameters)).await.map_err(error_of)
    }

    /// The same of a statement that was prepared.
    pub(crate) async fn stream_of(
        &self,
        statement: &Statement,
        parameters: &[Parameter<'_>],
    ) -> Result<RowStream> {
        let values = parameters.iter().map(|(value, _)| *value);
        self.answer(self.client().query_raw(statement, values)).await.map_err(error_of)
    }

    /// Runs one statement and counts the rows it changed.
    pub(crate) async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64> {
        let executed = if self.keeps_statements && !parameters.is_empty() {
            self.answer(async {
                let statement = self.client().prepare_typed_cached(sql, &types_of(parameters)).await?;
                self.client().execute(&statement, &values_of(parameters)).await
            })
            .await
        } else {
            self.answer(self.client().execute_typed(sql, parameters)).await
        };
        executed.map_err(error_of)
    }

    /// Prepares a statement, where statements are kept: a call that has to prepare first would be sent behind those that follow it.
    pub(crate) async fn prepare(&self, sql: &str, types: &[Type]) -> Result<()> {
        if self.keeps_statements {
            self.answer(self.client().prepare_typed_cached(sql, types)).await.map_err(error_of)?;
        }
        Ok(())
    }

    /// A statement that has a name as long as it lives. It must end within its transaction: behind a pooler, another client may use the
    /// server's connection then, and the same name.
    pub(crate) async fn named(&self, sql: &str, types: &[Type]) -> Result<Statement> {
        self.answer(self.client().prepare_typed(sql, types)).await.map_err(error_of)
    }

    /// Begins a COPY. The statement's name is given up at once. The sink must be [finished](Self::finish); dropped, it fails the COPY.
    ///
    /// A COPY that is refused before its first row takes the connection with it: the driver ends it a second time, and the server's answer to that
    /// would be taken for the next call's.
    pub(crate) async fn copy_in(&self, statement: Statement) -> Result<Pin<Box<CopyInSink<Bytes>>>> {
        match self.answer(self.client().copy_in(&statement)).await {
            Ok(sink) => Ok(Box::pin(sink)),
            Err(error) => {
                self.spoil();
                self.out_of_step.store(true, Ordering::Relaxed);
                let error = error_of(error);
                // Policies that came since the table was described.
                Err(match error.kind() {
                    ErrorKind::Unsupported => Error::new(ErrorKind::Statement, error.message())
                        .with_code(RESHAPED)
                        .with_source(error),
                    _ => error,
                })
            }
        }
    }

    /// Whether nothing more can be asked over it, not even to go back.
    pub(crate) fn is_out_of_step(&self) -> bool {
        self.out_of_step.load(Ordering::Relaxed)
    }

    /// Ends a COPY, and counts its rows.
    pub(crate) async fn finish(&self, mut sink: Pin<Box<CopyInSink<Bytes>>>) -> Result<u64> {
        self.answer(sink.as_mut().finish()).await.map_err(error_of)
    }

    /// Sends statements without waiting for their end. What is sent after them runs after them. Their failure shows by that of the next
    /// statement in the transaction.
    pub(crate) fn send(&self, sql: &str) {
        // The first poll sends; nobody waits for the answer.
        let _ = self.client().batch_execute(sql).now_or_never();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.spoiled.load(Ordering::Relaxed)
            && let Some(client) = self.client.take()
        {
            // Closes it; the pool makes another one when it is needed.
            drop(Object::take(client));
        }
    }
}

/// A call whose answer has not come.
pub(crate) struct Unanswered<'a>(Option<&'a Connection>);

impl Unanswered<'_> {
    pub(crate) fn came(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            connection.spoil();
        }
    }
}

fn types_of(parameters: &[Parameter<'_>]) -> Vec<Type> {
    parameters.iter().map(|(_, data_type)| data_type.clone()).collect()
}

fn values_of<'a>(parameters: &[Parameter<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|(value, _)| *value).collect()
}

/// One call among several that go out together. Its answer is of a type that the caller keeps for it.
pub(crate) type Call<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Sends calls one behind the other without waiting in between, and waits for all answers. The first poll of each call sends it,
/// so they arrive in this order.
pub(crate) async fn pipeline(calls: Vec<Call<'_>>) {
    // join_all polls few futures in order; more of them it wakes one by one, though it first polls them in order, too.
    join_all(calls).await;
}

/// The answer of a call that was sent with others.
pub(crate) fn answered<T>(answer: Option<Result<T>>) -> Result<T> {
    answer.unwrap_or_else(|| Err(Error::new(ErrorKind::ConnectionLost, "the call was not answered")))
}
