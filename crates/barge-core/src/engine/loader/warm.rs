//! Filling a loader's caches before anybody asks.

use std::time::Duration;

use tokio::time::Instant;

use super::{Loader, LoaderKey, LoaderValue};
use crate::cache::counts::count;
use crate::{Error, ErrorKind, Result, Sql};

/// How fast to warm, and who is told.
pub struct WarmOptions {
    /// Keys in one look-up, but no more than a second's; at least 1. Defaults to 1,000.
    pub batch: usize,
    /// The most keys a second; `None` goes as fast as the store answers. Defaults to 10,000.
    pub per_second: Option<u32>,
    /// The most keys that [`Loader::warm_query`] takes from its query. Defaults to 1,000,000.
    pub query_max_keys: usize,
    /// Told after each look-up.
    pub progress: Option<Progress>,
}

/// Is told how far warming is.
pub type Progress = Box<dyn FnMut(&Warmed) + Send>;

impl WarmOptions {
    fn validate(&self) -> Result<()> {
        let nothing = [("per_second", self.per_second == Some(0)), ("batch", self.batch == 0)];
        match nothing.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => {
                let message = format!("{name} is 0: no key would ever be warmed");
                Err(Error::new(ErrorKind::InvalidConfig, message))
            }
            None => Ok(()),
        }
    }
}

impl Default for WarmOptions {
    fn default() -> Self {
        WarmOptions { batch: 1_000, per_second: Some(10_000), query_max_keys: 1_000_000, progress: None }
    }
}

impl std::fmt::Debug for WarmOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WarmOptions")
            .field("batch", &self.batch)
            .field("per_second", &self.per_second)
            .field("query_max_keys", &self.query_max_keys)
            .finish_non_exhaustive()
    }
}

/// What warming came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Warmed {
    /// Keys asked for.
    pub keys: u64,
    /// Of those, with something under them.
    pub found: u64,
    /// Of those, answered with an error.
    pub failed: u64,
    /// The time so far.
    pub elapsed: Duration,
}

impl<K: LoaderKey, V: LoaderValue> Loader<K, V> {
    /// Loads keys so that their rows are kept when they are asked for, at a bounded rate. A failure of a key is counted and stops nothing; dropping the
    /// future ends it.
    ///
    /// ```
    /// # use barge_core::{Loader, Requests, WarmOptions};
    /// # async fn warm(loader: Loader<i64, String>) -> barge_core::Result<()> {
    /// let options = WarmOptions { per_second: Some(5_000), ..WarmOptions::default() };
    /// let warmed = loader.warm(1..=20_000, options).await?;
    /// println!("{} of {} keys have a row", warmed.found, warmed.keys);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Closed`; `InvalidConfig` for no keys a second or a batch.
    pub async fn warm(&self, keys: impl IntoIterator<Item = K>, mut options: WarmOptions) -> Result<Warmed> {
        options.validate()?;
        let started = Instant::now();
        let mut warmed = Warmed::default();
        let mut keys = keys.into_iter().peekable();
        let rate = options.per_second.map_or(usize::MAX, |rate| rate as usize);
        let most = options.batch.min(rate);
        while keys.peek().is_some() {
            if let Some(rate) = options.per_second {
                let due = Duration::from_secs_f64(warmed.keys as f64 / f64::from(rate));
                tokio::time::sleep_until(started + due).await;
            }
            let batch: Vec<K> = keys.by_ref().take(most).collect();
            let asked = batch.len() as u64;
            for answer in self.ask(batch.into_iter()).await {
                match answer {
                    Ok(Some(_)) => warmed.found += 1,
                    Ok(None) => {}
                    Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
                    Err(_) => warmed.failed += 1,
                }
            }
            warmed.keys += asked;
            warmed.elapsed = started.elapsed();
            count(&self.inner.tiers.counts.warmed, asked as usize);
            if let Some(progress) = &mut options.progress {
                progress(&warmed);
            }
        }
        Ok(warmed)
    }

    /// Warms the keys of the rows that a query gives, as [`warm`](Loader::warm) does: in their order, so the most important first.
    ///
    /// The rows have the columns of the loader's key by name; other columns are passed over, and so are rows whose key holds NULL. The keys are read before
    /// the first is loaded, so that neither a connection nor a snapshot of the database is held while warming keeps to its rate;
    /// [`query_max_keys`](WarmOptions::query_max_keys) bounds how many they are.
    ///
    /// ```
    /// # use barge_core::{Loader, WarmOptions};
    /// # async fn warm(orders: Loader<i64, String>) -> barge_core::Result<()> {
    /// let newest = "SELECT id FROM orders ORDER BY created_at DESC LIMIT 50000";
    /// let warmed = orders.warm_query(newest, WarmOptions::default()).await?;
    /// # assert_eq!(warmed.failed, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the query reports; `MissingColumn` where it lacks a column of the key; `Unsupported` for a loader over a handler of your own; `InvalidConfig` for no keys a second or a batch; `Closed`.
    pub async fn warm_query(&self, sql: impl Into<Sql>, options: WarmOptions) -> Result<Warmed> {
        options.validate()?;
        let keys = self.inner.tiers.query_keys(sql.into(), options.query_max_keys).await?;
        self.warm(keys, options).await
    }
}
