//! The seam between the loader and a cache that processes share.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Result;

/// A cache that processes share, such as Redis: bytes under keys, leases to fill them, and bars against filling them.
///
/// It is a help and never a truth: it may forget an entry, a lease, a bar or all of them at any time, lose a call that said it had
/// succeeded, and come back with the entries of an hour ago. What a [`Loader`](crate::Loader) promises rests on none of it. An
/// error of a call says that the shared cache can't be used now; it is counted and logged, and never reaches who asked
/// for a row.
///
/// All calls take many keys and send them together. Keys are printable text; values any bytes. A call may be dropped on its way.
///
/// # The life of an entry
/// `read` finds nothing; `lease` grants a lease to one of those who ask; whoever holds it reads the store and calls `fill`, which
/// sets the entry only where the lease still stands. `invalidate` removes the entry and puts a bar in the lease's place, so
/// that a fill whose look-up began before is void, and nobody gets a lease until the bar expires.
#[async_trait]
pub trait SharedTier: Send + Sync + fmt::Debug + 'static {
    /// The values under the keys, in the keys' order; `None` where there is none.
    ///
    /// # Errors
    /// What the connection reports.
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>>;

    /// Takes leases under a token, each for at most `time`. Keys may hold a value already: leases to refresh them are the same.
    ///
    /// # Errors
    /// What the connection reports.
    async fn lease(&self, keys: &[String], token: &str, time: Duration) -> Result<Vec<Lease>>;

    /// Sets the entries whose lease is still the token's, and ends those leases. Whether any was refused isn't told.
    ///
    /// # Errors
    /// What the connection reports.
    async fn fill(&self, entries: &[Entry], token: &str) -> Result<()>;

    /// Ends the token's leases without filling, as where the look-up failed.
    ///
    /// # Errors
    /// What the connection reports.
    async fn release(&self, keys: &[String], token: &str) -> Result<()>;

    /// Removes entries, and bars their being filled for `bar`.
    ///
    /// # Errors
    /// What the connection reports.
    async fn invalidate(&self, keys: &[String], bar: Duration) -> Result<()>;

    /// Sets values, lease or not, that expire after `time`: marks that tell of changes of whole tables.
    ///
    /// # Errors
    /// What the connection reports.
    async fn mark(&self, marks: &[(String, Bytes)], time: Duration) -> Result<()>;

    /// Ends connections. Later calls fail with `Closed`.
    async fn close(&self);
}

/// An entry to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// How long it may be kept.
    pub time: Duration,
}

/// What became of asking for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lease {
    /// It is the asker's: it looks the row up and fills the entry.
    Granted,
    /// Another holds it, who will fill the entry soon.
    Held,
    /// The entry was invalidated a moment ago and must not be filled yet.
    Barred,
}
