//! Values other than numbers and times from bytes, and what is said of a value that is not one.

use super::kind::{Column, Kind, Origin};

/// The most characters of a value that a message quotes.
const SHOWN_CHARACTERS_MAX: usize = 80;

/// Why a value cannot stand in its column.
#[derive(Debug, PartialEq)]
pub(crate) enum Wrong {
    Malformed,
    OutOfRange,
    /// A number that would not print back as it is written, in a column whose type was inferred.
    NotPlain,
    Precision(u8),
    Scale(i8),
    NoSuchDate,
    NoSuchTime,
    /// A time more exact than its column.
    Fraction,
    /// An offset from UTC in a column without a time zone.
    Offset,
    /// The place of the first bad byte in the value.
    Utf8(usize),
    Json(Box<str>),
    Bytes {
        expected: i32,
        found: usize,
    },
    Items {
        expected: i32,
        found: usize,
    },
    /// An item of a list, and what is said of it.
    Item {
        index: usize,
        message: Box<str>,
    },
}

impl Wrong {
    /// What is wrong with the value, and where the column's type comes from.
    pub(crate) fn explain(&self, column: &Column, value: &[u8]) -> String {
        let mut message = self.describe(&column.kind, value);
        if let Origin::Sample(rows) = column.origin {
            let (data_type, name) = (column.kind.data_type(), column.field.name());
            let invalid_text = column.kind == Kind::Text;
            if !invalid_text {
                message.push_str(&format!(
                    "; the column was taken for {data_type} from the {}: \
                     use --text {name} or a larger --sample-rows",
                    first_rows(rows)
                ));
            }
        }
        message
    }

    /// What is wrong with the value.
    pub(crate) fn describe(&self, kind: &Kind, value: &[u8]) -> String {
        let shown = show(value);
        match self {
            Wrong::Malformed => format!("{shown} is not {kind}"),
            Wrong::OutOfRange => match range(kind) {
                Some((low, high)) => {
                    format!("{shown} is out of range: {} holds {low} to {high}", kind.data_type())
                }
                None => format!("{shown} is out of range for {}", kind.data_type()),
            },
            Wrong::NotPlain => format!("{shown} would not come back as it is written if it were a number"),
            Wrong::Precision(precision) => {
                format!("{shown} has too many digits: {} holds {precision}", kind.data_type())
            }
            Wrong::Scale(scale) => {
                format!("{shown} would be rounded: {} keeps {scale} digits after the point", kind.data_type())
            }
            Wrong::NoSuchDate => {
                format!("{shown} is not {kind}: there is no such day in the years 1 to 9999")
            }
            Wrong::NoSuchTime => format!("{shown} is not {kind}: there is no such time of day"),
            Wrong::Fraction => {
                format!("{shown} is more exact than {}, and nothing is cut off", kind.data_type())
            }
            Wrong::Offset => format!("{shown} has an offset from UTC, and the column has no time zone"),
            Wrong::Utf8(at) => {
                let byte = value.get(*at).copied().unwrap_or_default();
                format!("{shown} is not valid UTF-8: its byte {} is {byte:#04x}", at + 1)
            }
            Wrong::Json(reason) => format!("{shown} is not valid JSON: {reason}"),
            Wrong::Bytes { expected, found } => {
                format!("{shown} has {found} bytes where {expected} are expected")
            }
            Wrong::Items { expected, found } => {
                format!("{shown} has {found} items where {expected} are expected")
            }
            Wrong::Item { index, message } => format!("{shown}: item {}: {message}", index + 1),
        }
    }
}

/// What a sample is called in messages.
pub(crate) fn first_rows(rows: usize) -> String {
    if rows == 1 { "first row".to_owned() } else { format!("first {rows} rows") }
}

/// A value as messages quote it.
pub(crate) fn show(value: &[u8]) -> String {
    // Four bytes are the most a character takes.
    let head = &value[..value.len().min(4 * SHOWN_CHARACTERS_MAX + 4)];
    let text = String::from_utf8_lossy(head);
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((at, _)) => format!("{:?}… ({} bytes)", &text[..at], value.len()),
        None => format!("{text:?}"),
    }
}

fn range(kind: &Kind) -> Option<(i128, i128)> {
    Some(match kind {
        Kind::Int8 => (i8::MIN.into(), i8::MAX.into()),
        Kind::Int16 => (i16::MIN.into(), i16::MAX.into()),
        Kind::Int32 => (i32::MIN.into(), i32::MAX.into()),
        Kind::Int64 => (i64::MIN.into(), i64::MAX.into()),
        Kind::UInt8 => (0, u8::MAX.into()),
        Kind::UInt16 => (0, u16::MAX.into()),
        Kind::UInt32 => (0, u32::MAX.into()),
        Kind::UInt64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// `true` and `false`, and in columns that were declared boolean also t, f, yes, no, y, n, 1 and 0.
#[inline]
pub(super) fn boolean(bytes: &[u8], inferred: bool) -> Result<bool, Wrong> {
    let is_any = |words: &[&str]| words.iter().any(|word| bytes.eq_ignore_ascii_case(word.as_bytes()));
    if is_any(&["true"]) {
        Ok(true)
    } else if is_any(&["false"]) {
        Ok(false)
    } else if !inferred && is_any(&["t", "1", "yes", "y"]) {
        Ok(true)
    } else if !inferred && is_any(&["f", "0", "no", "n"]) {
        Ok(false)
    } else {
        Err(Wrong::Malformed)
    }
}

fn hex_digit(byte: u8) -> Result<u8, Wrong> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(Wrong::Malformed),
    }
}

/// Hexadecimal digits, with `\x` or `0x` before them or not; the bytes are added to `out`.
pub(super) fn hexadecimal(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Wrong> {
    let digits = match bytes {
        [b'\\', b'x' | b'X', digits @ ..] | [b'0', b'x' | b'X', digits @ ..] => digits,
        _ => bytes,
    };
    if digits.len() % 2 != 0 {
        return Err(Wrong::Malformed);
    }
    for pair in digits.chunks_exact(2) {
        out.push(hex_digit(pair[0])? << 4 | hex_digit(pair[1])?);
    }
    Ok(())
}

/// 32 hexadecimal digits, grouped by hyphens or not, in braces or not.
pub(super) fn uuid(bytes: &[u8]) -> Result<[u8; 16], Wrong> {
    let inner = bytes.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or(bytes);
    let mut digits = [0; 32];
    match inner.len() {
        32 => digits.copy_from_slice(inner),
        36 if [8, 13, 18, 23].iter().all(|&at| inner[at] == b'-') => {
            let groups = [0..8, 9..13, 14..18, 19..23, 24..36];
            for (slot, &byte) in digits.iter_mut().zip(groups.into_iter().flat_map(|group| &inner[group])) {
                *slot = byte;
            }
        }
        _ => return Err(Wrong::Malformed),
    }
    let mut value = [0; 16];
    for (slot, pair) in value.iter_mut().zip(digits.chunks_exact(2)) {
        *slot = hex_digit(pair[0])? << 4 | hex_digit(pair[1])?;
    }
    Ok(value)
}

/// The items of an array as PostgreSQL writes one, `{1,NULL,"a, b"}`: one dimension, without bounds. White space around it is gone.
pub(super) fn array_literal(bytes: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut rest = bytes.strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii_start();
    let mut items = Vec::new();
    if rest.is_empty() {
        return Some(items);
    }
    loop {
        let (item, after) = array_item(rest)?;
        items.push(item);
        rest = match after.trim_ascii_start() {
            [] => return Some(items),
            [b',', after @ ..] => after.trim_ascii_start(),
            _ => return None,
        };
    }
}

/// The first of some items, and what follows it. A backslash takes the next byte as it is.
fn array_item(text: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    let mut item = Vec::new();
    if let Some(mut rest) = text.strip_prefix(b"\"") {
        loop {
            rest = match rest {
                [b'"', after @ ..] => return Some((Some(item), after)),
                [] | [b'\\'] => return None,
                [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                    item.push(*byte);
                    after
                }
            };
        }
    }
    let (mut rest, mut escaped) = (text, 0);
    loop {
        rest = match rest {
            [] | [b',', ..] => break,
            [b'"' | b'{' | b'}', ..] => return None,
            [b'\\', byte, after @ ..] => {
                item.push(*byte);
                escaped = item.len();
                after
            }
            [b'\\'] => return None,
            [byte, after @ ..] => {
                item.push(*byte);
                after
            }
        };
    }
    // White space that is not escaped ends with the item.
    while item.len() > escaped && item.last().is_some_and(u8::is_ascii_whitespace) {
        item.pop();
    }
    match item.len() {
        0 => None,
        _ if escaped == 0 && item.eq_ignore_ascii_case(b"null") => Some((None, rest)),
        _ => Some((Some(item), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read_as_postgresql_writes_them() {
        let items = |text: &str| {
            let items = array_literal(text.as_bytes())?;
            let shown =
                |item: Option<Vec<u8>>| item.map_or("∅".into(), |item| String::from_utf8(item).unwrap());
            Some(items.into_iter().map(shown).collect::<Vec<_>>())
        };
        for (text, expected) in [
            ("{}", vec![]),
            ("{ }", vec![]),
            ("{1,2}", vec!["1", "2"]),
            ("{ 1 , NULL,null }", vec!["1", "∅", "∅"]),
            (r#"{"null",a b,"c, \"d\"","\\",""}"#, vec!["null", "a b", "c, \"d\"", "\\", ""]),
            (r"{n\ull,\ x\ }", vec!["null", " x "]),
        ] {
            assert_eq!(items(text), Some(expected.into_iter().map(str::to_owned).collect()), "{text}");
        }
        for text in [
            "",
            "{",
            "}",
            "{1",
            "1}",
            "{1,}",
            "{,}",
            "{1,,2}",
            "{{1},{2}}",
            r#"{"a"b}"#,
            r#"{a"b"}"#,
            r#"{"a}"#,
            r"{a\}",
        ] {
            assert_eq!(items(text), None, "{text}");
        }
    }

    #[test]
    fn booleans() {
        assert_eq!(boolean(b"True", true), Ok(true));
        assert_eq!(boolean(b"FALSE", true), Ok(false));
        assert_eq!(boolean(b"yes", false), Ok(true));
        assert_eq!(boolean(b"0", false), Ok(false));
        assert_eq!(boolean(b"0", true), Err(Wrong::Malformed));
        assert_eq!(boolean(b"2", false), Err(Wrong::Malformed));
    }

    #[test]
    fn bytes_and_uuids() {
        let bytes = |text: &str| {
            let mut out = Vec::new();
            hexadecimal(text.as_bytes(), &mut out).map(|()| out)
        };
        assert_eq!(bytes("\\x00Ff"), Ok(vec![0, 255]));
        assert_eq!(bytes("0x10"), Ok(vec![16]));
        assert_eq!(bytes("cafe"), Ok(vec![0xca, 0xfe]));
        assert_eq!(bytes("\\x"), Ok(vec![]));
        assert_eq!(bytes("abc"), Err(Wrong::Malformed));
        assert_eq!(bytes("zz"), Err(Wrong::Malformed));
        let expected = Ok(*b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff");
        for text in [
            "00112233-4455-6677-8899-aabbccddeeff",
            "00112233445566778899AABBCCDDEEFF",
            "{00112233-4455-6677-8899-aabbccddeeff}",
        ] {
            assert_eq!(uuid(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(uuid(b"00112233-4455-6677-8899-aabbccddeef"), Err(Wrong::Malformed));
        assert_eq!(uuid(b"00112233-4455-6677-8899+aabbccddeeff"), Err(Wrong::Malformed));
    }

    #[test]
    fn long_values_are_cut() {
        assert_eq!(show(b"a\"b"), r#""a\"b""#);
        let long = "é".repeat(1000);
        assert_eq!(show(long.as_bytes()), format!("\"{}\"… (2000 bytes)", "é".repeat(80)));
    }
}
