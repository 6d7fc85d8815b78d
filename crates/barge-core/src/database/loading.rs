//! A table's rows for a loader: looked up, encoded for a shared cache and read back.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_arrays};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;

use super::by::{HeldBy, LookUpBy};
use super::codec::{self, Codec, escape};
use super::look_up::{columns_of, ordinals};
use super::{Core, Database};
use crate::cache::Cache;
use crate::cache::forget::{self, Forget};
use crate::cache::invalidations::{Invalidations, Telling};
use crate::cache::local::Local;
use crate::cache::shared::Shared;
use crate::cache::source::{Found, Source};
use crate::cache::tiers::Cached;
use crate::engine::loader::{Loader, LoaderBuilder, LoaderValue, Settings, start, started};
use crate::record::{Columns, OwnedKey, keys_as};
use crate::store::{KeyEquality, Query};
use crate::{Error, ErrorKind, FromRow, Keys, Record, Requests, Result, Sql, Table};

/// Looks up the row of each key: see [`Database::loader`](crate::Database::loader).
pub struct ByKey<R> {
    database: Database,
    _rows: PhantomData<fn() -> R>,
}

/// Looks up all rows of each key: see [`Database::loader_by`](crate::Database::loader_by).
pub struct ByColumns<R> {
    database: Database,
    by: LookUpBy,
    _rows: PhantomData<fn() -> R>,
}

impl<R: Record + FromRow + Send + Sync + 'static> LoaderBuilder<ByKey<R>> {
    pub(super) fn by_key(database: Database) -> Self {
        LoaderBuilder::of(ByKey { database, _rows: PhantomData })
    }

    /// Starts the loader on the present tokio runtime. A key is a value, or a tuple of as many as the record's key has columns.
    ///
    /// # Panics
    /// Where [`try_start`](Self::try_start) gives an error: use that for settings that come from outside. Outside a tokio runtime.
    pub fn start<K: OwnedKey>(self) -> Loader<K, Arc<R>> {
        started(self.try_start())
    }

    /// Starts the loader on the present tokio runtime; as [`start`](Self::start).
    ///
    /// # Errors
    /// `InvalidConfig` for a record without a key, keys of another width, or a setting out of bounds; `Unsupported` where a shared cache can't
    /// keep the record's types.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn try_start<K: OwnedKey>(self) -> Result<Loader<K, Arc<R>>> {
        let table = R::table();
        let key: Vec<&str> = table.key().into_iter().map(|index| table.columns()[index].name()).collect();
        if key.is_empty() {
            let message = "a loader by key needs a record with a key; `loader_by` looks up by other columns";
            return Err(Error::new(ErrorKind::InvalidConfig, message).with_table(table.name().to_string()));
        }
        let by = LookUpBy::columns(key);
        start_over::<K, R, Arc<R>>(&self.source.database, by, self.settings)
    }
}

impl<R: Record + FromRow + Send + Sync + 'static> LoaderBuilder<ByColumns<R>> {
    pub(super) fn by_columns(database: Database, by: LookUpBy) -> Self {
        LoaderBuilder::of(ByColumns { database, by, _rows: PhantomData })
    }

    /// Starts the loader on the present tokio runtime. A key is a value, or a tuple of as many as the look-up names columns.
    ///
    /// # Panics
    /// Where [`try_start`](Self::try_start) gives an error: use that for settings that come from outside. Outside a tokio runtime.
    pub fn start<K: OwnedKey>(self) -> Loader<K, Arc<[R]>> {
        started(self.try_start())
    }

    /// Starts the loader on the present tokio runtime; as [`start`](Self::start).
    ///
    /// # Errors
    /// `InvalidConfig` for keys of another width, or a setting out of bounds; `Unsupported` where a shared cache can't keep the record's types.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn try_start<K: OwnedKey>(self) -> Result<Loader<K, Arc<[R]>>> {
        start_over::<K, R, Arc<[R]>>(&self.source.database, self.source.by, self.settings)
    }
}

fn start_over<K: OwnedKey, R, V>(
    database: &Database,
    by: LookUpBy,
    settings: Settings,
) -> Result<Loader<K, V>>
where
    R: Record + FromRow + Send + Sync + 'static,
    V: Gathered<R>,
{
    if by.width() != K::WIDTH {
        let message =
            format!("rows are looked up by {} columns, but a key has {} values", by.width(), K::WIDTH);
        return Err(Error::new(ErrorKind::InvalidConfig, message).with_table(R::table().name().to_string()));
    }
    let unread = by.columns.iter().find(|name| R::schema().field_with_name(name).is_err());
    if let Some(name) = unread.filter(|_| !V::MANY && settings.cache.is_some()) {
        let message = "a row is kept under its key, and this record's reading leaves the key out";
        return Err(Error::new(ErrorKind::InvalidConfig, message).with_column(name));
    }
    // Without a cache it still hears of commits: a scope remembers what it loaded.
    let nothing = || Cache::new(std::time::Duration::from_secs(1)).entries(0);
    let options = settings.cache.clone().unwrap_or_else(nothing);
    options.validate()?;
    let local = Arc::new(Local::new(options.clone(), V::MANY));
    let telling = options.shared.is_some().then(Telling::new);
    let source = Arc::new(TableRows::<K, R, V> {
        core: Arc::clone(database.core()),
        table: Arc::new(columns_of::<R>(R::table())?),
        codec: options.shared.as_ref().map(|_| Codec::new(R::table(), &R::schema(), &by)).transpose()?,
        by,
        held: OnceCell::new(),
        local: Arc::clone(&local),
        invalidations: telling.as_ref().map(|telling| Arc::clone(telling.invalidations())),
        keeps: settings.cache.is_some(),
        exact: OnceLock::new(),
        forget: OnceLock::new(),
        _rows: PhantomData,
    });
    let shared = options.shared.clone().map(|tier| {
        let table = R::table().name().to_string();
        Arc::new(Shared::new(tier, table, options.shared_timeout, options.lease))
    });
    if let (Some(shared), Some(telling)) = (&shared, &telling) {
        let mark_time = options.longest() * 2 + options.clock_skew;
        let source = Arc::clone(&source) as Arc<dyn Source<K, V>>;
        telling.start(Arc::clone(shared), source, [options.lease, mark_time]);
    }
    let cached = Cached { local, shared, telling, options };
    start(source, Some(cached), settings)
}

/// What a loader gives of the rows of a key.
pub(crate) trait Gathered<R>: LoaderValue {
    /// Whether a key may have several rows.
    const MANY: bool;

    /// `None` where there are none.
    fn gather(rows: Vec<R>) -> Option<Self>;

    fn rows(&self) -> &[R];
}

impl<R: Send + Sync + 'static> Gathered<R> for Arc<R> {
    const MANY: bool = false;

    fn gather(rows: Vec<R>) -> Option<Self> {
        rows.into_iter().next().map(Arc::new)
    }

    fn rows(&self) -> &[R] {
        std::slice::from_ref(self)
    }
}

impl<R: Send + Sync + 'static> Gathered<R> for Arc<[R]> {
    const MANY: bool = true;

    fn gather(rows: Vec<R>) -> Option<Self> {
        (!rows.is_empty()).then(|| rows.into())
    }

    fn rows(&self) -> &[R] {
        self
    }
}

struct TableRows<K: OwnedKey, R, V: LoaderValue> {
    core: Arc<Core>,
    /// The record's table, with the columns that reading it wants.
    table: Arc<Table>,
    by: LookUpBy,
    /// The same held against the table in the database, before the first look-up.
    held: OnceCell<HeldBy>,
    codec: Option<Codec>,
    local: Arc<Local<K, V>>,
    invalidations: Option<Arc<Invalidations<K>>>,
    /// Whether there is a cache, for which it matters which keys a commit names.
    keeps: bool,
    /// Whether the database takes keys as equal only where they are the same; known from `held` on.
    exact: OnceLock<bool>,
    /// Held here, so that the database's observers lose it with the loader.
    forget: OnceLock<Arc<Forget<K, V>>>,
    _rows: PhantomData<fn() -> R>,
}

impl<K: OwnedKey, R, V> TableRows<K, R, V>
where
    R: Record + FromRow + Send + Sync + 'static,
    V: Gathered<R>,
{
    /// Describes the table, and has the database tell of commits from now on.
    async fn begin(&self) -> Result<HeldBy> {
        let held = super::look_up::held(&self.core.descriptions, &mut self.core.ask(), &self.table, &self.by)
            .await?;
        let description = Database::of(Arc::clone(&self.core)).describe(self.table.name()).await?;
        let exact = held.fields.iter().all(|field| {
            description.column(field.name()).is_some_and(|column| column.equality == KeyEquality::Exact)
        });
        self.exact.get_or_init(|| exact);
        let keys: Option<forget::Keys<K>> = match (V::MANY, exact && self.keeps) {
            // Whatever is written, any key's rows may have changed.
            (true, _) => Some(Box::new(|_| Some(Vec::new()))),
            (false, true) => {
                let fields = held.fields.clone();
                Some(Box::new(move |keys| read_keys(keys, &fields)))
            }
            (false, false) => None,
        };
        let forget = Forget {
            table: self.table.name().clone(),
            columns: held.fields.iter().map(|field| field.name().clone()).collect(),
            local: Arc::clone(&self.local),
            keys,
            invalidations: self.invalidations.clone(),
        };
        let forget = self.forget.get_or_init(|| Arc::new(forget));
        self.local.hears_all_but(self.core.observers.add_held(forget));
        Ok(held)
    }

    async fn read_store(&self, keys: &[K], rows: bool) -> Result<Vec<Result<Found<V>>>> {
        let held = self.held.get_or_try_init(|| self.begin()).await?;
        let batch = keys_as(self.table.name(), &held.fields, keys)?;
        let fields = held.fields.clone();
        let key_bytes = batch.get_array_memory_size() / keys.len().max(1);
        let mut stream = self.core.store.look_up(held.look_up(Arc::clone(&self.table), batch)).await?;
        let mut gathering: Vec<Result<Gathering<R>>> = keys.iter().map(|_| Ok(Gathering::new())).collect();
        while let Some(part) = stream.next().await? {
            let own = self.goes_by_keys().then(|| keys_in::<K>(&part, &fields));
            let is_own = |place: usize, row: usize| match &own {
                Some(own) => own.as_ref().is_some_and(|own| own[row] == keys[place]),
                None => true,
            };
            self.take(&part, rows, is_own, &mut gathering)?;
        }
        let found = |gathering: Gathering<R>| Found {
            bytes: key_bytes + gathering.bytes + size_of::<R>() * gathering.rows.len(),
            rows: (rows && !gathering.rows.is_empty() && gathering.encoded.len() == gathering.rows.len())
                .then_some(gathering.encoded),
            is_own: gathering.is_own,
            value: V::gather(gathering.rows),
        };
        Ok(gathering.into_iter().map(|gathering| gathering.map(found)).collect())
    }

    /// The keys of a query's rows, but of those where a part of the key is NULL, which has no row.
    async fn read_keys_of(&self, sql: Sql, most: usize) -> Result<Vec<K>> {
        let held = self.held.get_or_try_init(|| self.begin()).await?;
        let query = Query {
            schema: Some(Arc::new(Schema::new(held.fields.clone()))),
            ..Query::new(sql.text(self.core.store.dialect()))
        };
        let mut stream = self.core.store.query(query).await?;
        let mut keys = Vec::new();
        while keys.len() < most
            && let Some(part) = stream.next().await?
        {
            let part = Keys::into_batch(&part, self.table.name(), &held.fields)?;
            let columns = part.columns().iter().zip(&held.fields);
            let columns: Vec<ArrayRef> =
                columns.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
            let is_whole = |row: &u32| columns.iter().all(|column| column.is_valid(*row as usize));
            let whole: UInt32Array = (0..part.num_rows() as u32).filter(is_whole).collect();
            keys.extend(K::read(&take_arrays(&columns, &whole, None)?)?);
        }
        keys.truncate(most);
        Ok(keys)
    }

    /// Whether what is kept of a key is dropped by commits that name it, and by no others.
    fn goes_by_keys(&self) -> bool {
        !V::MANY && self.keeps && self.exact.get().is_none_or(|exact| *exact)
    }

    fn take(
        &self,
        part: &RecordBatch,
        encode: bool,
        is_own: impl Fn(usize, usize) -> bool,
        gathering: &mut [Result<Gathering<R>>],
    ) -> Result<()> {
        let ordinals = ordinals(part)?;
        let bytes = part.get_array_memory_size() / part.num_rows().max(1);
        let encoded = match (&self.codec, encode) {
            // What can't be encoded isn't shared; it is read all the same.
            (Some(codec), true) => codec.encode(part).unwrap_or_else(|error| {
                tracing::debug!(%error, table = %self.table.name(), "rows can't be kept in the shared cache");
                Vec::new()
            }),
            _ => Vec::new(),
        };
        for (row, read) in rows_of::<R>(part).into_iter().enumerate() {
            let key = ordinals.value(row) as usize;
            let Some(place) = gathering.get_mut(key) else { continue };
            match (place, read) {
                (Ok(gathering), Ok(read)) if V::MANY || gathering.rows.is_empty() => {
                    gathering.rows.push(read);
                    gathering.is_own &= is_own(key, row);
                    gathering.bytes += bytes;
                    gathering.encoded.extend(encoded.get(row).cloned());
                }
                (Ok(_), Ok(_)) => {}
                (place @ Ok(_), Err(error)) => {
                    *place = Err(error.without_row().with_table(self.table.name().to_string()));
                }
                (Err(_), _) => {}
            }
        }
        Ok(())
    }
}

/// The rows of a key, as they come.
struct Gathering<R> {
    rows: Vec<R>,
    bytes: usize,
    encoded: Vec<Bytes>,
    is_own: bool,
}

impl<R> Gathering<R> {
    fn new() -> Self {
        Gathering { rows: Vec::new(), bytes: 0, encoded: Vec::new(), is_own: true }
    }
}

/// Each row, or why it can't be read.
fn rows_of<R: FromRow>(batch: &RecordBatch) -> Vec<Result<R>> {
    match R::from_batch(batch) {
        Ok(rows) => rows.into_iter().map(Ok).collect(),
        Err(_) => (0..batch.num_rows())
            .map(|row| {
                let read = R::from_batch(&batch.slice(row, 1));
                read.and_then(|rows| {
                    rows.into_iter()
                        .next()
                        .ok_or_else(|| Error::new(ErrorKind::InvalidValue, "the row was not read"))
                })
            })
            .collect(),
    }
}

/// The keys of a commit as a loader's; `None` where they are of other columns, or can't be read as the loader's type.
fn read_keys<K: OwnedKey>(keys: &RecordBatch, fields: &[FieldRef]) -> Option<Vec<K>> {
    if keys.num_columns() == fields.len() { keys_in(keys, fields) } else { None }
}

/// The keys of rows; `None` where some have none, or can't be read as the loader's type.
fn keys_in<K: OwnedKey>(keys: &RecordBatch, fields: &[FieldRef]) -> Option<Vec<K>> {
    let schema = keys.schema();
    let column = |field: &FieldRef| {
        let place = schema.fields().iter().position(|own| own.name().eq_ignore_ascii_case(field.name()))?;
        let array = cast(keys.column(place), field.data_type()).ok()?;
        (array.null_count() == 0).then_some(array)
    };
    let arrays: Option<Vec<_>> = fields.iter().map(column).collect();
    K::read(&arrays?).ok()
}

impl<K: OwnedKey, R, V> Source<K, V> for TableRows<K, R, V>
where
    R: Record + FromRow + Send + Sync + 'static,
    V: Gathered<R>,
{
    fn start(&self) -> BoxFuture<'_, Result<()>> {
        if self.held.initialized() {
            return std::future::ready(Ok(())).boxed();
        }
        self.held.get_or_try_init(|| self.begin()).map(|held| held.map(drop)).boxed()
    }

    fn look_up(&self, keys: Requests<K>, rows: bool) -> BoxFuture<'_, Result<Vec<Result<Found<V>>>>> {
        let named = |error: Error| match error.table() {
            Some(_) => error,
            None => error.with_table(self.table.name().to_string()),
        };
        async move { self.read_store(&keys, rows).await.map_err(named) }.boxed()
    }

    fn may_be_a_keys(&self, error: &Error) -> bool {
        error.kind() == ErrorKind::InvalidValue
    }

    fn bytes(&self, key: &K, value: Option<&V>) -> usize {
        let Some(held) = self.held.get() else { return 0 };
        let key = keys_as(self.table.name(), &held.fields, std::slice::from_ref(key));
        let rows = value.map_or(&[][..], V::rows);
        let mut columns = R::Columns::with_capacity(rows.len());
        // A row that can't be written is known to be there, and not how large it is.
        let appended = rows.iter().map(|row| size_of::<R>() + row.append(&mut columns).unwrap_or_default());
        appended.sum::<usize>() + key.map_or(0, |key| key.get_array_memory_size())
    }

    fn query_keys(&self, sql: Sql, most: usize) -> BoxFuture<'_, Result<Vec<K>>> {
        async move { self.read_keys_of(sql, most).await }.boxed()
    }

    fn owns(&self, key: &K, value: &V) -> bool {
        let (Some(held), [row], true) = (self.held.get(), value.rows(), self.goes_by_keys()) else {
            return true;
        };
        let mut columns = R::Columns::with_capacity(1);
        if row.append(&mut columns).is_err() {
            return false;
        }
        let row = RecordBatch::try_new(R::table().schema().clone(), columns.finish()).ok();
        let keys = row.and_then(|row| keys_in::<K>(&row, &held.fields));
        keys.is_some_and(|keys| keys == [key.clone()])
    }

    fn names(&self, keys: &[K]) -> Result<Vec<String>> {
        let (Some(held), Some(codec)) = (self.held.get(), &self.codec) else {
            return Err(Error::new(ErrorKind::Unsupported, "the keys have no names"));
        };
        let batch = keys_as(self.table.name(), &held.fields, keys)?;
        let options = FormatOptions::default();
        // A zone by its name can't be shown without a list of zones; the moment is the same in all.
        let shown = |column: &ArrayRef| match column.data_type() {
            DataType::Timestamp(_, Some(_)) => cast(column, &DataType::Int64),
            _ => Ok(Arc::clone(column)),
        };
        let shown: Vec<ArrayRef> = batch.columns().iter().map(shown).collect::<Result<_, _>>()?;
        let columns: Vec<ArrayFormatter<'_>> = shown
            .iter()
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<Result<_, _>>()?;
        let name = |row: usize| {
            let mut name = codec.prefix.clone();
            for (place, column) in columns.iter().enumerate() {
                if place > 0 {
                    name.push(',');
                }
                match batch.column(place).is_null(row) {
                    true => name.push('!'),
                    false => escape(&column.value(row).to_string(), &mut name),
                }
            }
            name
        };
        Ok((0..batch.num_rows()).map(name).collect())
    }

    fn encode_keys(&self, keys: &[K]) -> Option<(String, Vec<Bytes>)> {
        let held = self.held.get()?;
        let batch = keys_as(self.table.name(), &held.fields, keys).ok()?;
        let rows = codec::encode(&codec::converter(&held.fields).ok()?, batch.columns()).ok()?;
        let types: Vec<String> =
            held.fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        let name = format!("{} {} {}", codec::encoding(), self.table.name(), types.join(","));
        Some((name, rows))
    }

    fn decode_keys(&self, rows: &[&[u8]]) -> Vec<K> {
        let converter = self.held.get().and_then(|held| codec::converter(&held.fields).ok());
        let Some(converter) = converter.filter(|_| !rows.is_empty()) else { return Vec::new() };
        codec::decode(&converter, rows).and_then(|columns| K::read(&columns)).unwrap_or_default()
    }

    fn table(&self) -> &str {
        self.table.name().name()
    }

    fn mark(&self) -> String {
        let mut mark = String::new();
        escape(&self.table.name().to_string().to_ascii_lowercase(), &mut mark);
        mark + if V::MANY { ":changes" } else { ":any" }
    }

    fn read(&self, keys: &[&K], rows: &[Vec<&[u8]>]) -> Vec<Option<Found<V>>> {
        let Some(codec) = &self.codec else { return rows.iter().map(|_| None).collect() };
        let all: Vec<&[u8]> = rows.iter().flatten().copied().collect();
        // Where they may be taken by their keys alone, the keys must be readable, too.
        let fields = self.held.get().filter(|_| self.goes_by_keys()).map(|held| &held.fields);
        let read = codec.decode(&all).ok().and_then(|batch| match fields {
            Some(fields) => keys_in::<K>(&batch, fields).map(|own| (batch, Some(own))),
            None => Some((batch, None)),
        });
        let (batch, own_keys) = match read {
            Some(read) => read,
            // One of them is damaged, and the others needn't be.
            None if rows.len() > 1 => {
                let each = keys.iter().zip(rows);
                return each.flat_map(|(key, own)| self.read(&[*key], std::slice::from_ref(own))).collect();
            }
            None => return rows.iter().map(|_| None).collect(),
        };
        let mut read = rows_of::<R>(&batch).into_iter();
        let mut place = 0;
        rows.iter()
            .zip(keys)
            .map(|(own, key)| {
                let first = place;
                place += own.len();
                let values: Vec<Result<R>> = read.by_ref().take(own.len()).collect();
                let values = values.into_iter().collect::<Result<Vec<R>>>().ok()?;
                let bytes = own.iter().map(|row| row.len()).sum::<usize>() + size_of::<R>() * values.len();
                // Of a row with another key it isn't known here whether this process wrote it.
                if own_keys.as_ref().is_some_and(|own| own.get(first) != Some(*key)) {
                    return None;
                }
                let value = V::gather(values)?;
                Some(Found { value: Some(value), bytes, rows: None, is_own: true })
            })
            .collect()
    }
}

impl<R> std::fmt::Debug for ByKey<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByKey").finish_non_exhaustive()
    }
}
