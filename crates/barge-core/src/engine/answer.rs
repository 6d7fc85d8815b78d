//! One cell holds the answers of a whole batch; a ticket is the cell and a place in it. A row costs no channel and no
//! allocation.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

/// The answers of one batch, once there.
pub(crate) struct Cell<A> {
    answers: OnceLock<A>,
    /// Tickets that wait. Empty once the answers are there.
    wakers: Mutex<Vec<Waker>>,
}

impl<A> Default for Cell<A> {
    fn default() -> Self {
        Cell { answers: OnceLock::new(), wakers: Mutex::new(Vec::new()) }
    }
}

impl<A> Cell<A> {
    /// Answers, once; a second answer is ignored.
    pub(crate) fn answer(&self, answers: A) {
        if self.answers.set(answers).is_err() {
            return;
        }
        let wakers =
            std::mem::take(&mut *self.wakers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        for waker in wakers {
            waker.wake();
        }
    }

    /// The answers, if they are there.
    pub(crate) fn get(&self) -> Option<&A> {
        self.answers.get()
    }

    /// Waits for the answers. `place` remembers between polls which waker is this ticket's.
    fn poll(&self, place: &mut Option<usize>, context: &Context<'_>) -> Poll<&A> {
        if let Some(answers) = self.answers.get() {
            return Poll::Ready(answers);
        }
        let mut wakers = self.wakers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Looked at again under the lock: an answer given in between has taken the wakers already.
        if let Some(answers) = self.answers.get() {
            return Poll::Ready(answers);
        }
        match place.and_then(|place| wakers.get_mut(place)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                *place = Some(wakers.len());
                wakers.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// One row's claim on a cell.
pub(crate) struct Ticket<A> {
    cell: Arc<Cell<A>>,
    pub(crate) index: u32,
    place: Option<usize>,
}

impl<A> Ticket<A> {
    #[inline]
    pub(crate) fn new(cell: Arc<Cell<A>>, index: u32) -> Self {
        Ticket { cell, index, place: None }
    }

    pub(crate) fn cell(&self) -> &Arc<Cell<A>> {
        &self.cell
    }

    /// Waits for the batch's answers.
    pub(crate) fn poll_answers(&mut self, context: &Context<'_>) -> Poll<&A> {
        self.cell.poll(&mut self.place, context)
    }

    /// Waits for the batch's answers.
    pub(crate) fn answered(&mut self) -> impl Future<Output = ()> + '_ {
        Answered(self)
    }
}

struct Answered<'a, A>(&'a mut Ticket<A>);

impl<A> Future for Answered<'_, A> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.get_mut().0.poll_answers(context).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_ticket_sees_the_answer_whether_it_waited_or_came_late() {
        let cell = Arc::new(Cell::default());
        let mut early = Ticket::new(Arc::clone(&cell), 0);
        let mut late = Ticket::new(Arc::clone(&cell), 1);
        let waiting = tokio::spawn(async move {
            early.answered().await;
            early.cell().get().copied()
        });
        tokio::task::yield_now().await;
        cell.answer(7);
        cell.answer(8);
        assert_eq!(waiting.await.unwrap(), Some(7));
        late.answered().await;
        assert_eq!(cell.get(), Some(&7));
    }
}
