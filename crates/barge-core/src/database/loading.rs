//! A table's rows for a loader: looked up, encoded for a shared cache and read back.

use std::fmt::Write;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::by::{HeldBy, LookUpBy};
use super::look_up::{columns_of, ordinals};
use super::{Core, Database};
use crate::cache::Cache;
use crate::cache::forget::{Forget, Keys, channel, tell_shared};
use crate::cache::local::Local;
use crate::cache::shared::Shared;
use crate::cache::source::{Found, Source};
use crate::cache::tiers::Cached;
use crate::engine::loader::{Loader, LoaderBuilder, LoaderValue, Settings, start, started};
use crate::record::{OwnedKey, keys_as};
use crate::store::KeyEquality;
use crate::{Error, ErrorKind, FromRow, Record, Requests, Result, Table};

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
    // Without a cache it still hears of commits: a scope remembers what it loaded.
    let nothing = || Cache::new(std::time::Duration::from_secs(1)).entries(0);
    let options = settings.cache.clone().unwrap_or_else(nothing);
    options.validate()?;
    let local = Arc::new(Local::new(options.clone(), V::MANY));
    let (told, stale) = options.shared.is_some().then(channel).unzip();
    let source = Arc::new(TableRows::<K, R, V> {
        core: Arc::clone(database.core()),
        table: Arc::new(columns_of::<R>(R::table())?),
        codec: options.shared.as_ref().map(|_| Codec::new(R::table(), &R::schema(), &by)).transpose()?,
        by,
        held: OnceCell::new(),
        local: Arc::clone(&local),
        told: told.clone(),
        keeps: settings.cache.is_some(),
        forget: OnceLock::new(),
        _rows: PhantomData,
    });
    let shared =
        options.shared.clone().map(|tier| Arc::new(Shared::new(tier, options.shared_timeout, options.lease)));
    if let (Some(shared), Some(stale)) = (&shared, stale) {
        let mark_time = options.time_to_live * 2 + options.clock_skew;
        let source = Arc::clone(&source) as Arc<dyn Source<K, V>>;
        let names = Arc::downgrade(&source);
        tokio::spawn(tell_shared(stale, Arc::clone(shared), names, settings.timeout, mark_time));
    }
    let cached = Cached { local, shared, told, options };
    start(source, Some(cached), settings)
}

/// What a loader gives of the rows of a key.
pub(crate) trait Gathered<R>: LoaderValue {
    /// Whether a key may have several rows.
    const MANY: bool;

    /// `None` where there are none.
    fn gather(rows: Vec<R>) -> Option<Self>;
}

impl<R: Send + Sync + 'static> Gathered<R> for Arc<R> {
    const MANY: bool = false;

    fn gather(rows: Vec<R>) -> Option<Self> {
        rows.into_iter().next().map(Arc::new)
    }
}

impl<R: Send + Sync + 'static> Gathered<R> for Arc<[R]> {
    const MANY: bool = true;

    fn gather(rows: Vec<R>) -> Option<Self> {
        (!rows.is_empty()).then(|| rows.into())
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
    told: Option<tokio::sync::mpsc::Sender<crate::cache::forget::Stale<K>>>,
    /// Whether there is a cache, for which it matters which keys a commit names.
    keeps: bool,
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
        let keys: Option<Keys<K>> = match (V::MANY, exact && self.keeps) {
            // Whatever is written, any key's rows may have changed.
            (true, _) => Some(Box::new(|_| Some(Vec::new()))),
            (false, true) => {
                let fields = held.fields.clone();
                Some(Box::new(move |keys| read_keys(keys, &fields)))
            }
            (false, false) => None,
        };
        let forget = Forget::new(self.table.name().clone(), Arc::clone(&self.local), keys, self.told.clone());
        let forget = self.forget.get_or_init(|| Arc::new(forget));
        self.local.hears_all_but(self.core.observers.add_held(forget));
        Ok(held)
    }

    async fn read_store(&self, keys: &[K], rows: bool) -> Result<Vec<Result<Found<V>>>> {
        let held = self.held.get_or_try_init(|| self.begin()).await?;
        let batch = keys_as(self.table.name(), &held.fields, keys)?;
        let mut stream = self.core.store.look_up(held.look_up(Arc::clone(&self.table), batch)).await?;
        let mut gathering: Vec<Result<Gathering<R>>> =
            keys.iter().map(|_| Ok(Gathering { rows: Vec::new(), bytes: 0, encoded: Vec::new() })).collect();
        while let Some(part) = stream.next().await? {
            self.take(&part, rows, &mut gathering)?;
        }
        let found = |gathering: Gathering<R>| Found {
            bytes: gathering.bytes + size_of::<R>() * gathering.rows.len(),
            rows: (rows && !gathering.rows.is_empty()).then_some(gathering.encoded),
            value: V::gather(gathering.rows),
        };
        Ok(gathering.into_iter().map(|gathering| gathering.map(found)).collect())
    }

    fn take(&self, part: &RecordBatch, encode: bool, gathering: &mut [Result<Gathering<R>>]) -> Result<()> {
        let ordinals = ordinals(part)?;
        let bytes = part.get_array_memory_size() / part.num_rows().max(1);
        let encoded = match (&self.codec, encode) {
            (Some(codec), true) => codec.encode(part)?,
            _ => Vec::new(),
        };
        for (row, read) in rows_of::<R>(part).into_iter().enumerate() {
            let Some(place) = gathering.get_mut(ordinals.value(row) as usize) else { continue };
            match (place, read) {
                (Ok(gathering), Ok(read)) if V::MANY || gathering.rows.is_empty() => {
                    gathering.rows.push(read);
                    gathering.bytes += bytes;
                    gathering.encoded.extend(encoded.get(row).cloned());
                }
                (Ok(_), Ok(_)) => {}
                (place @ Ok(_), Err(error)) => *place = Err(error),
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
    if keys.num_columns() != fields.len() {
        return None;
    }
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
        async move { self.read_store(&keys, rows).await }.boxed()
    }

    fn can_keep(&self, keys: &[K]) -> Option<Vec<bool>> {
        let held = self.held.get()?;
        if !held.fields.iter().any(|field| field.data_type().is_temporal()) {
            return None;
        }
        // A time of more digits than the column has is found by those it has; a commit names it by those alone.
        let batch = keys_as(self.table.name(), &held.fields, keys);
        let read = batch.and_then(|batch| K::read(batch.columns())).ok();
        let read = read.filter(|read| read.len() == keys.len());
        // What can't be told of them may be of any.
        let Some(read) = read else { return Some(vec![false; keys.len()]) };
        Some(read.iter().zip(keys).map(|(read, key)| read == key).collect())
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
        let converter = key_converter(&held.fields)?;
        let batch = keys_as(self.table.name(), &held.fields, keys).ok()?;
        let rows = converter.convert_columns(batch.columns()).ok()?;
        let types: Vec<String> =
            held.fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        let name = format!("{} {}", self.table.name(), types.join(","));
        Some((name, rows.iter().map(|row| Bytes::copy_from_slice(row.as_ref())).collect()))
    }

    fn decode_keys(&self, rows: &[&[u8]]) -> Vec<K> {
        let converter = self.held.get().and_then(|held| key_converter(&held.fields));
        let Some(converter) = converter.filter(|_| !rows.is_empty()) else { return Vec::new() };
        let parser = converter.parser();
        let columns = converter.convert_rows(rows.iter().map(|row| parser.parse(row)));
        columns.ok().and_then(|columns| K::read(&columns).ok()).unwrap_or_default()
    }

    fn mark(&self) -> String {
        let mut mark = String::new();
        escape(&self.table.name().to_string().to_ascii_lowercase(), &mut mark);
        mark + if V::MANY { ":changes" } else { ":any" }
    }

    fn read(&self, rows: &[Vec<&[u8]>]) -> Vec<Option<Found<V>>> {
        let Some(codec) = &self.codec else { return rows.iter().map(|_| None).collect() };
        let all: Vec<&[u8]> = rows.iter().flatten().copied().collect();
        let Ok(batch) = codec.decode(&all) else { return rows.iter().map(|_| None).collect() };
        let mut read = rows_of::<R>(&batch).into_iter();
        rows.iter()
            .map(|own| {
                let values: Vec<Result<R>> = read.by_ref().take(own.len()).collect();
                let values = values.into_iter().collect::<Result<Vec<R>>>().ok()?;
                let bytes = own.iter().map(|row| row.len()).sum::<usize>() + size_of::<R>() * values.len();
                let value = V::gather(values)?;
                Some(Found { value: Some(value), bytes, rows: None })
            })
            .collect()
    }
}

fn key_converter(fields: &[FieldRef]) -> Option<RowConverter> {
    RowConverter::new(fields.iter().map(|field| SortField::new(field.data_type().clone())).collect()).ok()
}

/// Rows as bytes, and back.
struct Codec {
    schema: SchemaRef,
    converter: RowConverter,
    /// What names of keys begin with: the table, and what tells this layout of its rows from any other.
    prefix: String,
}

impl Codec {
    fn new(table: &Table, schema: &SchemaRef, by: &LookUpBy) -> Result<Self> {
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|error| {
            Error::new(ErrorKind::Unsupported, format!("a shared cache can't keep these rows: {error}"))
        })?;
        // Whatever changes what the bytes mean has to be here.
        let mut layout = format!("1 {by:?}");
        for field in schema.fields() {
            let extension = field.metadata().get("ARROW:extension:name").map_or("", String::as_str);
            let (name, nullable) = (field.name(), field.is_nullable());
            // Writing to a string doesn't fail.
            let _ = write!(layout, "|{name} {} {nullable} {extension}", field.data_type());
        }
        let layout = Uuid::new_v5(&Uuid::NAMESPACE_OID, layout.as_bytes()).simple().to_string();
        let mut prefix = String::new();
        escape(&table.name().to_string(), &mut prefix);
        let _ = write!(prefix, ":{}:", &layout[..16]);
        Ok(Codec { schema: Arc::clone(schema), converter, prefix })
    }

    /// Each row of a look-up.
    fn encode(&self, part: &RecordBatch) -> Result<Vec<Bytes>> {
        let columns = &part.columns()[1..];
        let wanted = self.schema.fields().iter().map(|field| field.data_type());
        if !columns.iter().map(|column| column.data_type()).eq(wanted) {
            return Err(Error::new(
                ErrorKind::Statement,
                "the store's look-up gave other types than were asked for",
            ));
        }
        let rows = self.converter.convert_columns(columns)?;
        Ok(rows.iter().map(|row| Bytes::copy_from_slice(row.as_ref())).collect())
    }

    /// The rows as a batch. They must be of this layout: a name and a checksum vouch for it.
    fn decode(&self, rows: &[&[u8]]) -> Result<RecordBatch> {
        let parser = self.converter.parser();
        let columns = self.converter.convert_rows(rows.iter().map(|row| parser.parse(row)))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let fields: Vec<FieldRef> = self
            .schema
            .fields()
            .iter()
            .map(|field| Arc::new((**field).clone().with_nullable(true)) as FieldRef)
            .collect();
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

/// Appends text so that it holds none of the characters that names are put together with.
fn escape(text: &str, name: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'@' | b'+' => {
                name.push(byte.into())
            }
            _ => {
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
}

impl<R> std::fmt::Debug for ByKey<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_any_two_keys_apart() {
        let mut names = Vec::new();
        for text in ["a", "a,b", "a%2Cb", "!", "", "ü", "a b", "{a}", "A"] {
            let mut name = String::new();
            escape(text, &mut name);
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && !b",!{}:".contains(&byte)), "{name}");
            names.push(name);
        }
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
