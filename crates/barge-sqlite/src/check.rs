//! Which values SQLite can't give back equal.
//!
//! SQLite itself refuses little: a column's affinity changes values in silence. So what it would do is computed here first. A
//! column whose type and affinity agree costs nothing.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::*;
use barge_core::record::is_json;
use barge_core::store::Target;
use barge_core::{Error, ErrorKind};

use crate::affinity::Affinity;
use crate::plan::affinities;

/// The longest text or blob, in bytes: SQLite's own default for `SQLITE_LIMIT_LENGTH`.
const LENGTH_MAX: usize = 1_000_000_000;
/// The largest integer up to which a real holds every one.
const EXACT_MAX: u64 = 1 << 53;
/// Decimal digits that a real always keeps.
const REAL_DIGITS: u32 = 15;

/// The rows that can't be stored equal: each once, with its first reason, in order.
pub(crate) fn check(target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
    let mut rejected: Vec<(usize, Error)> = Vec::new();
    let columns = target.columns.iter().zip(batch.columns()).zip(affinities(target));
    for ((column, array), affinity) in columns {
        let mut reject = |row: usize, kind: ErrorKind, message: String| {
            let error = Error::new(kind, message)
                .with_table(target.table().to_string())
                .with_column(column.name())
                .with_row(row as u64);
            rejected.push((row, error));
        };
        check_column(array, affinity, &mut reject);
    }
    rejected.sort_by_key(|(row, _)| *row);
    rejected.dedup_by_key(|(row, _)| *row);
    rejected
}

fn check_column(array: &ArrayRef, affinity: Affinity, reject: &mut impl FnMut(usize, ErrorKind, String)) {
    let mut invalid = |row, message| reject(row, ErrorKind::InvalidValue, message);
    match array.data_type() {
        DataType::Float64 => check_nan(array.as_primitive::<Float64Type>().values(), array, &mut invalid),
        DataType::Float32 => check_nan(array.as_primitive::<Float32Type>().values(), array, &mut invalid),
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>();
            if values.values().iter().all(|value| *value <= EXACT_MAX) {
                return;
            }
            for (row, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                match i64::try_from(value) {
                    Err(_) => {
                        invalid(row, format!("{value} is above {}, SQLite's largest integer", i64::MAX))
                    }
                    Ok(value) => check_exact(row, value, affinity, &mut invalid),
                }
            }
        }
        DataType::Int64 if affinity == Affinity::Real => {
            for (row, value) in array.as_primitive::<Int64Type>().iter().enumerate() {
                if let Some(value) = value {
                    check_exact(row, value, affinity, &mut invalid);
                }
            }
        }
        DataType::Decimal128(_, scale) if affinity.is_numeric() => {
            for (row, value) in array.as_primitive::<Decimal128Type>().iter().enumerate() {
                if let Some(value) = value.filter(|value| !real_keeps(*value, *scale)) {
                    let text = crate::batch::cells::decimal_text(value, *scale);
                    invalid(row, format!("the column is numeric and would round {text}: declare it TEXT"));
                }
            }
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            for (row, value) in array.as_primitive::<TimestampNanosecondType>().iter().enumerate() {
                if let Some(value) = value.filter(|value| value % 1_000 != 0) {
                    invalid(row, format!("{value} ns from 1970 is finer than microseconds"));
                }
            }
        }
        DataType::List(item) if item.data_type() == &DataType::Float32 => {
            let lists = array.as_list::<i32>();
            if lists.values().null_count() > 0 {
                let has_null = |row: usize| lists.value(row).null_count() > 0;
                check_vectors(lists.len(), |row| lists.is_valid(row) && has_null(row), &mut invalid);
            }
        }
        DataType::List(item) if is_json(item) && item.is_nullable() => {
            let lists = array.as_list::<i32>();
            for row in (0..lists.len()).filter(|&row| lists.is_valid(row)) {
                let documents = lists.value(row);
                if documents.as_string::<i32>().iter().flatten().any(|text| text.trim() == "null") {
                    let message = "the list holds the JSON null, which would come back as NULL";
                    invalid(row, message.into());
                }
            }
        }
        DataType::FixedSizeList(item, _) if item.data_type() == &DataType::Float32 => {
            let lists = array.as_fixed_size_list();
            if lists.values().null_count() > 0 {
                let has_null = |row: usize| lists.value(row).null_count() > 0;
                check_vectors(lists.len(), |row| lists.is_valid(row) && has_null(row), &mut invalid);
            }
        }
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            check_texts(texts.values().len(), texts.iter(), affinity, reject);
        }
        DataType::LargeUtf8 => {
            let texts = array.as_string::<i64>();
            check_texts(texts.values().len(), texts.iter(), affinity, reject);
        }
        DataType::Utf8View => {
            let texts = array.as_string_view();
            check_texts(LENGTH_MAX + 1, texts.iter(), affinity, reject);
        }
        DataType::Binary if array.as_binary::<i32>().values().len() > LENGTH_MAX => {
            check_lengths(array.as_binary::<i32>().iter(), reject);
        }
        DataType::LargeBinary if array.as_binary::<i64>().values().len() > LENGTH_MAX => {
            check_lengths(array.as_binary::<i64>().iter(), reject);
        }
        _ => {}
    }
}

/// NaN becomes NULL in SQLite. One pass without a branch finds whether there is any; only then are values looked at one by one.
fn check_nan<T: Copy + Into<f64>>(values: &[T], array: &dyn Array, invalid: &mut impl FnMut(usize, String)) {
    if !values.iter().fold(false, |found, value| found | (*value).into().is_nan()) {
        return;
    }
    for (row, value) in values.iter().enumerate() {
        if (*value).into().is_nan() && array.is_valid(row) {
            invalid(row, "SQLite can't hold NaN: it would become NULL".into());
        }
    }
}

fn check_exact(row: usize, value: i64, affinity: Affinity, invalid: &mut impl FnMut(usize, String)) {
    if affinity == Affinity::Real && !real_is_exact(value) {
        invalid(row, format!("the column holds reals and would round {value}"));
    }
}

/// Whether the nearest real is the integer itself. The nearest to `i64::MAX` is 2⁶³, which would saturate back to it.
fn real_is_exact(value: i64) -> bool {
    value.unsigned_abs() <= EXACT_MAX || (value as f64 as i64 == value && value != i64::MAX)
}

/// Whether a decimal survives being made a real or an integer.
fn real_keeps(value: i128, scale: i8) -> bool {
    let mut digits = value.unsigned_abs();
    while digits != 0 && digits.is_multiple_of(10) {
        digits /= 10;
    }
    digits < 10_u128.pow(REAL_DIGITS) || (scale == 0 && i64::try_from(value).is_ok_and(real_is_exact))
}

fn check_vectors(rows: usize, has_null: impl Fn(usize) -> bool, invalid: &mut impl FnMut(usize, String)) {
    for row in (0..rows).filter(|row| has_null(*row)) {
        invalid(row, "a list of f32 is stored as a blob, which has no place for a NULL among them".into());
    }
}

fn check_texts<'a>(
    bytes: usize,
    texts: impl Iterator<Item = Option<&'a str>> + Clone,
    affinity: Affinity,
    reject: &mut impl FnMut(usize, ErrorKind, String),
) {
    if bytes > LENGTH_MAX {
        check_lengths(texts.clone().map(|text| text.map(str::as_bytes)), reject);
    }
    if !affinity.is_numeric() {
        return;
    }
    for (row, text) in texts.enumerate() {
        if let Some(text) = text.filter(|text| !comes_back(text, affinity)) {
            let message = format!("the column is numeric and would turn the text '{text}' into a number");
            reject(row, ErrorKind::InvalidValue, message);
        }
    }
}

fn check_lengths<'a>(
    values: impl Iterator<Item = Option<&'a [u8]>>,
    reject: &mut impl FnMut(usize, ErrorKind, String),
) {
    for (row, value) in values.enumerate() {
        if let Some(length) = value.map(<[u8]>::len).filter(|length| *length > LENGTH_MAX) {
            let message = format!("the value has {length} bytes, and SQLite takes at most {LENGTH_MAX}");
            reject(row, ErrorKind::TooLarge, message);
        }
    }
}

/// Whether text put in a numeric column reads back as the same text: it doesn't look like a number, or it looks exactly as Barge
/// writes the number it becomes.
fn comes_back(text: &str, affinity: Affinity) -> bool {
    if !looks_like_number(text) {
        return true;
    }
    if let Ok(integer) = text.parse::<i64>() {
        return affinity != Affinity::Real && integer.to_string() == text;
    }
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    match text.parse::<f64>() {
        // A whole real becomes an integer, which is written without a point.
        Ok(real) if affinity == Affinity::Real || real.fract() != 0.0 => {
            digits <= REAL_DIGITS as usize && crate::batch::cells::real_text(real) == text
        }
        _ => false,
    }
}

/// Whether SQLite takes the whole text as a number: spaces around it are allowed, hexadecimal isn't.
fn looks_like_number(text: &str) -> bool {
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r');
    let bytes = text.as_bytes();
    let start = bytes.iter().take_while(|byte| space(byte)).count();
    let end = bytes.len() - bytes[start..].iter().rev().take_while(|byte| space(byte)).count();
    let mut rest = &bytes[start..end];
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if let [b'+' | b'-', tail @ ..] = rest {
        rest = tail;
    }
    let whole = digits(rest);
    rest = &rest[whole..];
    let mut fraction = 0;
    if let [b'.', tail @ ..] = rest {
        fraction = digits(tail);
        rest = &tail[fraction..];
    }
    if whole + fraction == 0 {
        return false;
    }
    if let [b'e' | b'E', tail @ ..] = rest {
        let tail = if let [b'+' | b'-', tail @ ..] = tail { tail } else { tail };
        return !tail.is_empty() && digits(tail) == tail.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SQLite itself does to a text in a column of a declared type.
    fn stored(connection: &rusqlite::Connection, declared: &str, text: &str) -> String {
        let sql = format!("DROP TABLE IF EXISTS t; CREATE TABLE t(x {declared})");
        connection.execute_batch(&sql).unwrap();
        connection.execute("INSERT INTO t VALUES (?1)", [text]).unwrap();
        connection.query_row("SELECT typeof(x) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn text_looks_like_a_number_exactly_where_sqlite_takes_it_as_one() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let texts = [
            "",
            " ",
            "1",
            " 1",
            "1 ",
            "\t1\n",
            "+1",
            "-1",
            "--1",
            "1.",
            ".5",
            ".",
            "1e5",
            "1e",
            "1e+5",
            "1e+",
            "0x1F",
            "1_000",
            "inf",
            "nan",
            "1 2",
            "1\0",
            "é",
            "2024-01-02",
            "007",
            "9223372036854775808",
            "1.5abc",
            "-",
            "+.5e-3",
        ];
        for text in texts {
            let number = stored(&connection, "NUMERIC", text) != "text";
            assert_eq!(looks_like_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn text_comes_back_only_where_it_is_written_as_its_number() {
        for text in ["123", "-5", "1.5", "0.1", "abc", ""] {
            assert!(comes_back(text, Affinity::Numeric), "{text}");
        }
        for text in ["007", "1.0", "+1", " 1", "1e5", "9223372036854775808", "0.30000000000000004", "1.50"] {
            assert!(!comes_back(text, Affinity::Integer), "{text}");
        }
        assert!(comes_back("1.0", Affinity::Real));
        assert!(!comes_back("1", Affinity::Real));
    }

    #[test]
    fn decimals_keep_fifteen_digits_in_numeric_columns() {
        assert!(real_keeps(123_456_789_012_345, 4));
        assert!(real_keeps(1_000_000_000_000_000_000_000, 4));
        assert!(!real_keeps(1_234_567_890_123_456, 4));
    }
}
