//! The tier that processes share, behind a breaker: what it can't do is counted and logged, and never an error of a look-up.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::options::LONGEST;
use super::{Entry, Lease, SharedTier};
use crate::Result;

/// So many failures in a row open the breaker.
const FAILURES_MAX: u32 = 3;
/// How long the breaker stays open at first, and at most.
const OPEN_FIRST: Duration = Duration::from_millis(250);
const OPEN_MAX: Duration = Duration::from_secs(10);
/// The most keys in one call, and about the most bytes in one that fills: each has the whole time of a call, and what others ask doesn't wait
/// behind it for longer.
pub(super) const KEYS_MAX: usize = 1_000;
const BYTES_MAX: usize = 1 << 20;
/// The layout of entries.
const LAYOUT: u8 = 1;
const HEADER: usize = 1 + 4 + 8 + 1;

/// A shared tier, asked only while it answers.
#[derive(Debug)]
pub(crate) struct Shared {
    tier: Arc<dyn SharedTier>,
    /// Whose it is, for the log.
    table: String,
    timeout: Duration,
    lease: Duration,
    /// What the tokens of this loader's leases begin with, and how many there were.
    loader: String,
    tokens: AtomicU64,
    /// One for each kind of call: where Redis may be read and not filled, say, that is told of and not tried with each look-up.
    breakers: [Mutex<Breaker>; Kind::COUNT],
    pub(crate) errors: AtomicU64,
    /// Calls that were not made because the breaker was open.
    pub(crate) skipped: AtomicU64,
    /// How many tasks are under way that nobody waits for.
    background: watch::Sender<usize>,
}

#[derive(Debug)]
struct Breaker {
    failures: u32,
    open_until: Option<Instant>,
    wait: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { failures: 0, open_until: None, wait: OPEN_FIRST }
    }
}

/// A kind of call.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Lease,
    Fill,
    Release,
    Invalidate,
    Mark,
}

impl Kind {
    const COUNT: usize = Kind::Mark as usize + 1;

    fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Lease => "lease",
            Kind::Fill => "fill",
            Kind::Release => "release",
            Kind::Invalidate => "invalidate",
            Kind::Mark => "mark",
        }
    }

    /// What becomes of the application while such calls fail.
    fn meanwhile(self) -> &'static str {
        match self {
            Kind::Read => "reads go to the store",
            Kind::Lease | Kind::Fill => "it isn't filled",
            Kind::Release => "others wait for keys without need",
            Kind::Invalidate | Kind::Mark => "other processes see writes when entries expire",
        }
    }
}

/// Why a call came to nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Missed {
    NotMade,
    Failed,
}

/// What a call found the breaker to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Calling {
    Closed,
    /// Open, and this is the one call that finds out whether the cache is back.
    Probe,
}

impl Shared {
    pub(crate) fn new(tier: Arc<dyn SharedTier>, table: String, timeout: Duration, lease: Duration) -> Self {
        Shared {
            tier,
            table,
            timeout,
            lease,
            loader: Uuid::new_v4().simple().to_string(),
            tokens: AtomicU64::new(0),
            breakers: Default::default(),
            errors: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            background: watch::Sender::new(0),
        }
    }

    /// What a look-up reads, until when it may wait for it.
    pub(crate) async fn read(&self, names: &[String], until: Instant) -> Option<Vec<Option<Bytes>>> {
        let mut entries = Vec::with_capacity(names.len());
        for names in names.chunks(KEYS_MAX) {
            let read = self.call(Kind::Read, until, self.tier.read(names)).await.ok()?;
            entries.extend((read.len() == names.len()).then_some(read)?);
        }
        Some(entries)
    }

    /// A token for the leases of one look-up: another's, begun earlier, must not fill under it.
    pub(crate) fn token(&self) -> String {
        format!("{}-{}", self.loader, self.tokens.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes leases for a look-up, until when it may wait for them.
    pub(crate) async fn lease(
        self: &Arc<Self>,
        names: &[String],
        token: &str,
        until: Instant,
    ) -> Option<Vec<Lease>> {
        // Nobody is to wait for what can't be filled.
        if self.is_open(Kind::Fill) {
            return None;
        }
        let mut leases = Vec::with_capacity(names.len());
        for part in names.chunks(KEYS_MAX) {
            let taken = self.call(Kind::Lease, until, self.tier.lease(part, token, self.lease)).await;
            let taken_at_most = match taken {
                Ok(taken) if taken.len() == part.len() => {
                    leases.extend(taken);
                    continue;
                }
                Err(Missed::NotMade) => leases.len(),
                // It may have been carried out, and its answer been late.
                Ok(_) | Err(Missed::Failed) => leases.len() + part.len(),
            };
            if taken_at_most > 0 {
                let (names, token) = (names[..taken_at_most].to_vec(), token.to_owned());
                self.spawn(|shared| async move { shared.release(&names, &token).await });
            }
            return None;
        }
        Some(leases)
    }

    pub(crate) async fn fill(&self, entries: &[Entry], token: &str) {
        let mut rest = entries;
        while !rest.is_empty() {
            let (mut part, mut bytes) = (0, 0);
            while part < rest.len().min(KEYS_MAX) && (part == 0 || bytes < BYTES_MAX) {
                bytes += rest[part].value.len();
                part += 1;
            }
            let (now, later) = rest.split_at(part);
            if self.call(Kind::Fill, later_than_any(), self.tier.fill(now, token)).await.is_err() {
                let names: Vec<String> = now.iter().map(|entry| entry.key.clone()).collect();
                self.release(&names, token).await;
            }
            rest = later;
        }
    }

    pub(crate) async fn release(&self, names: &[String], token: &str) {
        for names in names.chunks(KEYS_MAX) {
            let _ = self.call(Kind::Release, later_than_any(), self.tier.release(names, token)).await;
        }
    }

    /// Does what nobody waits for.
    pub(crate) fn spawn<F>(self: &Arc<Self>, task: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        struct UnderWay(Arc<Shared>);

        impl Drop for UnderWay {
            fn drop(&mut self) {
                self.0.background.send_modify(|tasks| *tasks -= 1);
            }
        }

        self.background.send_modify(|tasks| *tasks += 1);
        let (under_way, task) = (UnderWay(Arc::clone(self)), task(Arc::clone(self)));
        tokio::spawn(async move {
            task.await;
            drop(under_way);
        });
    }

    /// Waits for what was [spawned](Self::spawn).
    pub(crate) async fn background_ended(&self) {
        // The sender lives in self, so waiting can't fail.
        let _ = self.background.subscribe().wait_for(|tasks| *tasks == 0).await;
    }

    pub(crate) async fn invalidate(&self, names: &[String], bar: Duration) {
        for names in names.chunks(KEYS_MAX) {
            let _ = self.call(Kind::Invalidate, later_than_any(), self.tier.invalidate(names, bar)).await;
        }
    }

    /// Sets a mark to a value that it never had.
    pub(crate) async fn mark(&self, name: String, time: Duration) {
        let value = Bytes::copy_from_slice(Uuid::new_v4().as_bytes());
        let _ = self.call(Kind::Mark, later_than_any(), self.tier.mark(&[(name, value)], time)).await;
    }

    /// Makes a call, unless the breaker is open or its time is over.
    async fn call<T>(
        &self,
        kind: Kind,
        until: Instant,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T, Missed> {
        let now = Instant::now();
        if until <= now {
            return Err(Missed::NotMade);
        }
        let Some(calling) = self.may_call(kind) else {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("barge.loader.shared_skipped").increment(1);
            return Err(Missed::NotMade);
        };
        let time = self.timeout.min(until - now);
        let problem = match tokio::time::timeout(time, call).await {
            Ok(Ok(value)) => {
                self.succeeded(kind);
                return Ok(value);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {time:?}"),
        };
        self.errors.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("barge.loader.shared_errors").increment(1);
        self.failed(kind, &problem, calling);
        Err(Missed::Failed)
    }

    /// `None` while the breaker is open.
    fn may_call(&self, kind: Kind) -> Option<Calling> {
        let mut breaker = self.breaker(kind);
        match breaker.open_until {
            Some(until) if Instant::now() < until => None,
            Some(_) => {
                // One call finds out whether it is back, while the others go on without it.
                breaker.open_until = Some(Instant::now() + self.timeout);
                Some(Calling::Probe)
            }
            None => Some(Calling::Closed),
        }
    }

    fn succeeded(&self, kind: Kind) {
        let mut breaker = self.breaker(kind);
        let was_open = breaker.open_until.is_some();
        *breaker = Breaker::default();
        drop(breaker);
        if was_open {
            tracing::info!(table = self.table, "the shared cache can {} again", kind.name());
            // What else failed may work again, too.
            for breaker in &self.breakers {
                let mut breaker = breaker.lock().unwrap_or_else(PoisonError::into_inner);
                breaker.open_until = breaker.open_until.map(|_| Instant::now());
            }
        }
    }

    fn is_open(&self, kind: Kind) -> bool {
        self.breaker(kind).open_until.is_some_and(|until| Instant::now() < until)
    }

    fn failed(&self, kind: Kind, problem: &str, calling: Calling) {
        let mut breaker = self.breaker(kind);
        let what = kind.name();
        breaker.failures = breaker.failures.saturating_add(1);
        if breaker.failures < FAILURES_MAX {
            tracing::debug!(table = self.table, problem, "the shared cache failed to {what}");
            return;
        }
        match (breaker.open_until, calling) {
            (None, _) => {
                let meanwhile = kind.meanwhile();
                let table = &self.table;
                tracing::warn!(
                    table,
                    problem,
                    "the shared cache failed to {what}: {meanwhile} until it can again"
                );
            }
            // It was under way when the breaker opened, and says nothing new.
            (Some(_), Calling::Closed) => return,
            (Some(_), Calling::Probe) => {}
        }
        breaker.open_until = Some(Instant::now() + breaker.wait);
        breaker.wait = (breaker.wait * 2).min(OPEN_MAX);
    }

    fn breaker(&self, kind: Kind) -> MutexGuard<'_, Breaker> {
        self.breakers[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For calls that nobody waits for: their own time bounds them.
fn later_than_any() -> Instant {
    Instant::now() + LONGEST
}

/// An entry of a shared cache, read.
#[derive(Debug, PartialEq)]
pub(crate) struct Framed<'a> {
    /// When the look-up that read it began, as microseconds since 1970.
    pub(crate) since: i64,
    /// The mark that was there then.
    pub(crate) mark: &'a [u8],
    pub(crate) rows: Vec<&'a [u8]>,
    /// A number between 0 and 1 that is this entry's alone, and the same for whoever reads it.
    pub(crate) draw: f64,
}

/// The bytes of an entry: the layout's number, a checksum over its name and what follows, the time, the mark, and each row with its length.
pub(crate) fn frame(name: &str, since: i64, mark: &[u8], rows: &[Bytes]) -> Bytes {
    let mark = &mark[..mark.len().min(u8::MAX as usize)];
    let length: usize = rows.iter().map(|row| row.len() + 4).sum();
    let mut bytes = BytesMut::with_capacity(HEADER + mark.len() + length);
    bytes.put_u8(LAYOUT);
    bytes.put_u32_le(0);
    bytes.put_i64_le(since);
    bytes.put_u8(mark.len() as u8);
    bytes.put_slice(mark);
    for row in rows {
        bytes.put_u32_le(row.len() as u32);
        bytes.put_slice(row);
    }
    let sum = checksum(name, &bytes[5..]);
    bytes[1..5].copy_from_slice(&sum.to_le_bytes());
    bytes.freeze()
}

/// Reads an entry; `None` where the bytes are not one of this name, or damaged.
pub(crate) fn unframe<'a>(name: &str, bytes: &'a [u8]) -> Option<Framed<'a>> {
    let (&layout, bytes) = bytes.split_first()?;
    let (sum, bytes) = bytes.split_first_chunk()?;
    if layout != LAYOUT || u32::from_le_bytes(*sum) != checksum(name, bytes) {
        return None;
    }
    let (since, bytes) = bytes.split_first_chunk()?;
    let (&length, bytes) = bytes.split_first()?;
    let (mark, mut bytes) = bytes.split_at_checked(length.into())?;
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (row, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rows.push(row);
        bytes = rest;
    }
    let draw = f64::from(u32::from_le_bytes(*sum)) / f64::from(u32::MAX);
    Some(Framed { since: i64::from_le_bytes(*since), mark, rows, draw })
}

fn checksum(name: &str, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(name.as_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// What clocks on other machines tell, as microseconds since 1970.
pub(crate) fn wall_clock() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_others_do_not() {
        let rows = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        for (mark, rows) in [(&b"mark"[..], &rows[..]), (b"", &[]), (b"", &rows[..1])] {
            let bytes = frame("tasks/7", 1_234, mark, rows);
            let framed = unframe("tasks/7", &bytes).unwrap();
            assert_eq!((framed.since, framed.mark), (1_234, mark));
            assert!(framed.rows.iter().eq(rows) && (0.0..=1.0).contains(&framed.draw));
            assert_eq!(unframe("tasks/8", &bytes), None, "another key's");
            for end in 0..bytes.len() {
                assert_eq!(unframe("tasks/7", &bytes[..end]), None, "cut off");
            }
            for place in 0..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[place] ^= 0x10;
                assert_eq!(unframe("tasks/7", &damaged), None, "damaged at {place}");
            }
        }
    }

    /// A tier that never answers, or only what it is read.
    #[derive(Debug)]
    struct Silent {
        may_be_read: bool,
    }

    #[async_trait::async_trait]
    impl SharedTier for Silent {
        async fn read(&self, names: &[String]) -> Result<Vec<Option<Bytes>>> {
            match self.may_be_read {
                true => Ok(vec![None; names.len()]),
                false => std::future::pending().await,
            }
        }

        async fn lease(&self, _: &[String], _: &str, _: Duration) -> Result<Vec<Lease>> {
            std::future::pending().await
        }

        async fn fill(&self, _: &[Entry], _: &str) -> Result<()> {
            std::future::pending().await
        }

        async fn release(&self, _: &[String], _: &str) -> Result<()> {
            std::future::pending().await
        }

        async fn invalidate(&self, _: &[String], _: Duration) -> Result<()> {
            std::future::pending().await
        }

        async fn mark(&self, _: &[(String, Bytes)], _: Duration) -> Result<()> {
            std::future::pending().await
        }

        async fn close(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_fail_together_open_the_breaker_once() {
        let time = Duration::from_millis(100);
        let tier = Silent { may_be_read: false };
        let (shared, names) = (Shared::new(Arc::new(tier), "tasks".into(), time, time), ["a".to_owned()]);
        futures::future::join_all((0..20).map(|_| shared.read(&names, later_than_any()))).await;
        assert_eq!(shared.breaker(Kind::Read).wait, OPEN_FIRST * 2, "for the first time");
        assert_eq!((shared.errors.load(Ordering::Relaxed), shared.skipped.load(Ordering::Relaxed)), (20, 0));
        tokio::time::sleep(OPEN_FIRST).await;
        futures::future::join_all((0..20).map(|_| shared.read(&names, later_than_any()))).await;
        assert_eq!(shared.breaker(Kind::Read).wait, OPEN_FIRST * 4, "a probe failed");
        assert_eq!((shared.errors.load(Ordering::Relaxed), shared.skipped.load(Ordering::Relaxed)), (21, 19));
    }

    #[tokio::test(start_paused = true)]
    async fn what_works_goes_on_while_other_calls_fail() {
        let time = Duration::from_millis(10);
        let tier = Silent { may_be_read: true };
        let shared = Arc::new(Shared::new(Arc::new(tier), "tasks".into(), time, time));
        let (names, until) = (["a".to_owned()], later_than_any());
        for _ in 0..20 {
            assert!(shared.read(&names, until).await.is_some());
            assert!(shared.lease(&names, "token", until).await.is_none());
            shared.background_ended().await;
        }
        // Three leases, each of which may have been taken and so is given back.
        assert_eq!((shared.errors.load(Ordering::Relaxed), shared.skipped.load(Ordering::Relaxed)), (6, 17));
    }
}
