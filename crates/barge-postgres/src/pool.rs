//! Connections, as many as the pool allows, and what is sent over one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use barge_core::{Error, ErrorKind, Result};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use futures::FutureExt;
use futures::future::join_all;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{NoTls, Row, RowStream};

use crate::claim::Tries;
use crate::error::{closed, error_of, of_connecting};
use crate::options::{PostgresOptions, Without};
use crate::tls::Tls;

/// A value to bind, and the type it travels as.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// How long a connection that was idle has to answer before it is given up.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The connections of a store.
pub(crate) struct Pool {
    inner: deadpool_postgres::Pool,
    wait: Duration,
    statement_cache: usize,
    without: Without,
    name: String,
    tries: Arc<Tries>,
}

impl Pool {
    /// A pool that has made no connection yet.
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match options.tls()? {
            Tls::Off => Manager::from_config(options.config(), NoTls, recycling),
            Tls::Rustls(tls) => Manager::from_config(options.config(), tls, recycling),
        };
        let inner = deadpool_postgres::Pool::builder(manager)
            .runtime(Runtime::Tokio1)
            .max_size(options.pool_size)
            .wait_timeout(Some(options.pool_wait))
            .create_timeout(options.log_in_wait())
            .pre_recycle(check_idle(options.idle_check, options.max_lifetime))
            .build()
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, error.to_string()))?;
        Ok(Pool {
            inner,
            wait: options.pool_wait,
            statement_cache: options.statement_cache,
            without: options.without,
            name: options.name(),
            tries: Arc::default(),
        })
    }

    /// What the server lacks.
    pub(crate) fn without(&self) -> Without {
        self.without
    }

    /// The server's name for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A connection of the caller's own. Dropping it gives it back.
    pub(crate) async fn get(&self) -> Result<Connection> {
        match self.inner.get().await {
            Ok(client) => {
                let keeps_statements = client.statement_cache.size() < self.statement_cache;
                if self.statement_cache > 0 && !keeps_statements {
                    client.statement_cache.clear();
                }
                Ok(Connection {
                    client,
                    keeps_statements: self.statement_cache > 0,
                    without: self.without,
                    tries: Arc::clone(&self.tries),
                })
            }
            Err(PoolError::Backend(error)) => Err(of_connecting(error, &self.name)),
            Err(PoolError::Closed) => Err(closed()),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                let status = self.inner.status();
                let message = format!(
                    "all {} connections to {} were in use for {:?}: raise pool_size, or pool_wait",
                    status.max_size, self.name, self.wait
                );
                Err(Error::new(ErrorKind::Timeout, message))
            }
            Err(error) => Err(Error::new(ErrorKind::ConnectionLost, format!("{}: {error}", self.name))),
        }
    }

    /// Hands out no more connections, and waits until those in use are given back.
    pub(crate) async fn close(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + self.wait;
        self.inner.close();
        while self.inner.status().size > 0 {
            if tokio::time::Instant::now() > deadline {
                let message = format!("connections to {} were still in use after {:?}", self.name, self.wait);
                return Err(Error::new(ErrorKind::Busy, message));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

/// Tries a connection that was idle before it is used: a firewall or a server's restart may have ended it unseen.
fn check_idle(idle: Duration, lifetime: Option<Duration>) -> Hook {
    Hook::async_fn(move |client, metrics| {
        Box::pin(async move {
            if lifetime.is_some_and(|lifetime| metrics.age() > lifetime) {
                return Err(HookError::message("it is old"));
            }
            if metrics.last_used() < idle {
                return Ok(());
            }
            match tokio::time::timeout(ANSWER_WAIT, client.check_connection()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(HookError::Backend(error)),
                Err(_) => Err(HookError::message("it doesn't answer")),
            }
        })
    })
}

/// A connection, given back when it is dropped.
pub(crate) struct Connection {
    client: Object,
    keeps_statements: bool,
    without: Without,
    tries: Arc<Tries>,
}

/// Ends a connection whose query nobody reads any more; the server stops when it finds that it can send no further row. It is not asked to
/// cancel the query: PgBouncer 1.18 may close another client's connection then.
pub(crate) fn abandon(connection: Connection) {
    drop(Object::take(connection.client));
}

/// One call among several that go out together. Its answer is of a type that the caller keeps for it.
pub(crate) type Call<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Connection {
    /// What the server lacks.
    pub(crate) fn without(&self) -> Without {
        self.without
    }

    /// Which tokens were tried before, over any connection.
    pub(crate) fn tries(&self) -> &Tries {
        &self.tries
    }

    pub(crate) fn client(&self) -> &tokio_postgres::Client {
        &self.client
    }

    /// Runs statements that take no parameters and give no rows.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(error_of)
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
            return self.client.query_typed(sql, parameters).await;
        }
        let types: Vec<Type> = parameters.iter().map(|(_, data_type)| data_type.clone()).collect();
        let statement = self.client.prepare_typed_cached(sql, &types).await?;
        let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
        self.client.query(&statement, &values).await
    }

    /// Prepares a statement, where statements are kept: a call that has to prepare first would be sent behind those that follow it.
    pub(crate) async fn prepare(&self, sql: &str, types: &[Type]) -> Result<()> {
        if self.keeps_statements {
            self.client.prepare_typed_cached(sql, types).await.map_err(error_of)?;
        }
        Ok(())
    }

    /// Sends statements without waiting for their end. What is sent after them runs after them.
    pub(crate) fn send(&self, sql: &str) {
        // The first poll sends; nobody waits for the answer.
        let _ = self.client.batch_execute(sql).now_or_never();
    }

    /// Runs one statement and gives its rows as they are read.
    pub(crate) async fn stream(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<RowStream> {
        let parameters = parameters.iter().map(|(value, data_type)| (*value, data_type.clone()));
        self.client.query_typed_raw(sql, parameters).await.map_err(error_of)
    }

    /// Runs one statement and counts the rows it changed.
    pub(crate) async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64> {
        let executed = if self.keeps_statements && !parameters.is_empty() {
            let types: Vec<Type> = parameters.iter().map(|(_, data_type)| data_type.clone()).collect();
            let statement = self.client.prepare_typed_cached(sql, &types).await.map_err(error_of)?;
            let values: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|(value, _)| *value).collect();
            self.client.execute(&statement, &values).await
        } else {
            self.client.execute_typed(sql, parameters).await
        };
        executed.map_err(error_of)
    }
}

/// Sends calls one behind the other without waiting in between, and waits for all answers. The first poll of each call sends it,
/// so they arrive in this order.
pub(crate) async fn pipeline(calls: Vec<Call<'_>>) {
    // join_all polls few futures in order; more of them it wakes one by one, though it first polls them in order, too.
    join_all(calls).await;
}
