//! How often and how long to try again.

use std::time::Duration;

use tokio::time::Instant;

use crate::{Error, ErrorKind, Result};

/// When a failed flush or transaction is tried again: exponential backoff with full jitter, bounded in time.
///
/// Only [retryable](Error::is_retryable) errors are: a lock held by another connection, a deadlock, a lost connection.
///
/// Nobody waits in silence: the first retry of a flush, and then one about every ten seconds, is logged as a warning that says what is waited
/// for, since when, and when it ends. A transaction of [`Database::retry`](crate::Database::retry) is logged only once it
/// has waited for ten seconds, for conflicts are nothing unusual there. An error that ends the retries says how many there were.
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

    /// The attempts of a transaction: its first conflicts are not worth a warning.
    pub(crate) fn start(&self) -> Attempts<'_> {
        Attempts {
            retry: self,
            failed_since: None,
            bound: self.first_wait,
            warn_after: WARN_EVERY,
            retries: 0,
        }
    }

    /// The attempts of a flush.
    pub(crate) fn start_flush(&self) -> Attempts<'_> {
        Attempts { warn_after: Duration::ZERO, ..self.start() }
    }
}

/// How often somebody is told that a call still waits.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// The attempts of one call.
pub(crate) struct Attempts<'a> {
    retry: &'a Retry,
    failed_since: Option<Instant>,
    bound: Duration,
    /// How long it will have waited when a warning is due.
    warn_after: Duration,
    pub(crate) retries: u32,
}

impl Attempts<'_> {
    /// Waits before the next attempt. `Err` gives the error back where there is none.
    pub(crate) async fn next(&mut self, error: Error) -> Result<()> {
        if !error.is_retryable() {
            return Err(error);
        }
        let waited = self.failed_since.get_or_insert_with(Instant::now).elapsed();
        let wait = self.bound.mul_f64(rand::random::<f64>());
        let attempts = self.retries + 1;
        if self.retry.limit.is_zero() || waited + wait > self.retry.limit {
            return Err(if attempts > 1 {
                error.context(format!("gave up after {attempts} attempts in {}", readable(waited)))
            } else {
                error
            });
        }
        let (waiting, left) = (readable(waited), readable(self.retry.limit - waited));
        if waited >= self.warn_after {
            self.warn_after = waited + WARN_EVERY;
            tracing::warn!(%error, attempts, "trying again: waiting for {waiting}, giving up in {left}");
        } else {
            tracing::debug!(%error, attempts, "trying again: waiting for {waiting}, giving up in {left}");
        }
        self.bound = (self.bound * 2).min(self.retry.max_wait);
        self.retries += 1;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// A time as people write it: `250 ms`, `12.3 s`.
fn readable(time: Duration) -> String {
    match time.as_millis() {
        milliseconds @ ..1_000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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
        let attempts = attempts.retries + 1;
        let message = format!("gave up after {attempts} attempts in {}: locked", readable(started.elapsed()));
        assert_eq!(error.to_string(), message);
    }

    /// The messages of warnings, and their errors.
    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }

        fn event(&self, event: &tracing::Event<'_>) {
            struct Fields(String);
            impl tracing::field::Visit for Fields {
                fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    self.0 += &format!("{field}={value:?}; ");
                }
            }
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// What is logged while one call fails until it gives up.
    async fn warnings_of(mut attempts: Attempts<'_>) -> Vec<String> {
        let warnings = Warnings::default();
        let guard = tracing::subscriber::set_default(warnings.clone());
        while attempts.next(Error::new(ErrorKind::Busy, "the file is locked")).await.is_ok() {}
        drop(guard);
        std::mem::take(&mut warnings.0.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_says_so_at_once_and_every_ten_seconds() {
        let retry = Retry::default();
        let flush = warnings_of(retry.start_flush()).await;
        assert!((5..=6).contains(&flush.len()), "60 s: {flush:#?}");
        assert!(flush[0].contains("waiting for 0 ms, giving up in 60.0 s"), "{}", flush[0]);
        assert!(flush[0].contains("error=the file is locked; attempts=1;"), "{}", flush[0]);
        // Attempts are a second apart at most.
        assert!(
            ["10.", "11."].iter().any(|s| flush[1].contains(&format!("waiting for {s}"))),
            "{}",
            flush[1]
        );
        let transaction = warnings_of(retry.start()).await;
        assert_eq!(transaction.len(), flush.len() - 1, "not at once: {transaction:#?}");
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
