//! The values of options: lists of names, sizes, types.

use std::str::FromStr;

use barge::arrow::datatypes::{DataType, TimeUnit};

use super::reading::Quote;

/// Names from comma-separated lists. In double quotes a comma is part of the name, and a quote is written twice.
pub(crate) fn names(lists: &[String]) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    for list in lists {
        let mut rest = list.as_str();
        loop {
            let (name, after) = one_name(rest).ok_or_else(|| format!("{list}: a quote is not closed"))?;
            if name.is_empty() {
                return Err(format!("{list:?}: a column's name is empty"));
            }
            if names.contains(&name) {
                return Err(format!("{list}: column {name} is there twice"));
            }
            names.push(name);
            match after.strip_prefix(',') {
                Some(after) => rest = after,
                None if after.is_empty() => break,
                None => return Err(format!("{list}: expected a comma before {after}")),
            }
        }
    }
    Ok(names)
}

/// The first name of a list, and what follows it.
fn one_name(list: &str) -> Option<(String, &str)> {
    let Some(mut quoted) = list.strip_prefix('"') else {
        let end = list.find(',').unwrap_or(list.len());
        return Some((list[..end].trim().to_owned(), &list[end..]));
    };
    let mut name = String::new();
    loop {
        let end = quoted.find('"')?;
        name.push_str(&quoted[..end]);
        quoted = &quoted[end + 1..];
        match quoted.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                quoted = after;
            }
            None => return Some((name, quoted)),
        }
    }
}

/// A number of rows: none would never end, and more than these are not counted in one batch.
pub(super) fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rows) if (1..=u32::MAX as usize).contains(&rows) => Ok(rows),
        _ => Err(format!("expected a number of rows, from 1 to {}", u32::MAX)),
    }
}

pub(super) fn connections(text: &str) -> Result<usize, String> {
    const MAX: usize = 64;
    match text.parse() {
        Ok(connections) if (1..=MAX).contains(&connections) => Ok(connections),
        _ => Err(format!("expected a number of connections, from 1 to {MAX}")),
    }
}

pub(super) fn bytes(text: &str) -> Result<usize, String> {
    const MAX: usize = 1 << 30;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("expected a number of bytes, as in 500000, 512KiB or 8MiB".into()),
    };
    let number = usize::from_str(&text[..digits]).ok().and_then(|number| number.checked_mul(unit));
    match number {
        Some(bytes @ 1..=MAX) => Ok(bytes),
        Some(_) => Err("expected from 1 byte to 1GiB".into()),
        None => Err("expected a number of bytes, as in 500000, 512KiB or 8MiB".into()),
    }
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, from 0.01 to 86400".into()),
    }
}

pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text.eq_ignore_ascii_case("tab") || text == "\\t" => Ok(b'\t'),
        [byte] => Ok(*byte),
        _ => Err("expected one ASCII character, or tab".into()),
    }
}

pub(super) fn quote(text: &str) -> Result<Quote, String> {
    match text.as_bytes() {
        _ if text.eq_ignore_ascii_case("none") => Ok(Quote(None)),
        [byte] => Ok(Quote(Some(*byte))),
        _ => Err("expected one ASCII character, or none".into()),
    }
}

pub(super) fn column_type(text: &str) -> Result<(String, DataType), String> {
    // A type has no equals sign; a name may.
    let (name, data_type) = text.rsplit_once('=').ok_or("expected NAME=TYPE, as in price=decimal(12,2)")?;
    Ok((name.to_owned(), data_type_of(data_type.trim())?))
}

fn data_type_of(text: &str) -> Result<DataType, String> {
    let lower = text.to_ascii_lowercase();
    Ok(match lower.as_str() {
        "boolean" | "bool" => DataType::Boolean,
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" => DataType::Int32,
        "int64" => DataType::Int64,
        "uint8" => DataType::UInt8,
        "uint16" => DataType::UInt16,
        "uint32" => DataType::UInt32,
        "uint64" => DataType::UInt64,
        "float32" => DataType::Float32,
        "float64" => DataType::Float64,
        "text" => DataType::Utf8,
        "binary" => DataType::Binary,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamptz" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => return decimal_of(&lower).ok_or_else(|| format!("{text} is not a type that --help lists")),
    })
}

fn decimal_of(text: &str) -> Option<DataType> {
    let (precision, scale) = text.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let (precision, scale): (u8, i8) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
    let fits = (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale);
    fits.then_some(DataType::Decimal128(precision, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_commas_and_quotes() {
        let lists = ["a, b c".to_owned(), "\"x,\"\"y\"".to_owned()];
        assert_eq!(names(&lists).unwrap(), ["a", "b c", "x,\"y"]);
        assert!(names(&["a,,b".to_owned()]).is_err());
        assert!(names(&["\"a".to_owned()]).is_err());
        assert!(names(&["a,a".to_owned()]).unwrap_err().contains("twice"));
    }

    #[test]
    fn sizes_and_types_are_read() {
        assert_eq!((bytes("500"), bytes("8MiB"), bytes("2 k")), (Ok(500), Ok(8 << 20), Ok(2048)));
        assert!(bytes("MiB").is_err() && bytes("5 parsecs").is_err());
        assert_eq!(column_type("a=b=decimal(12, 2)").unwrap(), ("a=b".into(), DataType::Decimal128(12, 2)));
        assert!(column_type("price=money").is_err() && column_type("price").is_err());
    }
}
