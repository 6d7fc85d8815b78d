//! Any store, with failures injected by a plan.
//!
//! A plan is a list of faults: *at the nth call of this kind, do that*. It is made from a seed and prints itself, so that
//! a failed test can be run again. Nothing here decides by chance once the plan is made.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use barge_core::store::{
    Applied, AppliedRows, Capabilities, CommitError, Description, LookUp, Query, RecordStream, Step, Target,
    Token,
};
use barge_core::{Dialect, Error, ErrorKind, Result, Store, Table, TableName, Transaction};

/// A kind of call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// [`Store::begin`], and the begin inside [`Store::transact`].
    Begin,
    /// [`Transaction::claim`].
    Claim,
    /// [`Transaction::apply`], and each step inside [`Store::transact`].
    Apply,
    /// [`Transaction::apply_rows`].
    ApplyRows,
    /// [`Transaction::execute`], [`Transaction::over`] and [`Transaction::check_deferred_at_once`].
    Execute,
    /// [`Transaction::commit`], and the commit inside [`Store::transact`].
    Commit,
    /// [`Store::look_up`], [`Transaction::look_up`] and [`Store::query`].
    Read,
    /// [`Store::describe`] and [`Transaction::describe`].
    Describe,
}

/// What a fault does to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It fails before it does anything; a transaction goes on as it was before. A commit so failed was rolled back.
    Fail(ErrorKind),
    /// It fails with `ConnectionLost` and its transaction is gone. A commit so failed was rolled back.
    Disconnect,
    /// A commit does not happen, and nobody knows. Elsewhere as `Disconnect`.
    CutBefore,
    /// A commit happens, and nobody knows. Elsewhere as `Disconnect`.
    CutAfter,
    /// A commit happens, but only this long after it was answered that nobody knows. Elsewhere as `Disconnect`.
    CutLate(Duration),
    /// It takes this much longer.
    Delay(Duration),
    /// It panics: a bug in a store.
    Panic,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which calls.
    pub point: Point,
    /// Which of them, counted from 1 over the life of the store.
    pub nth: u64,
    /// What happens to it.
    pub effect: Effect,
}

/// Which calls fail, and how. `Display` prints it with its seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    seed: Option<u64>,
    faults: Vec<Fault>,
    whole: bool,
}

impl FaultPlan {
    /// A plan of faults chosen by hand.
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        FaultPlan { seed: None, faults: faults.into_iter().collect(), whole: false }
    }

    /// The same plan, but [`Store::transact`] calls the store's own `transact` as a whole, so that steps inside it don't
    /// fail: only its begin and its commit.
    #[must_use]
    pub fn whole_transactions(mut self) -> Self {
        self.whole = true;
        self
    }

    /// The same plan without faults at a point.
    #[must_use]
    pub fn sparing(mut self, point: Point) -> Self {
        self.faults.retain(|fault| fault.point != point);
        self
    }

    /// One to eight faults among the first calls, all that a writer should live through: errors worth another try, lost
    /// connections, commits cut off, delays. One seed always means one plan.
    pub fn from_seed(seed: u64) -> Self {
        FaultPlan::random(seed, &[ErrorKind::Busy, ErrorKind::Deadlock, ErrorKind::SerializationFailure])
    }

    /// As [`from_seed`](FaultPlan::from_seed), with failures among them that no retry helps against.
    pub fn from_seed_with_fatal(seed: u64) -> Self {
        let kinds = [ErrorKind::Busy, ErrorKind::DiskFull, ErrorKind::Io, ErrorKind::Permission];
        FaultPlan::random(seed, &kinds)
    }

    fn random(seed: u64, kinds: &[ErrorKind]) -> Self {
        let mut random = SplitMix(seed);
        let points = [
            Point::Begin,
            Point::Claim,
            Point::Apply,
            Point::Apply,
            Point::ApplyRows,
            Point::Commit,
            Point::Commit,
            Point::Read,
        ];
        let whole = random.below(4) == 0;
        let faults = (0..1 + random.below(8)).map(|_| {
            let point = points[random.below(points.len() as u64) as usize];
            let milliseconds = Duration::from_millis(1 + random.below(50));
            let effect = match random.below(8) {
                0 => Effect::Disconnect,
                1 | 2 => Effect::CutBefore,
                3 | 4 => Effect::CutAfter,
                5 => Effect::CutLate(milliseconds),
                6 => Effect::Delay(milliseconds),
                _ => Effect::Fail(kinds[random.below(kinds.len() as u64) as usize]),
            };
            Fault { point, nth: 1 + random.below(12), effect }
        });
        FaultPlan { seed: Some(seed), faults: faults.collect(), whole }
    }

    /// Its faults.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seed {
            Some(seed) => write!(f, "fault seed {seed}")?,
            None => f.write_str("faults by hand")?,
        }
        if self.whole {
            f.write_str(", transactions whole")?;
        }
        let mut separator = ": ";
        for Fault { point, nth, effect } in &self.faults {
            write!(f, "{separator}{point:?} {nth} {effect:?}")?;
            separator = "; ";
        }
        Ok(())
    }
}

/// A store over another that fails by a plan.
#[derive(Clone, Debug)]
pub struct FaultStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn Store>,
    plan: FaultPlan,
    calls: Mutex<HashMap<Point, u64>>,
    met: Mutex<Vec<Fault>>,
    tokens: Mutex<Vec<Token>>,
    /// Transactions that are open now, and the most that were.
    open: Mutex<(usize, usize)>,
}

impl FaultStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Store>, plan: FaultPlan) -> Self {
        FaultStore(Arc::new(Shared {
            inner,
            plan,
            calls: Mutex::default(),
            met: Mutex::default(),
            tokens: Mutex::default(),
            open: Mutex::default(),
        }))
    }

    /// Its plan.
    pub fn plan(&self) -> &FaultPlan {
        &self.0.plan
    }

    /// The faults that struck so far, in order.
    pub fn met(&self) -> Vec<Fault> {
        lock(&self.0.met).clone()
    }

    /// The tokens that were to be claimed so far, in order.
    pub fn tokens(&self) -> Vec<Token> {
        lock(&self.0.tokens).clone()
    }

    /// How many transactions were open at a time, at most, from the call that begins them.
    pub fn most_open(&self) -> usize {
        lock(&self.0.open).1
    }

    fn open(&self) -> Open {
        let mut open = lock(&self.0.open);
        open.0 += 1;
        open.1 = open.1.max(open.0);
        Open(self.clone())
    }

    /// Counts a call, and gives what is to happen to it.
    fn strike(&self, point: Point) -> Option<Effect> {
        let nth = {
            let mut calls = lock(&self.0.calls);
            let nth = calls.entry(point).or_default();
            *nth += 1;
            *nth
        };
        let fault = self.0.plan.faults.iter().find(|fault| fault.point == point && fault.nth == nth)?;
        lock(&self.0.met).push(fault.clone());
        Some(fault.effect.clone())
    }

    /// Lets a fault strike a call that is no commit.
    async fn pass(&self, point: Point) -> Result<(), Struck> {
        match self.strike(point) {
            None => Ok(()),
            Some(Effect::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Some(Effect::Fail(kind)) => Err(Struck { error: injected(kind, point), gone: false }),
            Some(Effect::Panic) => panic!("injected at {point:?}"),
            Some(_) => Err(Struck { error: injected(ErrorKind::ConnectionLost, point), gone: true }),
        }
    }

    /// Commits a transaction of the inner store, with a fault's effect. A late commit runs in a task of its own.
    async fn commit(&self, inner: Box<dyn Transaction>, effect: Option<Effect>) -> Result<(), CommitError> {
        match effect {
            None => inner.commit().await,
            Some(Effect::Delay(time)) => {
                tokio::time::sleep(time).await;
                inner.commit().await
            }
            Some(Effect::Fail(kind)) => {
                inner.rollback().await?;
                Err(CommitError::RolledBack(injected(kind, Point::Commit)))
            }
            Some(Effect::Disconnect) => {
                inner.rollback().await?;
                Err(CommitError::RolledBack(injected(ErrorKind::ConnectionLost, Point::Commit)))
            }
            Some(Effect::Panic) => panic!("injected at commit"),
            Some(Effect::CutBefore) => {
                inner.rollback().await?;
                Err(unknown(()))
            }
            Some(Effect::CutAfter) => {
                inner.commit().await?;
                Err(unknown(()))
            }
            Some(Effect::CutLate(time)) => {
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    // Nobody hears the answer: that is the fault.
                    let _ = inner.commit().await;
                });
                Err(unknown(()))
            }
        }
    }

    /// The inner store's own `transact`, with faults before it and at its commit.
    async fn transact_whole(
        &self,
        token: Option<&Token>,
        steps: &[Step],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        let _open = self.open();
        lock(&self.0.tokens).extend(token.cloned());
        self.pass(Point::Begin).await.map_err(Error::from)?;
        let effect = self.strike(Point::Commit);
        match effect {
            Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
            Some(Effect::CutAfter) | None => {}
            Some(_) => {
                return self.transact_by_steps(self.0.inner.begin().await?, token, steps, effect).await;
            }
        }
        let applied = self.0.inner.transact(token, steps).await?;
        match (effect, applied) {
            (Some(Effect::CutAfter), Some(applied)) => Err(unknown(applied)),
            (_, applied) => Ok(applied),
        }
    }

    /// Claims, applies and commits, as a store's own `transact` would.
    async fn transact_by_steps(
        &self,
        mut transaction: Box<dyn Transaction>,
        token: Option<&Token>,
        steps: &[Step],
        at_commit: Option<Effect>,
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        if let Some(token) = token
            && !transaction.claim(token).await?
        {
            return Ok(None);
        }
        let mut applied = Vec::with_capacity(steps.len());
        for step in steps {
            // Dropping the transaction rolls it back.
            applied.push(transaction.apply(step).await?);
        }
        match self.commit(transaction, at_commit).await {
            Ok(()) => Ok(Some(applied)),
            Err(error) => Err(error.with_applied(applied)),
        }
    }
}

/// Counts a transaction as open while it lives.
struct Open(FaultStore);

impl Drop for Open {
    fn drop(&mut self) {
        lock(&self.0.0.open).0 -= 1;
    }
}

/// A call that failed by plan.
struct Struck {
    error: Error,
    /// Whether it took its transaction with it.
    gone: bool,
}

impl From<Struck> for Error {
    fn from(struck: Struck) -> Self {
        struck.error
    }
}

#[async_trait]
impl Store for FaultStore {
    fn dialect(&self) -> Dialect {
        self.0.inner.dialect()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { commit_can_be_unknown: true, ..self.0.inner.capabilities() }
    }

    async fn describe(&self, table: &TableName) -> Result<Description> {
        self.pass(Point::Describe).await?;
        self.0.inner.describe(table).await
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.0.inner.tables().await
    }

    fn create_table_sql(&self, table: &Table) -> Result<String> {
        self.0.inner.create_table_sql(table)
    }

    fn check(&self, target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
        self.0.inner.check(target, batch)
    }

    async fn key_groups(&self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        self.0.inner.key_groups(target, keys).await
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let open = self.open();
        self.pass(Point::Begin).await?;
        let inner = self.0.inner.begin().await?;
        Ok(Box::new(FaultTransaction { store: self.clone(), inner: Some(inner), _open: open }))
    }

    async fn transact(
        &self,
        token: Option<&Token>,
        steps: &[Step],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        if self.0.plan.whole {
            return self.transact_whole(token, steps).await;
        }
        // The commit of a `FaultTransaction` strikes by itself.
        self.transact_by_steps(self.begin().await?, token, steps, None).await
    }

    async fn query(&self, query: Query) -> Result<RecordStream> {
        self.pass(Point::Read).await?;
        self.0.inner.query(query).await
    }

    async fn look_up(&self, look_up: LookUp) -> Result<RecordStream> {
        self.pass(Point::Read).await?;
        self.0.inner.look_up(look_up).await
    }

    async fn close(&self) -> Result<()> {
        self.0.inner.close().await
    }
}

struct FaultTransaction {
    store: FaultStore,
    /// `None` once a fault took it.
    inner: Option<Box<dyn Transaction>>,
    _open: Open,
}

impl FaultTransaction {
    async fn pass(&mut self, point: Point) -> Result<&mut Box<dyn Transaction>> {
        let store = self.store.clone();
        if let Err(struck) = store.pass(point).await {
            if struck.gone
                && let Some(inner) = self.inner.take()
            {
                inner.rollback().await?;
            }
            return Err(struck.error);
        }
        self.inner.as_mut().ok_or_else(gone)
    }
}

#[async_trait]
impl Transaction for FaultTransaction {
    async fn apply(&mut self, step: &Step) -> Result<Applied> {
        self.pass(Point::Apply).await?.apply(step).await
    }

    async fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        self.pass(Point::ApplyRows).await?.apply_rows(step).await
    }

    async fn apply_refused(&mut self, step: &Step, refused: &Error) -> Result<AppliedRows> {
        self.pass(Point::ApplyRows).await?.apply_refused(step, refused).await
    }

    async fn over(&mut self, query: &Query) -> Result<RecordBatch> {
        self.pass(Point::Execute).await?.over(query).await
    }

    async fn execute(&mut self, sql: &str) -> Result<u64> {
        self.pass(Point::Execute).await?.execute(sql).await
    }

    async fn check_deferred_at_once(&mut self) -> Result<()> {
        self.pass(Point::Execute).await?.check_deferred_at_once().await
    }

    async fn describe(&mut self, table: &TableName) -> Result<Description> {
        self.pass(Point::Describe).await?.describe(table).await
    }

    async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        self.inner.as_mut().ok_or_else(gone)?.key_groups(target, keys).await
    }

    async fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        self.pass(Point::Read).await?.look_up(look_up).await
    }

    async fn claim(&mut self, token: &Token) -> Result<bool> {
        lock(&self.store.0.tokens).push(token.clone());
        self.pass(Point::Claim).await?.claim(token).await
    }

    fn is_open(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.is_open())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), CommitError> {
        let inner = self.inner.take().ok_or_else(gone)?;
        self.store.commit(inner, self.store.strike(Point::Commit)).await
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        match self.inner.take() {
            Some(inner) => inner.rollback().await,
            None => Ok(()),
        }
    }
}

/// A small generator (SplitMix64), so that a seed means the same plan whatever the version of a library.
#[derive(Debug)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn injected(kind: ErrorKind, point: Point) -> Error {
    Error::new(kind, format!("injected at {point:?}"))
}

fn unknown<T>(applied: T) -> CommitError<T> {
    CommitError::Unknown { error: injected(ErrorKind::ConnectionLost, Point::Commit), applied }
}

fn gone() -> Error {
    Error::new(ErrorKind::ConnectionLost, "the transaction's connection is gone")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What the locks guard is whole after every statement, so a panic elsewhere leaves it sound.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_one_plan_and_prints_itself() {
        let plan = FaultPlan::from_seed(7);
        assert_eq!(plan, FaultPlan::from_seed(7));
        assert_ne!(plan, FaultPlan::from_seed(8));
        assert!(plan.to_string().starts_with("fault seed 7"), "{plan}");
    }
}
