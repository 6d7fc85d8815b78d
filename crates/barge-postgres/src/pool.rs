//! Connections, as many as the pool allows.

use std::sync::Arc;
use std::time::Duration;

use barge_core::{Error, ErrorKind, Result};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio_postgres::NoTls;

use crate::connection::{Connection, Shared};
use crate::error::{closed, of_connecting};
use crate::options::{PostgresOptions, Without};
use crate::tls::Tls;

/// How long a connection that was idle has to answer before it is given up.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The connections of a store.
pub(crate) struct Pool {
    inner: deadpool_postgres::Pool,
    wait: Duration,
    statement_cache: usize,
    without: Without,
    name: String,
    shared: Arc<Shared>,
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
            .post_create(plan_each_batch(options.statement_cache > 0))
            .pre_recycle(check_idle(options.idle_check, options.max_lifetime))
            .build()
            .map_err(|error| Error::new(ErrorKind::InvalidConfig, error.to_string()))?;
        Ok(Pool {
            inner,
            wait: options.pool_wait,
            statement_cache: options.statement_cache,
            without: options.without,
            name: options.name(),
            shared: Arc::default(),
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
                Ok(Connection::new(client, self.statement_cache > 0, self.without, Arc::clone(&self.shared)))
            }
            Err(PoolError::Backend(error)) => Err(of_connecting(error, &self.name)),
            Err(PoolError::Closed) => Err(closed()),
            Err(PoolError::Timeout(TimeoutType::Wait)) => {
                let status = self.inner.status();
                let message = format!(
                    "all {} connections to {} were in use for {:?}: raise pool_size, or pool_wait",
                    status.max_size, self.name, self.wait
                );
                Err(Error::new(ErrorKind::Busy, message))
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

/// Has kept statements planned for each batch: a plan made for a table while it was empty may take a hundred times as long later.
fn plan_each_batch(keeps_statements: bool) -> Hook {
    Hook::async_fn(move |client, _| {
        Box::pin(async move {
            match keeps_statements {
                true => client
                    .batch_execute("SET plan_cache_mode = force_custom_plan")
                    .await
                    .map_err(HookError::Backend),
                false => Ok(()),
            }
        })
    })
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
