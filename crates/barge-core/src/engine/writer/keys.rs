//! Which rows of a flush name the same key, as the database compares keys.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int64Type, Schema};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;

use super::plan::Part;
use crate::database::Asked;
use crate::store::{KeyEquality, Operation};
use crate::{Result, TableName};

/// Which rows of a flush name the same key.
#[derive(Debug)]
pub(crate) struct TableKeys {
    pub(crate) table: TableName,
    /// The parts that write the table.
    pub(crate) parts: Vec<usize>,
    /// For each of `parts`, a number for each row: equal where the keys are. `None` where it can't be told.
    pub(crate) ids: Option<Vec<Vec<u32>>>,
    /// How many numbers there are.
    pub(super) distinct: usize,
    pub(super) rows: usize,
}

impl TableKeys {
    /// For each key's number, the arrival of the last row that names it.
    pub(crate) fn last_arrivals(&self, parts: &[Part]) -> Vec<u32> {
        let mut last = vec![0; self.distinct];
        for (&part, ids) in self.parts.iter().zip(self.ids.iter().flatten()) {
            for (&id, &arrival) in ids.iter().zip(&parts[part].arrivals) {
                last[id as usize] = last[id as usize].max(arrival);
            }
        }
        last
    }

    pub(super) fn repeats(&self) -> bool {
        self.distinct < self.rows
    }
}

/// Finds equal keys, table by table. Rows that are only inserted are looked at where `all` is set, and they may have to wait for a parent.
pub(crate) async fn find_keys(asked: &mut Asked<'_>, parts: &[Part], all: bool) -> Result<Vec<TableKeys>> {
    let mut tables: Vec<TableKeys> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        match tables.iter_mut().find(|keys| keys.table == *part.target.table()) {
            Some(keys) => keys.parts.push(index),
            None => tables.push(TableKeys {
                table: part.target.table().clone(),
                parts: vec![index],
                ids: None,
                distinct: 0,
                rows: 0,
            }),
        }
    }
    for keys in &mut tables {
        let parts: Vec<&Part> = keys.parts.iter().map(|&index| &parts[index]).collect();
        keys.rows = parts.iter().map(|part| part.batch.num_rows()).sum();
        keys.distinct = keys.rows;
        let inserts_only = parts.len() == 1 && parts[0].target.operation == Operation::Insert;
        // Rows that are only inserted move where they wait for a parent.
        let moves = || {
            let description = &parts[0].target.description;
            !(description.foreign_keys.is_empty() && description.triggers.is_empty())
        };
        if inserts_only && !(all && moves()) {
            continue;
        }
        if let Some((ids, distinct)) = number_keys(asked, &parts).await? {
            keys.ids = Some(ids);
            keys.distinct = distinct;
        }
    }
    Ok(tables)
}

/// Numbers the keys of one table's parts. `None` where the parts' keys can't be compared.
async fn number_keys(asked: &mut Asked<'_>, parts: &[&Part]) -> Result<Option<(Vec<Vec<u32>>, usize)>> {
    let Some(keys) = comparable_keys(parts)? else { return Ok(None) };
    let target = &parts[0].target;
    let ask = target
        .key
        .iter()
        .any(|&index| target.described(index).is_some_and(|column| column.equality == KeyEquality::Database));
    let (ids, distinct) = if ask {
        let ids = asked.key_groups(target, &keys).await?;
        numbered(&ids)
    } else {
        number_rows(keys.columns())?
    };
    let mut ids = ids.as_slice();
    let split = parts.iter().map(|part| {
        let (own, rest) = ids.split_at(part.batch.num_rows());
        ids = rest;
        own.to_vec()
    });
    Ok(Some((split.collect(), distinct)))
}

/// The key columns of all parts, one after the other, where they're the same columns of the same types, without NULL
/// and without types whose equal values differ in bytes.
fn comparable_keys(parts: &[&Part]) -> Result<Option<RecordBatch>> {
    let keys = parts.iter().map(|part| part.batch.project(&part.target.key));
    let keys = keys.collect::<std::result::Result<Vec<RecordBatch>, _>>()?;
    let shape = |batch: &RecordBatch| -> Vec<(String, DataType)> {
        batch
            .schema_ref()
            .fields()
            .iter()
            .map(|field| (field.name().clone(), field.data_type().clone()))
            .collect()
    };
    let first = shape(&keys[0]);
    let plain = |data_type: &DataType| !data_type.is_floating() && !data_type.is_nested();
    let comparable = !first.is_empty()
        && first.iter().all(|(_, data_type)| plain(data_type))
        && keys.iter().all(|batch| shape(batch) == first)
        && keys.iter().flat_map(|batch| batch.columns()).all(|column| column.null_count() == 0);
    if !comparable {
        return Ok(None);
    }
    // The parts' fields may differ in whether they allow NULL; the values allow none.
    let fields: Vec<_> = keys[0]
        .schema_ref()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(false))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let keys = keys.into_iter().map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()));
    let keys = keys.collect::<std::result::Result<Vec<RecordBatch>, _>>()?;
    Ok(Some(concat_batches(&schema, &keys)?))
}

/// Numbers rows from 0: equal rows get one number.
pub(crate) fn number_rows(columns: &[ArrayRef]) -> Result<(Vec<u32>, usize)> {
    let rows = columns[0].len();
    if let [column] = columns
        && let Some(values) = column.as_primitive_opt::<Int64Type>()
        && values.null_count() == 0
    {
        return Ok(number_integers(values.values()));
    }
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let encoded = RowConverter::new(fields)?.convert_columns(columns)?;
    let hasher = hashbrown::DefaultHashBuilder::default();
    let mut firsts: HashTable<(u32, u32)> = HashTable::with_capacity(rows);
    let mut distinct = 0;
    let ids = (0..rows).map(|row| {
        let key = encoded.row(row);
        let same = |&(other, _): &(u32, u32)| encoded.row(other as usize) == key;
        let rehash = |&(other, _): &(u32, u32)| hasher.hash_one(encoded.row(other as usize).data());
        let entry = firsts.entry(hasher.hash_one(key.data()), same, rehash).or_insert_with(|| {
            distinct += 1;
            (row as u32, distinct - 1)
        });
        entry.get().1
    });
    let ids = ids.collect();
    Ok((ids, distinct as usize))
}

/// The same for one column of integers: the commonest key.
fn number_integers(values: &[i64]) -> (Vec<u32>, usize) {
    match values.is_sorted_by(|a, b| a < b) {
        true => ((0..values.len() as u32).collect(), values.len()),
        false => numbered(values),
    }
}

/// Numbers from 0 without gaps: one for each value there is.
fn numbered<T: Copy + Eq + Hash>(values: &[T]) -> (Vec<u32>, usize) {
    let mut numbers = hashbrown::HashMap::with_capacity(values.len());
    let ids = values.iter().map(|value| {
        let next = numbers.len() as u32;
        *numbers.entry(*value).or_insert(next)
    });
    let ids = ids.collect();
    (ids, numbers.len())
}
