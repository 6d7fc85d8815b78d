//! The types of columns, from a sample of their cells.

use std::sync::Arc;

use arrow::datatypes::TimeUnit;

use super::cells::{Cells, Tag};
use super::convert::Syntax;
use super::kind::Kind;
use super::{number, parse, temporal};

/// A set of types that every value seen so far could be.
#[derive(Clone, Copy, PartialEq)]
struct Candidates(u8);

impl Candidates {
    const BOOLEAN: u8 = 1;
    const INTEGER: u8 = 1 << 1;
    const FLOAT: u8 = 1 << 2;
    const DATE: u8 = 1 << 3;
    const LOCAL: u8 = 1 << 4;
    const INSTANT: u8 = 1 << 5;
    const TIMES: u8 = Self::DATE | Self::LOCAL | Self::INSTANT;
    const ALL: u8 = u8::MAX;

    fn of(bytes: &[u8]) -> u8 {
        let bytes = bytes.trim_ascii();
        match bytes.first() {
            None => 0,
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') => Self::of_number(bytes) | Self::of_time(bytes),
            Some(_) if parse::boolean(bytes, true).is_ok() => Self::BOOLEAN,
            Some(_) if number::float64(bytes).is_ok() => Self::FLOAT,
            Some(_) => 0,
        }
    }

    /// A number with more digits than a float keeps is none: it would lose some.
    fn of_number(bytes: &[u8]) -> u8 {
        match number::int64(bytes) {
            Ok(_) if number::is_plain_integer(bytes) => Self::INTEGER | Self::FLOAT,
            // A negative zero.
            Ok(0) if number::is_plain_float(bytes) => Self::FLOAT,
            Ok(_) | Err(parse::Wrong::OutOfRange) => 0,
            Err(_) if number::is_plain_float(bytes) && number::keeps_digits(bytes) => Self::FLOAT,
            Err(_) => 0,
        }
    }

    fn of_time(bytes: &[u8]) -> u8 {
        match temporal::timestamp(bytes) {
            Ok((_, None)) if bytes.len() == 10 => Self::DATE | Self::LOCAL,
            Ok((_, None)) => Self::LOCAL,
            Ok((_, Some(_))) => Self::INSTANT,
            Err(_) => 0,
        }
    }

    fn kind(self) -> Kind {
        for (candidate, kind) in [
            (Self::BOOLEAN, Kind::Boolean),
            (Self::INTEGER, Kind::Int64),
            (Self::FLOAT, Kind::Float64),
            (Self::DATE, Kind::Date),
            (Self::LOCAL, Kind::Timestamp { unit: TimeUnit::Microsecond, zone: None }),
            (Self::INSTANT, Kind::Timestamp { unit: TimeUnit::Microsecond, zone: Some(Arc::from("UTC")) }),
        ] {
            if self.0 & candidate != 0 {
                return kind;
            }
        }
        Kind::Text
    }
}

/// The narrowest type that all values of a column have; text where there are none.
pub(crate) fn infer(cells: &Cells, column: usize, syntax: Syntax) -> Kind {
    let mut candidates = Candidates(Candidates::ALL);
    let (mut seen, mut nested) = (false, false);
    for row in 0..cells.rows() {
        let (tag, bytes) = cells.get(row, column);
        let possible = match tag {
            Tag::Null => continue,
            Tag::Quoted if bytes.is_empty() && syntax == Syntax::Csv => continue,
            Tag::Nested => {
                nested = true;
                0
            }
            // A JSON string is no number, whatever it holds; but JSON has no other way to write a time.
            Tag::Quoted if syntax == Syntax::Json => Candidates::of(bytes) & Candidates::TIMES,
            Tag::Quoted | Tag::Bare => Candidates::of(bytes),
        };
        seen = true;
        candidates.0 &= possible;
        if candidates.0 == 0 && syntax == Syntax::Csv {
            break;
        }
    }
    match (seen, nested) {
        (_, true) => Kind::Json,
        (true, false) => candidates.kind(),
        (false, false) => Kind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::Place;
    use super::*;

    fn kind_of(values: &[&str], tag: Tag, syntax: Syntax) -> Kind {
        let mut cells = Cells::new(1);
        for value in values {
            cells.push(value.as_bytes(), if value.is_empty() { Tag::Null } else { tag });
            cells.push_row(Place { line: 1, row: 1, raw_start: 0, raw_bytes: 0 });
        }
        infer(&cells, 0, syntax)
    }

    #[test]
    fn the_narrowest_type_wins() {
        let utc = Kind::Timestamp { unit: TimeUnit::Microsecond, zone: Some("UTC".into()) };
        let cases: &[(&[&str], Kind)] = &[
            (&["1", "-7", "", "0"], Kind::Int64),
            (&["1", "2.5"], Kind::Float64),
            (&["1", "1e3", "NaN", "inf"], Kind::Float64),
            (&["true", "False"], Kind::Boolean),
            (&["true", "1"], Kind::Text),
            (&["2024-02-29", ""], Kind::Date),
            (
                &["2024-02-29", "2024-02-29 10:00"],
                Kind::Timestamp { unit: TimeUnit::Microsecond, zone: None },
            ),
            (&["0.5", "1234567890123456.78"], Kind::Text),
            (&["2024-02-29T10:00:00Z", "2024-02-29T10:00:00.5+02:00"], utc),
            (&["2024-02-29T10:00:00Z", "2024-02-29"], Kind::Text),
            (&["2023-02-29"], Kind::Text),
            (&["007", "8"], Kind::Text),
            (&["+7"], Kind::Text),
            (&["9223372036854775807"], Kind::Int64),
            (&["9223372036854775808"], Kind::Text),
            (&["1e400"], Kind::Text),
            (&["", ""], Kind::Text),
            (&["20240229"], Kind::Int64),
        ];
        for (values, kind) in cases {
            assert_eq!(kind_of(values, Tag::Bare, Syntax::Csv), *kind, "{values:?}");
        }
    }

    #[test]
    fn json_strings_are_text_or_times() {
        assert_eq!(kind_of(&["1"], Tag::Quoted, Syntax::Json), Kind::Text);
        assert_eq!(kind_of(&["1"], Tag::Quoted, Syntax::Csv), Kind::Int64);
        assert_eq!(kind_of(&["2024-02-29"], Tag::Quoted, Syntax::Json), Kind::Date);
        assert_eq!(kind_of(&["{}", ""], Tag::Nested, Syntax::Json), Kind::Json);
    }
}
