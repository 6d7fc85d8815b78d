//! The numbers a user sees of a writer or a batcher.

use std::time::Duration;

use crate::Error;

/// Why a flush started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlushReason {
    /// The buffer held `max_rows` rows, or what the adaptive cap allows.
    Rows,
    /// The buffer held `max_bytes` bytes.
    Bytes,
    /// The linger ended.
    Linger,
    /// There were rows, and the previous flush had ended; or enough of them to be flushed beside it, where a writer may.
    Idle,
    /// `flush` was called.
    Explicit,
    /// `close` was called, or the last handle was dropped.
    Close,
}

impl FlushReason {
    const ALL: [FlushReason; 6] = [
        FlushReason::Rows,
        FlushReason::Bytes,
        FlushReason::Linger,
        FlushReason::Idle,
        FlushReason::Explicit,
        FlushReason::Close,
    ];

    /// The reason's name as metrics write it.
    pub fn as_str(self) -> &'static str {
        match self {
            FlushReason::Rows => "rows",
            FlushReason::Bytes => "bytes",
            FlushReason::Linger => "linger",
            FlushReason::Idle => "idle",
            FlushReason::Explicit => "explicit",
            FlushReason::Close => "close",
        }
    }
}

/// What a writer or batcher did so far. `added = committed + rejected + buffered + in_flight`, at every moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Rows (or requests) accepted.
    pub added: u64,
    /// Rows that were flushed and did what they should, or found nothing to do.
    pub committed: u64,
    /// Rows that were answered with an error.
    pub rejected: u64,
    /// Of the committed, rows that the database left as it was: an update or delete that found no row, an insert-if-absent that found
    /// one.
    pub without_effect: u64,
    /// Rows that wait in the buffer.
    pub buffered: u64,
    /// Rows of the flushes that are under way.
    pub in_flight: u64,
    /// Flushes that ended.
    pub flushes: u64,
    /// The same by reason.
    pub flushes_by_reason: Vec<(FlushReason, u64)>,
    /// Rows that flushes could have held: the cap on rows, added up over the flushes.
    pub rows_allowed: u64,
    /// Statements that were run, without BEGIN and COMMIT; also those that an embedded database runs row by row.
    pub statements: u64,
    /// Calls of the database that the flushes took. What an embedded database runs row by row within a call counts once.
    pub round_trips: u64,
    /// Round trips that one for each row would have taken beyond those.
    pub round_trips_saved: u64,
    /// Attempts after the first, over all flushes.
    pub retries: u64,
    /// Flushes that failed as a whole.
    pub failed_flushes: u64,
    /// Time between the first row's arrival in a batch and the start of its flush, added up over the flushes.
    pub wait_in_buffer: Duration,
    /// Time in flushes, added up.
    pub flush_time: Duration,
    /// The cap on rows now: `max_rows`, or what the adaptive cap came to.
    pub cap: usize,
}

impl Statistics {
    /// Rows a flush, on average; 0 before the first.
    pub fn rows_per_batch(&self) -> f64 {
        ratio(self.committed + self.rejected, self.flushes)
    }

    /// Rows sent by rows allowed, between 0 and 1; 0 before the first flush.
    pub fn batch_efficiency(&self) -> f64 {
        ratio(self.committed + self.rejected, self.rows_allowed).min(1.0)
    }

    /// How many flushes started for a reason.
    pub fn flushes_for(&self, reason: FlushReason) -> u64 {
        self.flushes_by_reason.iter().find(|(other, _)| *other == reason).map_or(0, |(_, flushes)| *flushes)
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What one flush came to.
#[derive(Debug, Default)]
pub(crate) struct Flushed {
    pub(crate) committed: u64,
    pub(crate) rejected: u64,
    pub(crate) without_effect: u64,
    pub(crate) statements: u64,
    pub(crate) round_trips: u64,
    pub(crate) retries: u64,
    /// Whether somebody waited for the answers, who may have more to add now.
    pub(crate) awaited: bool,
    /// Why the batch as a whole failed.
    pub(crate) failure: Option<Error>,
    /// Why nothing more may be accepted.
    pub(crate) poison: Option<Error>,
}

/// What an engine gathers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Gathers {
    /// Rows, or requests.
    #[default]
    Rows,
    /// Keys to look up.
    Keys,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    gathers: Gathers,
    pub(crate) added: u64,
    pub(crate) in_flight: u64,
    totals: Statistics,
    by_reason: [u64; FlushReason::ALL.len()],
}

impl Counters {
    pub(crate) fn of(gathers: Gathers) -> Self {
        Counters { gathers, ..Counters::default() }
    }

    pub(crate) fn record(
        &mut self,
        flushed: &Flushed,
        reason: FlushReason,
        rows: usize,
        allowed: usize,
        waited: Duration,
        took: Duration,
    ) {
        let totals = &mut self.totals;
        totals.committed += flushed.committed;
        totals.rejected += flushed.rejected;
        totals.without_effect += flushed.without_effect;
        totals.flushes += 1;
        // Bytes may end a batch below the cap; a row counts as allowed only where it could have come.
        totals.rows_allowed += if reason == FlushReason::Bytes { rows } else { allowed.max(rows) } as u64;
        totals.statements += flushed.statements;
        totals.round_trips += flushed.round_trips;
        totals.round_trips_saved += (rows as u64).saturating_sub(flushed.round_trips);
        totals.retries += flushed.retries;
        totals.failed_flushes += u64::from(flushed.failure.is_some());
        totals.wait_in_buffer += waited;
        totals.flush_time += took;
        self.by_reason[reason as usize] += 1;
        self.in_flight -= rows as u64;
        metrics::histogram!("db.client.operation.duration").record(took.as_secs_f64());
        if self.gathers == Gathers::Keys {
            metrics::histogram!("barge.loader.batch.keys").record(rows as f64);
            metrics::histogram!("barge.loader.batch.wait").record(waited.as_secs_f64());
            return;
        }
        metrics::counter!("barge.flushes", "reason" => reason.as_str()).increment(1);
        metrics::counter!("barge.rows.committed").increment(flushed.committed);
        metrics::counter!("barge.rows.rejected").increment(flushed.rejected);
        metrics::counter!("barge.retries").increment(flushed.retries);
        metrics::histogram!("barge.batch.rows").record(rows as f64);
        metrics::histogram!("barge.batch.wait").record(waited.as_secs_f64());
    }

    /// Rows that were never flushed, answered with an error.
    pub(crate) fn abandon(&mut self, rows: u64) {
        self.totals.rejected += rows;
    }

    /// The rows of flushes that were dropped before they ended: answered with an error too.
    pub(crate) fn abandon_in_flight(&mut self) {
        let rows = std::mem::take(&mut self.in_flight);
        self.abandon(rows);
    }

    pub(crate) fn snapshot(&self, buffered: u64, cap: usize) -> Statistics {
        let by_reason = FlushReason::ALL.into_iter().map(|reason| (reason, self.by_reason[reason as usize]));
        Statistics {
            added: self.added,
            buffered,
            in_flight: self.in_flight,
            cap,
            flushes_by_reason: by_reason.collect(),
            ..self.totals.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_rows_sent() {
        let mut counters = Counters { added: 30, in_flight: 20, ..Counters::default() };
        let flushed =
            Flushed { committed: 18, rejected: 2, statements: 9, round_trips: 4, ..Flushed::default() };
        counters.record(&flushed, FlushReason::Idle, 20, 100, Duration::ZERO, Duration::ZERO);
        let statistics = counters.snapshot(10, 100);
        assert_eq!(statistics.added, statistics.committed + statistics.rejected + statistics.buffered);
        assert_eq!((statistics.rows_per_batch(), statistics.batch_efficiency()), (20.0, 0.2));
        assert_eq!((statistics.round_trips_saved, statistics.flushes_for(FlushReason::Idle)), (16, 1));
    }
}
