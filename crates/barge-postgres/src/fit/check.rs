//! What a column of the right type still can't hold, or would change in silence: digits it would round, text that is too
//! long.
//!
//! Each check first asks in one pass, without a branch per row, whether anything can be wrong; rows are looked at one by one
//! only then.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

use super::json;
use super::number::{POWERS, scaled_text};
use super::text::{DATES, DAY, TIMESTAMPS};
use super::value::Value;
use crate::types::{Kind, PgType};

/// The longest value in bytes: what the server allocates at most, less its own header.
const LENGTH_MAX: usize = (1 << 30) - 5;
/// The bytes of a `name`.
const NAME_MAX: usize = 63;

/// The rows that a column refuses, and why.
pub(super) type Rejected = Vec<(usize, String)>;

/// Checks an array of the column's type; `is_json` says that its texts are known to be JSON. What the column takes may be
/// written otherwise than what is given: then it is another array.
pub(super) fn check(array: ArrayRef, to: &PgType, is_json: bool, rejected: &mut Rejected) -> ArrayRef {
    match &to.kind {
        Kind::Numeric(Some((precision, scale))) => check_decimals(&array, *precision, *scale, rejected),
        Kind::Json if !is_json => each_text(&array, |row, text| {
            if let Err(message) = json::check(text) {
                rejected.push((row, message));
            }
        }),
        Kind::Jsonb => return check_jsonb(array, is_json, rejected),
        Kind::Text | Kind::Varchar(_) | Kind::Char(_) | Kind::Enum | Kind::Other => {
            check_texts(&array, to, rejected);
        }
        Kind::Bytea => check_lengths(&array, rejected),
        Kind::Date => check_dates(&array, rejected),
        Kind::Time(digits) => {
            let message = |micros| Value::Time(micros).to_string();
            check_times(
                array.as_primitive::<Time64MicrosecondType>(),
                0..=DAY - 1,
                *digits,
                message,
                rejected,
            );
        }
        Kind::Timestamp(digits) | Kind::Timestamptz(digits) => {
            let utc = matches!(to.kind, Kind::Timestamptz(_));
            let message = |micros| Value::Timestamp { micros, utc }.to_string();
            let array = array.as_primitive::<TimestampMicrosecondType>();
            check_times(array, TIMESTAMPS, *digits, message, rejected);
        }
        _ => {}
    }
    array
}

fn check_decimals(array: &ArrayRef, precision: u32, scale: i32, rejected: &mut Rejected) {
    // Literals were made for the column.
    let Some(decimals) = array.as_primitive_opt::<Decimal128Type>() else { return };
    let own_scale = i32::from(decimals.scale());
    // What is below 10 to the power of this many digits, counted in the array's own scale, has no more than the column's.
    let digits = i64::from(precision) + i64::from(own_scale) - i64::from(scale);
    let bound = match usize::try_from(digits) {
        Ok(digits) => POWERS.get(digits).map_or(u128::MAX, |power| power.unsigned_abs()),
        Err(_) => 1,
    };
    let dropped = POWERS.get(usize::try_from(own_scale - scale).unwrap_or(0)).copied().unwrap_or(i128::MAX);
    let fits = |value: i128| value.unsigned_abs() < bound && (dropped == 1 || value % dropped == 0);
    if decimals.values().iter().all(|value| fits(*value)) {
        return;
    }
    for (row, value) in decimals.iter().enumerate() {
        if let Some(value) = value.filter(|value| !fits(*value)) {
            let text = scaled_text(value, own_scale);
            rejected.push((row, format!("{text} doesn't fit numeric({precision},{scale})")));
        }
    }
}

fn check_dates(array: &ArrayRef, rejected: &mut Rejected) {
    let dates = array.as_primitive::<Date32Type>();
    if dates.values().iter().all(|days| DATES.contains(days)) {
        return;
    }
    for (row, days) in dates.iter().enumerate() {
        if let Some(days) = days.filter(|days| !DATES.contains(days)) {
            rejected.push((row, format!("{days} days from 1970-01-01 is outside the years 1 to 9999")));
        }
    }
}

fn check_times<T: ArrowPrimitiveType<Native = i64>>(
    times: &PrimitiveArray<T>,
    range: std::ops::RangeInclusive<i64>,
    digits: u32,
    shown: impl Fn(i64) -> String,
    rejected: &mut Rejected,
) {
    let unit = 10_i64.pow(6_u32.saturating_sub(digits));
    let fits = |micros: &i64| range.contains(micros) && (unit == 1 || micros % unit == 0);
    if times.values().iter().all(fits) {
        return;
    }
    for (row, micros) in times.iter().enumerate() {
        let Some(micros) = micros.filter(|micros| !fits(micros)) else { continue };
        let message = match range.contains(&micros) {
            true => {
                format!("{} has more digits of a second than the {digits} the column holds", shown(micros))
            }
            false if range.end() < &DAY => format!("{micros} µs since midnight is no time of a day"),
            false => format!("{micros} µs from 1970 is outside the years 1 to 9999"),
        };
        rejected.push((row, message));
    }
}

fn check_texts(array: &ArrayRef, to: &PgType, rejected: &mut Rejected) {
    if text_bytes(array).is_none_or(|bytes| bytes.contains(&0) || bytes.len() > LENGTH_MAX) {
        each_text(array, |row, text| {
            if text.as_bytes().contains(&0) {
                rejected.push((
                    row,
                    "the text holds the character NUL, which PostgreSQL has no place for".into(),
                ));
            } else if text.len() > LENGTH_MAX {
                rejected.push((row, too_long(text.len())));
            }
        });
    }
    match (&to.kind, to.sql.as_str()) {
        (Kind::Varchar(Some(length)), _) => each_text(array, |row, text| {
            rejected.extend(too_many_characters(text, *length).map(|message| (row, message)));
        }),
        (Kind::Char(length), _) => each_text(array, |row, text| {
            // Blanks at the end mean nothing to the column: it cuts them off and fills up with others.
            let text = text.trim_end_matches(' ');
            rejected.extend(too_many_characters(text, *length).map(|message| (row, message)));
        }),
        (Kind::Text, "name") => each_text(array, |row, text| {
            if text.len() > NAME_MAX {
                let message = format!("the value has {} bytes, and the column holds {NAME_MAX}", text.len());
                rejected.push((row, message));
            }
        }),
        (Kind::Text, "xml") => each_text(array, |row, text| {
            if text.starts_with("<?xml") {
                let message =
                    "the column keeps no XML declaration: leave '<?xml … ?>' out, or store it as text";
                rejected.push((row, message.into()));
            }
        }),
        (Kind::Other, "\"char\"") => each_text(array, |row, text| {
            if !(text.is_ascii() && text.len() == 1) {
                rejected.push((row, "the column holds one ASCII character".into()));
            }
        }),
        (Kind::Other, bits) if bits.starts_with("bit") => check_bits(array, bits, rejected),
        _ => {}
    }
}

/// A cast to `bit(n)` pads or cuts what is shorter or longer, and one to `bit varying(n)` cuts.
fn check_bits(array: &ArrayRef, type_name: &str, rejected: &mut Rejected) {
    let (name, length) = type_name.trim_end_matches(')').split_once('(').unwrap_or((type_name, ""));
    let Ok(length) = length.parse::<usize>() else { return };
    each_text(array, |row, text| {
        let fits = if name == "bit" { text.len() == length } else { text.len() <= length };
        if !fits {
            rejected.push((row, format!("the value has {} bits, and the column holds {length}", text.len())));
        }
    });
}

fn check_lengths(array: &ArrayRef, rejected: &mut Rejected) {
    fn longer<'a>(values: impl Iterator<Item = Option<&'a [u8]>>, rejected: &mut Rejected) {
        let lengths = values.enumerate().map(|(row, value)| (row, value.map_or(0, <[u8]>::len)));
        rejected.extend(
            lengths.filter(|(_, length)| *length > LENGTH_MAX).map(|(row, length)| (row, too_long(length))),
        );
    }
    match array.data_type() {
        DataType::Binary if array.as_binary::<i32>().value_data().len() > LENGTH_MAX => {
            longer(array.as_binary::<i32>().iter(), rejected);
        }
        DataType::LargeBinary if array.as_binary::<i64>().value_data().len() > LENGTH_MAX => {
            longer(array.as_binary::<i64>().iter(), rejected);
        }
        DataType::BinaryView => longer(array.as_binary_view().iter(), rejected),
        _ => {}
    }
}

fn too_many_characters(text: &str, characters_max: u32) -> Option<String> {
    // A text has at least as many bytes as characters.
    if text.len() <= characters_max as usize {
        return None;
    }
    let characters = text.chars().count();
    (characters > characters_max as usize)
        .then(|| format!("the value has {characters} characters, and the column holds {characters_max}"))
}

fn too_long(bytes: usize) -> String {
    format!("the value has {bytes} bytes, and PostgreSQL takes at most {LENGTH_MAX}")
}

/// Checks documents, and writes those anew that a `jsonb` would change.
fn check_jsonb(array: ArrayRef, is_json: bool, rejected: &mut Rejected) -> ArrayRef {
    let mut written: Vec<(usize, String)> = Vec::new();
    each_text(&array, |row, text| {
        let checked = if is_json { Ok(()) } else { json::check(text) };
        match checked.and_then(|()| json::for_jsonb(text)) {
            Ok(None) => {}
            Ok(Some(text)) => written.push((row, text)),
            Err(message) => rejected.push((row, message)),
        }
    });
    if written.is_empty() {
        return array;
    }
    let mut texts: Vec<Option<&str>> = vec![None; array.len()];
    each_text(&array, |row, text| texts[row] = Some(text));
    for (row, text) in &written {
        texts[*row] = Some(text);
    }
    Arc::new(LargeStringArray::from_iter(texts))
}

/// All bytes of the texts, one after another, where they are kept so.
fn text_bytes(array: &ArrayRef) -> Option<&[u8]> {
    fn used<O: OffsetSizeTrait>(texts: &GenericStringArray<O>) -> &[u8] {
        let (first, end) = (texts.value_offsets()[0], texts.value_offsets()[texts.len()]);
        &texts.value_data()[first.as_usize()..end.as_usize()]
    }
    match array.data_type() {
        DataType::Utf8 => Some(used(array.as_string::<i32>())),
        DataType::LargeUtf8 => Some(used(array.as_string::<i64>())),
        _ => None,
    }
}

/// Calls for each text that isn't NULL.
fn each_text<'a>(array: &'a ArrayRef, mut call: impl FnMut(usize, &'a str)) {
    fn each<'a>(texts: impl Iterator<Item = Option<&'a str>>, call: &mut impl FnMut(usize, &'a str)) {
        for (row, text) in texts.enumerate() {
            if let Some(text) = text {
                call(row, text);
            }
        }
    }
    match array.data_type() {
        DataType::Utf8 => each(array.as_string::<i32>().iter(), &mut call),
        DataType::LargeUtf8 => each(array.as_string::<i64>().iter(), &mut call),
        DataType::Utf8View => each(array.as_string_view().iter(), &mut call),
        _ => {}
    }
}
