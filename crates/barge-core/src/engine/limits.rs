//! When a buffer is flushed, and how large it may grow.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// What to do with a row when the buffer is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// Wait until there is room.
    #[default]
    Wait,
    /// Answer [`ErrorKind::BufferFull`] at once.
    Reject,
}

/// When a buffer is flushed, and how large it may grow.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// The most rows in one flush; a buffer of so many is full. At least 1. Defaults to 10,000.
    pub max_rows: usize,
    /// The most bytes in one flush, counted as the rows' Arrow size; a buffer of so many is full. One row may be larger: it is
    /// then flushed with what came before it. At most 1 GiB. Defaults to 8 MiB.
    pub max_bytes: usize,
    /// The longest wait for more rows before a flush starts. Zero starts one as soon as the previous has ended, which is
    /// what most applications want: batches grow by themselves while a flush is under way. `Duration::MAX` waits until the buffer is full, or
    /// somebody flushes. Defaults to zero.
    pub linger: Duration,
    /// How long a full flush should take at most. Where set, the cap on rows adapts between 1 and `max_rows`: a full flush
    /// within the target raises it by an eighth, one over the target cuts it to 0.7. Defaults to none: the cap is `max_rows`.
    pub latency_target: Option<Duration>,
    /// What to do with a row when the buffer is full. Defaults to waiting.
    pub when_full: WhenFull,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_rows: 10_000,
            max_bytes: 8 << 20,
            linger: Duration::ZERO,
            latency_target: None,
            when_full: WhenFull::Wait,
        }
    }
}

/// Arrow's text columns count their bytes in an `i32`; half of that leaves room for one large row.
const MAX_BYTES_LIMIT: usize = 1 << 30;
/// Rows of a batch are numbered by a `u32`; memory ends before.
pub(super) const MAX_ROWS_LIMIT: usize = 1 << 28;
/// Where an adaptive cap starts.
pub(super) const ADAPTIVE_START: usize = 1_000;

impl Limits {
    /// Whether the limits make sense.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting and its bounds.
    pub fn validate(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
        if !(1..=MAX_ROWS_LIMIT).contains(&self.max_rows) {
            return invalid(format!(
                "max_rows is {}; it must be between 1 and {MAX_ROWS_LIMIT}",
                self.max_rows
            ));
        }
        if !(1..=MAX_BYTES_LIMIT).contains(&self.max_bytes) {
            return invalid(format!(
                "max_bytes is {}; it must be between 1 and {MAX_BYTES_LIMIT}",
                self.max_bytes
            ));
        }
        if self.latency_target.is_some_and(|target| target.is_zero()) {
            return invalid("latency_target is zero; leave it out, or give the time a flush may take".into());
        }
        Ok(())
    }
}
