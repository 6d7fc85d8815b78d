//! The connections that read: each on its own thread, started when needed, lent to one call at a time.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use barge_core::store::{LookUp, Query, RecordStream};
use barge_core::{Error, ErrorKind, Result};
use futures::stream::BoxStream;
use libsqlite3_sys as ffi;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::affinity::Affinity;
use crate::connection::{Connection, bind};
use crate::options::{Access, SqliteOptions};
use crate::read::BATCH_ROWS;
use crate::thread::{Ended, Worker, closed};

/// Rows in a part of a look-up: enough to be worth handing over, few enough that the caller works on some while others are read.
pub(crate) const LOOK_UP_ROWS: usize = 256;
/// Parts of a look-up read ahead of who takes them.
const PARTS_AHEAD: usize = 16;
/// Batches read ahead of who takes them.
const BATCHES_AHEAD: usize = 2;
/// How many of SQLite's own instructions go by between two looks at whether the query was given up.
const CANCEL_INTERVAL: c_int = 10_000;

/// The readers of a file.
pub(crate) struct Readers {
    options: Arc<SqliteOptions>,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Reader>>>,
    started: AtomicUsize,
}

struct Reader {
    worker: Worker,
    ended: Ended,
}

/// A reader lent to one call. Dropping it gives it back.
pub(crate) struct Lease {
    reader: Option<Reader>,
    idle: Arc<Mutex<Vec<Reader>>>,
    /// Given back after the reader: fields are dropped after `drop` ran.
    _permit: OwnedSemaphorePermit,
}

impl Readers {
    pub(crate) fn new(options: Arc<SqliteOptions>) -> Self {
        let permits = Arc::new(Semaphore::new(options.readers_max()));
        Readers { options, permits, idle: Arc::default(), started: AtomicUsize::new(0) }
    }

    /// Waits for a reader that is free, starting one where fewer run than may.
    pub(crate) async fn take(&self) -> Result<Lease> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| closed())?;
        // The one used last: its pages are in memory.
        let idle = lock(&self.idle).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => {
                let options = Arc::clone(&self.options);
                let number = self.started.fetch_add(1, Ordering::Relaxed);
                let open = move || options.connect(Access::Read);
                let (worker, ended) = Worker::start(&format!("barge-read-{number}"), open).await?;
                Reader { worker, ended }
            }
        };
        Ok(Lease { reader: Some(reader), idle: Arc::clone(&self.idle), _permit: permit })
    }

    /// Waits until no reader is lent, and ends them all. Later calls fail with `Closed`.
    ///
    /// # Errors
    /// `Busy` where a query is still being read when the time is over.
    pub(crate) async fn close(&self, wait: Duration) -> Result<()> {
        let all = u32::try_from(self.options.readers_max()).unwrap_or(u32::MAX);
        match tokio::time::timeout(wait, self.permits.acquire_many(all)).await {
            Ok(_permits) => self.permits.close(),
            Err(_) => {
                let message =
                    format!("a query's rows were still being read after {wait:?}: drop its stream first");
                return Err(Error::new(ErrorKind::Busy, message));
            }
        }
        let idle = std::mem::take(&mut *lock(&self.idle));
        for reader in &idle {
            reader.worker.stop();
        }
        for reader in idle {
            reader.ended.wait().await;
        }
        Ok(())
    }
}

impl Lease {
    /// Has the reader do something. It is given back once that is done, whether or not somebody still waits.
    pub(crate) async fn call<T: Send + 'static>(
        self,
        command: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T> {
        let Some(worker) = self.worker() else { return Err(closed()) };
        let call = worker.call(move |connection| {
            let answer = command(connection);
            drop(self);
            answer
        });
        call.await
    }

    /// Streams a query's rows.
    pub(crate) async fn stream(self, query: Query) -> Result<RecordStream> {
        let Some(worker) = self.worker() else { return Err(closed()) };
        let (started, answer) = oneshot::channel();
        let (batches, mut received) = mpsc::channel(BATCHES_AHEAD);
        let given_up = GivenUp::default();
        let flag = Arc::clone(&given_up.0);
        worker.send(move |connection| {
            run_query(connection, &query, &flag, started, &batches);
            drop(self);
        })?;
        let schema = answer.await.map_err(|_| closed())??;
        let stream = futures::stream::poll_fn(move |context| {
            // The stream owns the flag: dropping it ends the query.
            let _ = &given_up;
            received.poll_recv(context)
        });
        Ok(RecordStream::new(schema, stream))
    }

    /// Streams the rows with some keys.
    pub(crate) fn look_up(self, look_up: LookUp) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let Some(worker) = self.worker() else { return Err(closed()) };
        worker.parts(PARTS_AHEAD, move |connection, give| {
            let read = connection.look_up_in_parts(&look_up, LOOK_UP_ROWS, give);
            drop(self);
            read
        })
    }

    fn worker(&self) -> Option<Worker> {
        self.reader.as_ref().map(|reader| reader.worker.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.idle).extend(self.reader.take());
    }
}

/// Says, when dropped, that nobody wants the query's rows any more.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is done under the lock that could leave the list half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a query and sends its batches. The schema is sent once the first batch is read, since its values may decide it.
fn run_query(
    connection: &mut Connection,
    query: &Query,
    given_up: &Arc<AtomicBool>,
    started: oneshot::Sender<Result<SchemaRef>>,
    batches: &mpsc::Sender<Result<RecordBatch>>,
) {
    let mut started = Some(started);
    let _watch = Watch::start(connection, given_up);
    let result = each_batch(connection, query, |batch| {
        if let Some(started) = started.take()
            && started.send(Ok(batch.schema())).is_err()
        {
            return false;
        }
        batch.num_rows() == 0 || batches.blocking_send(Ok(batch)).is_ok()
    });
    if let Err(error) = result {
        // Nobody may be listening any more.
        let _ = match started.take() {
            Some(started) => started.send(Err(error)).is_ok(),
            None => batches.blocking_send(Err(error)).is_ok(),
        };
    }
}

/// Gives a query's rows in batches, the first of which may be empty, as long as they are wanted.
pub(crate) fn each_batch(
    connection: &mut Connection,
    query: &Query,
    mut wanted: impl FnMut(RecordBatch) -> bool,
) -> Result<()> {
    let (statement, mut reader) = connection.prepare_query(query)?;
    let batch = query.batch.as_ref().map(|batch| bind(batch, |_| Affinity::Blob)).transpose()?;
    let mut run = match &batch {
        Some(batch) => statement.run_over(batch),
        None => statement.run(),
    };
    let failed = |failure| -> Error { connection.error(failure) };
    let mut first = true;
    loop {
        let more = reader.read(&mut run, BATCH_ROWS, failed)?;
        if (first || !reader.is_empty()) && !wanted(reader.take()?) {
            return Ok(());
        }
        first = false;
        if !more {
            return Ok(());
        }
    }
}

/// Has SQLite look, while a query runs, whether it was given up. Ends when dropped.
struct Watch {
    connection: *mut ffi::sqlite3,
    /// What the handler looks at.
    _given_up: Arc<AtomicBool>,
}

impl Watch {
    fn start(connection: &Connection, given_up: &Arc<AtomicBool>) -> Self {
        unsafe extern "C" fn look(flag: *mut c_void) -> c_int {
            // SAFETY: the flag lives as long as the watch, which takes the handler away when dropped.
            let flag = unsafe { &*flag.cast::<AtomicBool>() };
            c_int::from(flag.load(Ordering::Relaxed))
        }
        let flag = Arc::clone(given_up);
        let pointer = Arc::as_ptr(&flag).cast_mut().cast();
        // SAFETY: the connection is open; the flag is held by the watch.
        unsafe { ffi::sqlite3_progress_handler(connection.raw(), CANCEL_INTERVAL, Some(look), pointer) };
        Watch { connection: connection.raw(), _given_up: flag }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // SAFETY: the watch ends within the command that started it, on the connection's thread.
        unsafe { ffi::sqlite3_progress_handler(self.connection, 0, None, std::ptr::null_mut()) };
    }
}
