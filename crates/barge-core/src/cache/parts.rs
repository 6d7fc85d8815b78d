//! Look-ups that fail over what one of their keys has.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use super::source::Found;
use super::tiers::Tiers;
use crate::engine::loader::{LoaderKey, LoaderValue};
use crate::{Error, Requests, Result};

/// The most look-ups by which keys with unreadable rows are told from others.
const PARTS_MAX: usize = 128;
/// After so many rows of a part couldn't be read its halves are looked up by themselves: each time, all its other rows are read again.
const NAMED_MAX: usize = 16;

/// The keys of a look-up that failed over what one of them has, on their way to their answers.
struct Parts<V> {
    answers: Vec<Option<Result<Found<V>>>>,
    /// What is to be looked up again; the larger parts first, so that where the limit is met most keys have their answers.
    open: VecDeque<Part>,
}

struct Part {
    /// The keys' places.
    places: Vec<usize>,
    /// How many keys were taken out of it.
    named: usize,
}

impl<V> Parts<V> {
    /// A look-up failed: without the key whose row it was, if the error says so, it may succeed; else its halves are looked up by themselves.
    fn failed(&mut self, Part { mut places, named }: Part, error: Error) {
        if let [place] = places[..] {
            self.answers[place] = Some(Err(error.without_row()));
            return;
        }
        let row = error.row().and_then(|row| usize::try_from(row).ok()).filter(|row| *row < places.len());
        if let Some(row) = row {
            self.answers[places.remove(row)] = Some(Err(error.without_row()));
        }
        if row.is_some() && named < NAMED_MAX {
            self.open.push_front(Part { places, named: named + 1 });
            return;
        }
        let half = places.split_off(places.len() / 2);
        let halves = [places, half].into_iter().filter(|places| !places.is_empty());
        self.open.extend(halves.map(|places| Part { places, named: 0 }));
    }
}

impl<K: LoaderKey, V: LoaderValue> Tiers<K, V> {
    /// Looks keys up, and in parts where that fails over what one of them has. What is answered when the time is over stays answered.
    pub(super) async fn look_up_once(
        &self,
        keys: Requests<K>,
        rows: bool,
        until: Instant,
        calls: &AtomicU64,
    ) -> Result<Vec<Result<Found<V>>>> {
        let found = self.ask_source(keys.clone(), rows, calls).await;
        let Err(error) = found else { return found };
        if !self.source.may_be_a_keys(&error) {
            return Err(error);
        }
        let mut rest = undecided(&error);
        let mut parts = Parts { answers: keys.iter().map(|_| None).collect(), open: VecDeque::new() };
        parts.failed(Part { places: (0..keys.len()).collect(), named: 0 }, error);
        for _ in 0..PARTS_MAX {
            let Some(part) = parts.open.pop_front() else { break };
            let asked: Vec<K> = part.places.iter().map(|&place| keys[place].clone()).collect();
            match tokio::time::timeout_at(until, self.ask_source(Requests::new(asked), rows, calls)).await {
                Ok(Ok(found)) => {
                    for (place, found) in part.places.into_iter().zip(found) {
                        parts.answers[place] = Some(found);
                    }
                }
                Ok(Err(error)) if self.source.may_be_a_keys(&error) => parts.failed(part, error),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    rest = self.late();
                    break;
                }
            }
        }
        Ok(parts.answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(rest.clone()))).collect())
    }
}

/// What is told of keys for which it wasn't found out whether their rows can be read.
fn undecided(error: &Error) -> Error {
    let first = error.clone().without_row();
    first.context("many of the rows that were asked for together can't be read, and it wasn't found out of this one; the first of them")
}
