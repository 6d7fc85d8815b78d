//! Lists as the text of array literals: `{1,NULL,"a\"b"}`.

use std::ops::Range;

use arrow::array::*;
use arrow::datatypes::*;
use bytes::BytesMut;

use crate::fit::number::scaled_text;
use crate::fit::text::{date_text, double_text, single_text, time_text, timestamp_text, uuid_text};
use crate::types::{Kind, PgType};

/// Appends the items as an array literal. Nothing that the server could take for a brace, a delimiter or the word NULL stands
/// without quotes.
pub(super) fn put_list_literal(out: &mut BytesMut, items: &ArrayRef, rows: Range<usize>, item: &PgType) {
    out.extend_from_slice(b"{");
    let first = rows.start;
    for index in rows {
        if index > first {
            out.extend_from_slice(b",");
        }
        if items.is_null(index) {
            out.extend_from_slice(b"NULL");
        } else {
            put_item(out, items, item, index);
        }
    }
    out.extend_from_slice(b"}");
}

fn put_item(out: &mut BytesMut, items: &ArrayRef, item: &PgType, index: usize) {
    match items.data_type() {
        DataType::Boolean => {
            out.extend_from_slice(if items.as_boolean().value(index) { b"t" } else { b"f" });
        }
        DataType::Int16 => put_display(out, items.as_primitive::<Int16Type>().value(index)),
        DataType::Int32 => put_display(out, items.as_primitive::<Int32Type>().value(index)),
        DataType::Int64 => put_display(out, items.as_primitive::<Int64Type>().value(index)),
        DataType::Float32 => put_display(out, single_text(items.as_primitive::<Float32Type>().value(index))),
        DataType::Float64 => put_display(out, double_text(items.as_primitive::<Float64Type>().value(index))),
        DataType::Decimal128(_, scale) => {
            let value = items.as_primitive::<Decimal128Type>().value(index);
            put_display(out, scaled_text(value, (*scale).into()));
        }
        DataType::Date32 => put_display(out, date_text(items.as_primitive::<Date32Type>().value(index))),
        DataType::Time64(_) => {
            put_display(out, time_text(items.as_primitive::<Time64MicrosecondType>().value(index)));
        }
        DataType::Timestamp(_, timezone) => {
            let micros = items.as_primitive::<TimestampMicrosecondType>().value(index);
            put_display(out, timestamp_text(micros, timezone.is_some()));
        }
        DataType::Utf8 => put_quoted(out, items.as_string::<i32>().value(index)),
        DataType::LargeUtf8 => put_quoted(out, items.as_string::<i64>().value(index)),
        DataType::Utf8View => put_quoted(out, items.as_string_view().value(index)),
        DataType::Binary => put_bytes(out, items.as_binary::<i32>().value(index)),
        DataType::LargeBinary => put_bytes(out, items.as_binary::<i64>().value(index)),
        DataType::BinaryView => put_bytes(out, items.as_binary_view().value(index)),
        DataType::FixedSizeBinary(_) => {
            let bytes = items.as_fixed_size_binary().value(index);
            match <&[u8; 16]>::try_from(bytes) {
                Ok(bytes) if item.kind == Kind::Uuid => put_display(out, uuid_text(bytes)),
                _ => put_bytes(out, bytes),
            }
        }
        _ => out.extend_from_slice(b"NULL"),
    }
}

fn put_display(out: &mut BytesMut, value: impl std::fmt::Display) {
    use std::fmt::Write;
    // Writing to memory doesn't fail.
    let _ = write!(out, "{value}");
}

fn put_quoted(out: &mut BytesMut, text: &str) {
    out.extend_from_slice(b"\"");
    let mut rest = text.as_bytes();
    while let Some(place) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(&rest[..place]);
        out.extend_from_slice(b"\\");
        out.extend_from_slice(&rest[place..=place]);
        rest = &rest[place + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\"");
}

/// Hexadecimal digits behind `\x`, whose backslash is escaped.
fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\"\\\\x");
    for byte in bytes {
        out.extend_from_slice(&[HEXADECIMAL[usize::from(byte >> 4)], HEXADECIMAL[usize::from(byte & 15)]]);
    }
    out.extend_from_slice(b"\"");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn literal(items: ArrayRef, type_name: &str) -> String {
        let mut out = BytesMut::new();
        put_list_literal(&mut out, &items, 0..items.len(), &PgType::parse(type_name));
        String::from_utf8(out.to_vec()).unwrap()
    }

    /// Reads a literal of quoted texts as the server does.
    fn texts_of(literal: &str) -> Vec<Option<String>> {
        let inside = literal.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
        let (mut texts, mut characters) = (Vec::new(), inside.chars().peekable());
        while let Some(character) = characters.next() {
            match character {
                ',' => {}
                'N' => {
                    assert_eq!(characters.by_ref().take(3).collect::<String>(), "ULL");
                    texts.push(None);
                }
                '"' => {
                    let mut text = String::new();
                    loop {
                        match characters.next().unwrap() {
                            '"' => break,
                            '\\' => text.push(characters.next().unwrap()),
                            other => text.push(other),
                        }
                    }
                    texts.push(Some(text));
                }
                other => panic!("{other} without quotes"),
            }
        }
        texts
    }

    #[test]
    fn lists_are_written_as_array_literals() {
        let texts = StringArray::from(vec![Some("a\"b"), None, Some("NULL"), Some(""), Some("\\ {,}")]);
        assert_eq!(literal(Arc::new(texts), "text"), r#"{"a\"b",NULL,"NULL","","\\ {,}"}"#);
        assert_eq!(literal(Arc::new(Int32Array::from(vec![Some(-1), None])), "integer"), "{-1,NULL}");
        assert_eq!(literal(Arc::new(Int64Array::from(Vec::<i64>::new())), "bigint"), "{}");
        let floats = Float64Array::from(vec![0.1, f64::NAN, f64::NEG_INFINITY, 1e300]);
        assert_eq!(literal(Arc::new(floats), "double precision"), "{0.1,NaN,-Infinity,1e+300}");
        assert_eq!(literal(Arc::new(BinaryArray::from(vec![b"\0\xff".as_ref()])), "bytea"), r#"{"\\x00ff"}"#);
        let times = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
        assert_eq!(literal(Arc::new(times), "timestamp with time zone"), "{1970-01-01T00:00:00.000000Z}");
    }

    proptest! {
        #[test]
        fn texts_are_quoted_so_that_they_read_back(texts: Vec<Option<String>>) {
            let array = StringArray::from(texts.clone());
            prop_assert_eq!(texts_of(&literal(Arc::new(array), "text")), texts);
        }
    }
}
