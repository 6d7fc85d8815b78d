//! What is served while the store can't be asked: what memory still keeps of keys whose time is over.

use std::sync::PoisonError;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::counts::count;
use super::round::{Asked, Round};
use super::source::Found;
use super::tiers::Tiers;
use crate::engine::loader::{LoaderKey, LoaderValue};
use crate::{Error, ErrorKind, Requests, Result};

/// For this part of the time that a look-up may take the store is waited for, where something is kept that may be served in its place.
const STALE_PART: u32 = 10;
/// After it failed so, it is not asked for so long about keys of which something is kept.
const AWAY_FOR: Duration = Duration::from_secs(1);

/// Why a key without an entry had less time than a look-up may take.
fn beside_stale(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Timeout => error.context(
            "a tenth of the time was waited, for the sake of keys beside it that are served expired",
        ),
        _ => error,
    }
}

impl<K: LoaderKey, V: LoaderValue> Tiers<K, V> {
    /// Looks keys up. If the store can't be asked, those with an expired entry that may be served are answered with it at once. Gives the result of the
    /// other keys, and their places.
    pub(super) async fn read_or_serve_stale(
        &self,
        round: &mut Round<'_, K, V>,
        places: &[usize],
        rows: bool,
    ) -> (Result<Vec<Result<Found<V>>>>, Vec<usize>) {
        let keys = round.keys;
        let keys_of = |places: &[usize]| {
            Requests::new(places.iter().map(|&place| keys[place].clone()).collect::<Vec<K>>())
        };
        let stale = self.stale_of(round, places);
        if stale.is_empty() {
            return (self.look_up(keys_of(places), rows, round.until, round.calls).await, places.to_vec());
        }
        let soon = || round.until.min(Instant::now() + self.retry.limit / STALE_PART);
        let known_to_fail = self.is_away();
        let tried = match known_to_fail {
            true => Err(Error::new(ErrorKind::ConnectionLost, "the store could not be asked a moment ago")),
            false => {
                let look_up = self.look_up_once(keys_of(places), rows, round.until, round.calls);
                let late = |_| Err(Error::new(ErrorKind::Timeout, "the store didn't answer in time"));
                tokio::time::timeout_at(soon(), look_up).await.unwrap_or_else(late)
            }
        };
        let error = match tried {
            Err(error) if error.is_whole() => error,
            tried => return (tried, places.to_vec()),
        };
        if !known_to_fail {
            let keys = stale.len();
            let table = self.source.table();
            tracing::warn!(%error, table, keys, "the store can't be asked: what is kept of keys is served, though its time is over");
            self.set_away(Some(Instant::now() + AWAY_FOR));
        }
        count(&self.counts.stale, stale.len());
        let left: Vec<usize> = places.iter().copied().filter(|place| !stale.contains_key(place)).collect();
        // The answers of the others wait for those of which nothing is kept.
        let found = match left.is_empty() {
            true => Ok(Vec::new()),
            false => self.look_up(keys_of(&left), rows, soon(), round.calls).await.map_err(beside_stale),
        };
        if error.kind() == ErrorKind::Timeout {
            // It may be slow and not away: then the answer comes in the background.
            round.due.extend(stale.keys());
        }
        stale.into_iter().for_each(|(place, value)| round.answers[place] = Some(Ok(value)));
        (found, left)
    }

    pub(super) fn serves_stale(&self) -> bool {
        self.options.as_ref().is_some_and(|options| !options.stale.is_zero())
    }

    /// What is kept of keys whose time is over, and may be served while the store can't be asked.
    fn stale_of(&self, round: &Round<'_, K, V>, places: &[usize]) -> HashMap<usize, Option<V>> {
        let Some(local) = self.local.as_ref().filter(|_| self.serves_stale()) else { return HashMap::new() };
        let now = Instant::now();
        // What is read anew is served meanwhile, and may take its time.
        let waits = |place: &&usize| round.asked[**place] == Asked::Loaded;
        let kept = |&place: &usize| Some((place, local.get_stale(&round.keys[place], now)?.value.clone()));
        places.iter().filter(waits).filter_map(kept).collect()
    }

    /// Whether the store is known to be away, where something else may be served meanwhile.
    pub(crate) fn is_away(&self) -> bool {
        let until = self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) fn set_away(&self, until: Option<Instant>) {
        *self.away_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
