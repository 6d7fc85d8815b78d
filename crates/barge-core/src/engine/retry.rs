//! How often and how long to try again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, ErrorKind, Result};

/// When a failed flush or transaction is tried again: exponential backoff with full jitter, bounded in time.
///
/// Only [retryable](Error::is_retryable) errors are: a lock held by another connection, a deadlock, a lost connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// The bound of the first wait; each further one doubles it. The wait itself is drawn between zero and the bound.
    /// Defaults to 10 ms.
    pub first_wait: Duration,
    /// The largest bound of a wait. Defaults to 1 s.
    pub max_wait: Duration,
    /// How long to go on trying, from the first failure. Zero never tries again. Defaults to 60 s.
    pub limit: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            first_wait: Duration::from_millis(10),
            max_wait: Duration::from_secs(1),
            limit: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// Never tries again.
    pub fn never() -> Self {
        Retry { limit: Duration::ZERO, ..Retry::default() }
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// `InvalidConfig` where the first wait is zero while retries are on.
    pub fn validate(&self) -> Result<()> {
        if self.limit > Duration::ZERO && self.first_wait.is_zero() {
            let message =
                "retry.first_wait is zero; give it at least a millisecond, or set retry.limit to zero";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        Ok(())
    }

    pub(crate) fn start(&self) -> Attempts<'_> {
        Attempts { retry: self, failed_since: None, bound: self.first_wait, retries: 0 }
    }
}

/// The attempts of one call.
pub(crate) struct Attempts<'a> {
    retry: &'a Retry,
    failed_since: Option<Instant>,
    bound: Duration,
    pub(crate) retries: u32,
}

impl Attempts<'_> {
    /// Waits before the next attempt. `Err` gives the error back where there is none.
    pub(crate) async fn next(&mut self, error: Error) -> Result<()> {
        if !error.is_retryable() {
            return Err(error);
        }
        let failed_since = *self.failed_since.get_or_insert_with(Instant::now);
        let wait = self.bound.mul_f64(rand::random::<f64>());
        if self.retry.limit.is_zero() || failed_since.elapsed() + wait > self.retry.limit {
            let tried = self.retries + 1;
            return Err(if tried > 1 {
                error.context(format!("gave up after {tried} attempts"))
            } else {
                error
            });
        }
        tracing::debug!(error = %error, wait_ms = wait.as_millis() as u64, "trying again");
        self.bound = (self.bound * 2).min(self.retry.max_wait);
        self.retries += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn retries_end_at_the_limit_and_say_how_often() {
        let retry = Retry { limit: Duration::from_secs(5), ..Retry::default() };
        let mut attempts = retry.start();
        let started = Instant::now();
        let error = loop {
            if let Err(error) = attempts.next(Error::new(ErrorKind::Busy, "locked")).await {
                break error;
            }
        };
        assert!(started.elapsed() <= retry.limit);
        assert!(attempts.retries >= 5, "{} retries in 5 s", attempts.retries);
        assert!(error.to_string().starts_with("gave up after"), "{error}");
    }

    #[tokio::test]
    async fn what_cannot_succeed_is_not_tried_again() {
        let retry = Retry::default();
        let error = Error::new(ErrorKind::UniqueViolation, "there already");
        assert_eq!(retry.start().next(error).await.unwrap_err().kind(), ErrorKind::UniqueViolation);
        let busy = Error::new(ErrorKind::Busy, "locked");
        assert_eq!(Retry::never().start().next(busy).await.unwrap_err().to_string(), "locked");
    }
}
