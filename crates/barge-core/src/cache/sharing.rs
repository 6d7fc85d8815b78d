//! What the shared cache has, what this process fills of the rest, and what it leaves to others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use tokio::time::Instant;

use super::counts::count;
use super::options::Cache;
use super::round::{Asked, Fills, Named, Round, Waiting};
use super::shared::{Framed, KEYS_MAX, Shared, frame, unframe};
use super::source::Found;
use super::tiers::Tiers;
use super::{Entry, Lease};
use crate::engine::loader::{LoaderKey, LoaderValue};

/// The first wait for another process that reads a key, and the longest.
const WAIT_FIRST: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(50);

impl<K: LoaderKey, V: LoaderValue> Tiers<K, V> {
    /// Asks the shared cache, and takes leases for what it doesn't have.
    pub(super) async fn ask_shared(
        &self,
        round: &mut Round<'_, K, V>,
        shared: &Arc<Shared>,
        options: &Cache,
    ) -> Waiting {
        let open = round.open();
        let keys: Vec<K> = open.iter().map(|&place| round.keys[place].clone()).collect();
        let names = match self.source.names(&keys) {
            Ok(names) => names,
            Err(error) => {
                tracing::debug!(%error, "the keys have no names in the shared cache, which is passed over");
                return Waiting::default();
            }
        };
        let named = open.into_iter().zip(names).map(|(place, name)| Named { place, name });
        let (bypassing, mut asking): (Vec<_>, Vec<_>) = named.partition(|key| self.was_written(round, key));
        count(&self.counts.bypasses, bypassing.len());
        let until = round.half_of_the_time();
        if !asking.is_empty() && self.read_shared(round, shared, options, &asking, until).await.is_none() {
            return Waiting::default();
        }
        asking.retain(|key| round.answers[key.place].is_none());
        let mut leasing = [asking.as_slice(), &bypassing].concat();
        leasing.sort_unstable_by_key(|key| key.place);
        if leasing.is_empty() {
            return Waiting::default();
        }
        let leased = self.lease(round, shared, options, [&leasing, &asking], until).await;
        let missed = asking.iter().filter(|key| round.answers[key.place].is_none()).count();
        count(&self.counts.shared_misses, missed);
        let Some((leases, waiting)) = leased else { return Waiting::default() };
        self.sort(round, leasing.into_iter().zip(leases), waiting)
    }

    /// Which keys this process reads, and which it waits for.
    fn sort(
        &self,
        round: &mut Round<'_, K, V>,
        leased: impl Iterator<Item = (Named, Lease)>,
        mut waiting: Waiting,
    ) -> Waiting {
        let mut spare = Waiting { token: waiting.token.clone(), ..Waiting::default() };
        for (key, lease) in leased {
            match lease {
                Lease::Granted if round.answers[key.place].is_some() => spare.granted.push(key),
                Lease::Granted => waiting.granted.push(key),
                _ if round.answers[key.place].is_some() => {}
                // What this process wrote must not come from another's look-up, which may be older.
                Lease::Held if self.was_written(round, &key) => {}
                // Another reads it anew already: then the shared cache has it soon.
                Lease::Held if self.leave_refresh(round, key.place) => {}
                Lease::Held => waiting.held.push(key),
                Lease::Barred => {}
            }
        }
        self.release(&spare);
        waiting
    }

    /// Whether the shared cache may have an older row of a key than this process wrote.
    fn was_written(&self, round: &Round<'_, K, V>, key: &Named) -> bool {
        let local = self.local.as_deref();
        local.is_some_and(|local| local.was_written(&round.keys[key.place], Instant::now()))
    }

    /// Answers a key that was only to be read anew with what lives of it, and leaves reading it to whoever asks next; whether it was so.
    fn leave_refresh(&self, round: &mut Round<'_, K, V>, place: usize) -> bool {
        if round.asked[place] != Asked::Refreshed {
            return false;
        }
        let kept = self.local.as_ref().and_then(|local| local.get(&round.keys[place], Instant::now()));
        let value = match kept {
            Some(kept) => Some(kept.value.clone()),
            None => round.live.get(&place).cloned(),
        };
        round.answers[place] = value.map(Ok);
        round.answers[place].is_some()
    }

    /// Answers the keys that the shared cache has. Gives the mark that stands there now; `None` where it can't be asked.
    async fn read_shared(
        &self,
        round: &mut Round<'_, K, V>,
        shared: &Shared,
        options: &Cache,
        keys: &[Named],
        until: Instant,
    ) -> Option<Bytes> {
        let mut names: Vec<String> = keys.iter().map(|key| key.name.clone()).collect();
        names.push(self.source.mark());
        let mut entries = shared.read(&names, until).await?;
        let mark = entries.pop()?.unwrap_or_default();
        let (now, wall) = (Instant::now(), (options.clock)());
        let mut hits = Vec::new();
        let (mut named, mut rows, mut absent) = (Vec::new(), Vec::new(), Vec::new());
        for (key, entry) in keys.iter().zip(&entries) {
            let Some(framed) = entry.as_ref().and_then(|entry| unframe(&key.name, entry)) else { continue };
            if framed.mark == mark
                && let Some(life) = Life::of(&framed, wall, options)
            {
                if framed.rows.is_empty() {
                    absent.push((key.place, life));
                    continue;
                }
                hits.push((key.place, life));
                named.push(&round.keys[key.place]);
                rows.push(framed.rows);
            }
        }
        for ((place, life), found) in hits.into_iter().zip(self.source.read(&named, &rows)) {
            if let Some(found) = found {
                self.take_shared(round, place, life, found, now);
            }
        }
        if self.local.as_ref().is_some_and(|local| !absent.is_empty() && local.believes_absence(now)) {
            for (place, life) in absent {
                let bytes = self.source.bytes(&round.keys[place], None);
                let nothing = Found { value: None, bytes, rows: None, is_own: true };
                self.take_shared(round, place, life, nothing, now);
            }
        }
        Some(mark)
    }

    /// Answers a key with a living entry, unless it is to be read anew and of an age for it.
    fn take_shared(
        &self,
        round: &mut Round<'_, K, V>,
        place: usize,
        life: Life,
        found: Found<V>,
        now: Instant,
    ) {
        let Found { value, bytes, .. } = found;
        if round.asked[place] == Asked::Refreshed && life.may_be_due {
            round.live.insert(place, value);
            return;
        }
        count(&self.counts.shared_hits, 1);
        round.keep(place, &value, bytes, Some(now.checked_sub(life.age).unwrap_or(now)));
        round.answers[place] = Some(Ok(value));
        // Where memory keeps entries, they say themselves when they are due.
        if life.is_due && self.local.as_ref().is_none_or(|local| !local.keeps()) {
            round.due.push(place);
        }
    }

    /// Waits until those who hold the leases have filled the entries, for as long as a lease. A lease that was given back, as of a key whose look-up
    /// failed, or that ran out, is taken over, and what is barred or was written here is read at once. So nobody waits longer than the other look-up
    /// takes.
    pub(super) async fn wait_for_others(
        &self,
        round: &mut Round<'_, K, V>,
        shared: &Arc<Shared>,
        options: &Cache,
        held: &[Named],
    ) {
        count(&self.counts.waits, held.len());
        let until = round.half_of_the_time().min(Instant::now() + options.lease);
        let mut wait = WAIT_FIRST;
        while Instant::now() < until {
            tokio::time::sleep_until(until.min(Instant::now() + wait)).await;
            wait = (wait * 2).min(WAIT_MAX);
            let open = held.iter().filter(|key| round.answers[key.place].is_none());
            // Written meanwhile, a key must not come from another's look-up.
            let (written, open): (Vec<Named>, Vec<Named>) =
                open.cloned().partition(|key| self.was_written(round, key));
            let mut reading: Vec<usize> = written.iter().map(|key| key.place).collect();
            let taken = self.take_over(round, shared, options, open, until, &mut reading).await;
            let Some(waiting) = taken else { return };
            reading.retain(|&place| round.answers[place].is_none());
            reading.sort_unstable();
            match reading.is_empty() {
                true => self.release(&waiting),
                false => self.read_store(round, &reading, &waiting).await,
            }
            if held.iter().all(|key| round.answers[key.place].is_some()) {
                return;
            }
        }
    }

    /// Asks for leases that others held, and for the entries. Adds the keys to read from the store now, and gives the leases taken over; `None` where the
    /// shared cache can't be asked.
    async fn take_over(
        &self,
        round: &mut Round<'_, K, V>,
        shared: &Arc<Shared>,
        options: &Cache,
        open: Vec<Named>,
        until: Instant,
        reading: &mut Vec<usize>,
    ) -> Option<Waiting> {
        if open.is_empty() {
            return Some(Waiting::default());
        }
        let (leases, mut waiting) = self.lease(round, shared, options, [&open, &open], until).await?;
        for (key, lease) in open.into_iter().zip(leases) {
            if lease != Lease::Held {
                reading.push(key.place);
            }
            if lease == Lease::Granted {
                waiting.granted.push(key);
            }
        }
        Some(waiting)
    }

    /// Takes leases of keys, then reads the entries of those that may come from others once more, so that one filled in between is found and not read again.
    /// `None` where the shared cache can't be asked.
    async fn lease(
        &self,
        round: &mut Round<'_, K, V>,
        shared: &Arc<Shared>,
        options: &Cache,
        [leasing, reading]: [&[Named]; 2],
        until: Instant,
    ) -> Option<(Vec<Lease>, Waiting)> {
        let token = shared.token();
        let names: Vec<String> = leasing.iter().map(|key| key.name.clone()).collect();
        let lease = shared.lease(&names, &token, until);
        let read = self.read_shared(round, shared, options, reading, until);
        let (leases, mark) = match names.len() <= KEYS_MAX {
            // Polled in this order, and so sent in it.
            true => join(lease, read).await,
            false => (lease.await, read.await),
        };
        let (leases, mut waiting) = (leases?, Waiting { token, ..Waiting::default() });
        let Some(mark) = mark else {
            let granted = leasing.iter().zip(leases).filter(|(_, lease)| *lease == Lease::Granted);
            waiting.granted = granted.map(|(key, _)| key.clone()).collect();
            self.release(&waiting);
            return None;
        };
        waiting.mark = mark;
        Some((leases, waiting))
    }

    /// Fills the shared cache in the background, and gives the other leases back.
    pub(super) fn fill(&self, fills: Fills, waiting: &Waiting) {
        let (Some(shared), Some(options)) = (&self.shared, &self.options) else { return };
        if waiting.granted.is_empty() {
            return;
        }
        let mut filled = vec![false; waiting.granted.len()];
        let entries: Vec<Entry> = fills
            .entries
            .iter()
            .map(|(granted, rows)| {
                filled[*granted] = true;
                let name = &waiting.granted[*granted].name;
                let value = frame(name, fills.since, &waiting.mark, rows);
                Entry { key: name.clone(), value, time: options.time_of(!rows.is_empty()) }
            })
            .collect();
        let left = waiting.granted.iter().zip(filled).filter(|(_, filled)| !filled);
        let left: Vec<String> = left.map(|(key, _)| key.name.clone()).collect();
        let token = waiting.token.clone();
        shared.spawn(|shared| async move {
            if !entries.is_empty() {
                shared.fill(&entries, &token).await;
            }
            if !left.is_empty() {
                shared.release(&left, &token).await;
            }
        });
    }

    pub(super) fn release(&self, waiting: &Waiting) {
        self.fill(Fills::default(), waiting);
    }
}

/// How old a living entry of the shared cache is.
struct Life {
    age: Duration,
    /// Whether it should be read anew.
    is_due: bool,
    /// The same by the least of all draws: memory draws one of its own.
    may_be_due: bool,
}

impl Life {
    /// `None` where it has ended. Each entry's end is drawn by its bytes, and so is the same for all processes.
    fn of(framed: &Framed<'_>, wall: i64, options: &Cache) -> Option<Self> {
        let age = wall.saturating_sub(framed.since);
        let skew = options.clock_skew.as_micros() as i64;
        let time = options.time_of(!framed.rows.is_empty()).as_micros() as f64;
        let lives = time * (1.0 - options.jitter * framed.draw);
        let least = time * (1.0 - options.jitter);
        (age >= -skew && (age as f64) < lives).then(|| Life {
            age: Duration::from_micros(age.max(0) as u64),
            is_due: options.refresh < 1.0 && age as f64 >= lives * options.refresh,
            may_be_due: age as f64 >= least * options.refresh,
        })
    }
}
