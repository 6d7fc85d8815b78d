//! What became of the rows of one flush, and the receipts that ask.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use arrow::array::{Array, Int64Array};

use crate::engine::answer::{Cell, Ticket};
use crate::store::Outcome;
use crate::{Error, ErrorKind, Result};

/// The answers of one flush, by arrival number.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Each row's outcome; empty where no receipt was kept. A rejected row's place holds anything.
    pub(crate) outcomes: Vec<Option<Outcome>>,
    /// Rejected rows, by arrival number, ascending.
    pub(crate) rejected: Vec<(u32, Error)>,
    /// Keys that the database drew, by arrival number; empty where there are none.
    pub(crate) generated: Vec<Option<i64>>,
    /// Why rows that were not rejected have no outcome, where it could not be told.
    pub(crate) untold: Option<Error>,
}

impl Answers {
    pub(crate) fn new(rows: u32, outcomes: bool) -> Self {
        let outcomes = if outcomes { vec![None; rows as usize] } else { Vec::new() };
        Answers { outcomes, rejected: Vec::new(), generated: Vec::new(), untold: None }
    }

    pub(crate) fn set(&mut self, arrival: u32, outcome: Outcome) {
        if let Some(place) = self.outcomes.get_mut(arrival as usize) {
            *place = Some(outcome);
        }
    }

    pub(crate) fn set_generated(&mut self, arrival: u32, keys: &Int64Array, row: usize, rows: u32) {
        if self.generated.is_empty() {
            self.generated = vec![None; rows as usize];
        }
        self.generated[arrival as usize] = keys.is_valid(row).then(|| keys.value(row));
    }

    pub(crate) fn reject(&mut self, arrival: u32, error: Error) {
        self.rejected.push((arrival, error));
    }

    /// Puts the rejected rows in order; each is there once.
    pub(crate) fn finish(&mut self) {
        self.rejected.sort_by_key(|(arrival, _)| *arrival);
    }

    fn get(&self, arrival: u32) -> Result<Outcome> {
        match self.rejected.binary_search_by_key(&arrival, |(arrival, _)| *arrival) {
            Ok(place) => Err(self.rejected[place].1.clone()),
            Err(_) => self.outcomes.get(arrival as usize).copied().flatten().ok_or_else(|| {
                // The flush counts receipts when it starts, and a receipt can't be made later.
                let not_kept = || Error::new(ErrorKind::Closed, "the row's outcome was not kept");
                self.untold.clone().unwrap_or_else(not_kept)
            }),
        }
    }

    fn key(&self, arrival: u32) -> Option<i64> {
        self.generated.get(arrival as usize).copied().flatten()
    }
}

/// Awaited to learn one row's [`Outcome`], or why it was rejected.
///
/// Dropping it cancels nothing: the row goes its way, and the writer's [`Report`](crate::Report) accounts for it. Receipts
/// that are kept until the flush starts may cost it a statement more, which finds out what was there before.
pub struct Receipt(Ticket<Answers>);

impl Receipt {
    #[inline]
    pub(crate) fn new(cell: &Arc<Cell<Answers>>, arrival: u32) -> Self {
        Receipt(Ticket::new(Arc::clone(cell), arrival))
    }

    /// Waits for the outcome and the row's key, where the database drew it or the record has a `generated` key.
    ///
    /// # Errors
    /// Why the row was rejected.
    pub async fn with_key(mut self) -> Result<(Outcome, Option<i64>)> {
        self.0.answered().await;
        match self.0.cell().get() {
            Some(answers) => Ok((answers.get(self.0.index)?, answers.key(self.0.index))),
            None => Err(Error::new(ErrorKind::Closed, "the row was not answered")),
        }
    }
}

impl Future for Receipt {
    type Output = Result<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let index = self.0.index;
        let answers = ready!(self.0.poll_answers(context));
        Poll::Ready(answers.get(index))
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt").field("row", &self.0.index).finish_non_exhaustive()
    }
}

/// Awaited to learn the outcomes of a record batch's rows, which may have gone into several flushes.
///
/// Dropping it cancels nothing; the writer's [`Report`](crate::Report) accounts for the rows.
#[derive(Default)]
pub struct BatchReceipt(Vec<(Ticket<Answers>, u32)>);

impl BatchReceipt {
    /// Adds `rows` rows from an arrival number on.
    pub(crate) fn push(&mut self, cell: &Arc<Cell<Answers>>, first: u32, rows: u32) {
        self.0.push((Ticket::new(Arc::clone(cell), first), rows));
    }

    /// Waits, and calls back with the place of each rejected row in the batch and its error.
    pub async fn rejected(self, mut rejected: impl FnMut(u64, &Error)) {
        let mut start = 0;
        for (mut ticket, rows) in self.0 {
            ticket.answered().await;
            let range = ticket.index..ticket.index + rows;
            for (arrival, error) in ticket.cell().get().iter().flat_map(|answers| &answers.rejected) {
                if range.contains(arrival) {
                    rejected(start + u64::from(arrival - ticket.index), error);
                }
            }
            start += u64::from(rows);
        }
    }

    /// Waits for every row's outcome, or why it was rejected, in the batch's order.
    pub async fn outcomes(self) -> Vec<Result<Outcome>> {
        let mut outcomes = Vec::new();
        for (mut ticket, rows) in self.0 {
            ticket.answered().await;
            let answers = ticket.cell().get();
            outcomes.extend((ticket.index..ticket.index + rows).map(|arrival| match answers {
                Some(answers) => answers.get(arrival),
                None => Err(Error::new(ErrorKind::Closed, "the row was not answered")),
            }));
        }
        outcomes
    }
}

impl std::fmt::Debug for BatchReceipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchReceipt")
            .field("rows", &self.0.iter().map(|(_, rows)| rows).sum::<u32>())
            .finish()
    }
}
