//! Where a loader reads what it doesn't hold.

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::engine::loader::LoaderKey;
use crate::{Error, ErrorKind, Requests, Result, Sql};

/// What was found of a key.
#[derive(Clone, Debug)]
pub(crate) struct Found<V> {
    /// `None`: nothing.
    pub(crate) value: Option<V>,
    /// About how many bytes it takes, with its key.
    pub(crate) bytes: usize,
    /// The rows as a shared cache keeps them, where they were asked for and there are any.
    pub(crate) rows: Option<Vec<Bytes>>,
    /// Whether the key is spelled as a commit names it, so that what is kept of it is dropped then: the database may find a row by another spelling than
    /// its own, as a time of more digits than the column has.
    pub(crate) is_own: bool,
}

/// Looks keys up.
pub(crate) trait Source<K: LoaderKey, V>: Send + Sync + 'static {
    /// What has to be done before the first look-up; called before each.
    fn start(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Looks up keys, each once, by one call. Answers are in their order, and one key's error is that key's alone. `rows` asks for
    /// the rows as a shared cache keeps them.
    fn look_up(&self, keys: Requests<K>, rows: bool) -> BoxFuture<'_, Result<Vec<Result<Found<V>>>>>;

    /// Whether a failure of all may be over what one of them has, so that it pays to look the others up without it.
    fn may_be_a_keys(&self, _error: &Error) -> bool {
        false
    }

    /// About how many bytes a key and its value take; `None` is a key without one.
    fn bytes(&self, key: &K, value: Option<&V>) -> usize;

    /// The keys of the rows that a query gives, at most so many.
    fn query_keys(&self, _sql: Sql, _most: usize) -> BoxFuture<'_, Result<Vec<K>>> {
        let message =
            "keys come from a query of the database, and a handler of the application's own has none";
        Box::pin(std::future::ready(Err(Error::new(ErrorKind::Unsupported, message))))
    }

    /// Whether a value that the application gives has this key, as a commit would name it.
    fn owns(&self, _key: &K, _value: &V) -> bool {
        true
    }

    /// The names under which a shared cache keeps the keys.
    ///
    /// # Errors
    /// `Unsupported` where it can't.
    fn names(&self, keys: &[K]) -> Result<Vec<String>>;

    /// Keys as they are written down, and a name for their layout; `None` where they can't be.
    fn encode_keys(&self, _keys: &[K]) -> Option<(String, Vec<Bytes>)> {
        None
    }

    /// Keys that were written down under the name that [`encode_keys`](Source::encode_keys) gives.
    fn decode_keys(&self, _rows: &[&[u8]]) -> Vec<K> {
        Vec::new()
    }

    /// The table, for the log.
    fn table(&self) -> &str {
        "none: a handler"
    }

    /// The name of the mark that tells of changes in a shared cache.
    fn mark(&self) -> String;

    /// What rows in a shared cache are, for each of their keys; `None` where they can't be read, or not be taken for this key's.
    fn read(&self, keys: &[&K], rows: &[Vec<&[u8]>]) -> Vec<Option<Found<V>>>;
}
