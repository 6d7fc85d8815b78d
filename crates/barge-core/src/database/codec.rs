//! Rows and keys as the bytes that a shared cache and a file of keys hold, and back.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use uuid::Uuid;

use super::by::LookUpBy;
use crate::{Error, ErrorKind, Result, Table};

/// What tells this encoding of rows from others: a number of ours, and Arrow's major version, whose rows they are. Arrow may encode them
/// otherwise with the next.
pub(super) fn encoding() -> String {
    encoding_of(arrow::ARROW_VERSION)
}

fn encoding_of(arrow: &str) -> String {
    format!("1 arrow {}", arrow.split('.').next().unwrap_or(arrow))
}

/// Rows as bytes, and back.
pub(super) struct Codec {
    schema: SchemaRef,
    converter: RowConverter,
    /// What names of keys begin with: the table, and what tells this layout of its rows from any other.
    pub(super) prefix: String,
}

impl Codec {
    pub(super) fn new(table: &Table, schema: &SchemaRef, by: &LookUpBy) -> Result<Self> {
        let converter = converter(schema.fields()).map_err(|error| {
            Error::new(ErrorKind::Unsupported, format!("a shared cache can't keep these rows: {error}"))
        })?;
        let mut prefix = String::new();
        escape(&table.name().to_string(), &mut prefix);
        let _ = write!(prefix, ":{}:", layout(schema, by, &encoding()));
        Ok(Codec { schema: Arc::clone(schema), converter, prefix })
    }

    /// Each row of a look-up.
    pub(super) fn encode(&self, part: &RecordBatch) -> Result<Vec<Bytes>> {
        let columns = &part.columns()[1..];
        let wanted = self.schema.fields().iter().map(|field| field.data_type());
        if !columns.iter().map(|column| column.data_type()).eq(wanted) {
            return Err(Error::new(
                ErrorKind::Statement,
                "the store's look-up gave other types than were asked for",
            ));
        }
        encode(&self.converter, columns)
    }

    /// The rows as a batch.
    ///
    /// # Errors
    /// Where they are damaged.
    pub(super) fn decode(&self, rows: &[&[u8]]) -> Result<RecordBatch> {
        let columns = decode(&self.converter, rows)?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let nullable = |field: &FieldRef| Arc::new((**field).clone().with_nullable(true)) as FieldRef;
        let fields: Vec<FieldRef> = self.schema.fields().iter().map(nullable).collect();
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

pub(super) fn converter(fields: &[FieldRef]) -> Result<RowConverter> {
    let fields = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
    Ok(RowConverter::new(fields)?)
}

pub(super) fn encode(converter: &RowConverter, columns: &[ArrayRef]) -> Result<Vec<Bytes>> {
    let rows = converter.convert_columns(columns)?;
    Ok(rows.iter().map(|row| Bytes::copy_from_slice(row.as_ref())).collect())
}

/// The columns of encoded rows.
///
/// # Errors
/// Where they are damaged, as far as that shows. A name that tells the layout and a checksum vouch for them, and neither with certainty; Arrow panics at
/// bytes that it didn't write.
pub(super) fn decode(converter: &RowConverter, rows: &[&[u8]]) -> Result<Vec<ArrayRef>> {
    let parser = converter.parser();
    // Nothing is changed by decoding that would be left halfway.
    let decoding = AssertUnwindSafe(|| converter.convert_rows(rows.iter().map(|row| parser.parse(row))));
    match catch_unwind(decoding) {
        Ok(columns) => Ok(columns?),
        Err(_) => Err(Error::new(ErrorKind::InvalidValue, "the bytes are no rows of this layout")),
    }
}

/// A fingerprint of everything that decides how rows' bytes are read.
fn layout(schema: &SchemaRef, by: &LookUpBy, encoding: &str) -> String {
    let mut layout = format!("{encoding} {by:?}");
    for field in schema.fields() {
        let extension = field.metadata().get("ARROW:extension:name").map_or("", String::as_str);
        let (name, nullable) = (field.name(), field.is_nullable());
        // Writing to a string doesn't fail.
        let _ = write!(layout, "|{name} {} {nullable} {extension}", field.data_type());
    }
    let layout = Uuid::new_v5(&Uuid::NAMESPACE_OID, layout.as_bytes()).simple().to_string();
    layout[..16].to_owned()
}

/// Appends text so that it holds none of the characters that names are put together with.
pub(super) fn escape(text: &str, name: &mut String) {
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

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use proptest::prelude::*;

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

    fn rows_of_all_kinds() -> (RowConverter, Vec<Bytes>) {
        use arrow::array::*;
        let lists = ListArray::from_iter_primitive::<arrow::datatypes::Int32Type, _, _>([
            Some(vec![Some(1), None, Some(3)]),
            None,
            Some(vec![]),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(7), None, Some(-1)])),
            Arc::new(StringArray::from(vec![
                Some("a text of more than one block of bytes, äöü"),
                Some(""),
                None,
            ])),
            Arc::new(BinaryArray::from(vec![Some(&b"\xff\x00"[..]), None, Some(b"")])),
            Arc::new(lists),
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        ];
        let fields: Vec<FieldRef> = (columns.iter())
            .map(|column| Arc::new(Field::new("c", column.data_type().clone(), true)))
            .collect();
        let converter = converter(&fields).unwrap();
        let rows = encode(&converter, &columns).unwrap();
        (converter, rows)
    }

    proptest! {
        /// Whatever the bytes are, and whichever end of a row is missing, decoding gives columns or an error.
        #[test]
        fn damaged_rows_are_an_error_and_no_panic(
            row in 0..3_usize, cut in 0..200_usize, place in 0..200_usize, bytes in prop::collection::vec(any::<u8>(), 0..40)
        ) {
            let (converter, rows) = rows_of_all_kinds();
            let whole: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
            prop_assert_eq!(decode(&converter, &whole).unwrap()[0].len(), 3);
            let cut_off = &rows[row][..cut.min(rows[row].len() - 1)];
            prop_assert!(decode(&converter, &[cut_off]).is_err());
            let mut damaged = rows[row].to_vec();
            let place = place % damaged.len();
            let end = (place + bytes.len()).min(damaged.len());
            damaged[place..end].copy_from_slice(&bytes[..end - place]);
            for row in [&damaged[..], &bytes[..]] {
                if let Ok(columns) = decode(&converter, &[row]) {
                    prop_assert!(columns.iter().all(|column| column.to_data().validate_full().is_ok()));
                }
            }
        }
    }

    #[test]
    fn another_version_of_arrow_or_of_ours_is_another_layout() {
        let field = |name: &str, nullable| Field::new(name, DataType::Int64, nullable);
        let schema = |fields: Vec<Field>| Arc::new(Schema::new(fields));
        let by = LookUpBy::from("id");
        let own = layout(&schema(vec![field("id", false)]), &by, &encoding());
        let others = [
            layout(&schema(vec![field("id", false)]), &by, &encoding_of("59.0.0")),
            layout(&schema(vec![field("id", false)]), &by, &encoding().replacen('1', "2", 1)),
            layout(&schema(vec![field("id", true)]), &by, &encoding()),
            layout(&schema(vec![field("ID", false)]), &by, &encoding()),
            layout(&schema(vec![field("id", false)]), &LookUpBy::from("id").limit(1), &encoding()),
        ];
        assert!(others.iter().all(|other| *other != own), "{own} {others:?}");
        assert_eq!(encoding_of("58.0.0"), encoding_of("58.4.1"), "a minor version encodes as its major does");
    }
}
