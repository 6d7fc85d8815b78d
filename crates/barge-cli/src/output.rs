//! Text to standard output and standard error, and numbers as people read them.

use std::io::{self, Write};

use barge::{Error, Result};

/// Writes a command's result to standard output. A reader that went away, as `head` does, is no failure.
///
/// # Errors
/// `Io` or `DiskFull` where standard output can't be written.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::from(error).context("standard output can't be written"))
        }
        _ => Ok(()),
    }
}

/// Writes a message to standard error. Where that can't be written there is nobody left to tell.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr().lock(), "barge: {message}");
}

/// Writes a summary to standard error, where standard output has the rows.
pub(crate) fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A whole number with its thousands apart: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number that goes with a noun: `1 row`, `2 rows`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A table of cells as aligned lines, each after `indent`. The last column is not padded.
pub(crate) fn aligned(indent: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The same rows with the second column aligned to the right.
pub(crate) fn right_aligned(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let width = rows.iter().map(|row| row[1].len()).max().unwrap_or(0);
    for row in &mut rows {
        row[1] = format!("{:>width$}", row[1]);
    }
    rows
}

/// A name as it can stand in one line of text: control characters escaped.
pub(crate) fn shown(name: &str) -> String {
    name.chars().fold(String::with_capacity(name.len()), |mut text, letter| {
        if letter.is_control() {
            text.extend(letter.escape_default())
        } else {
            text.push(letter)
        }
        text
    })
}

/// A URL without the password in it, nor what may be a piece of one.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (place, parameters) = rest.split_once('?').map_or((rest, None), |(place, rest)| (place, Some(rest)));
    let end = place.find('/').unwrap_or(place.len());
    let mut shown = match place[..end].rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:***@{host}{}", &place[end..]),
            None => format!("{scheme}://{place}"),
        },
        None => format!("{scheme}://{place}"),
    };
    if let Some(parameters) = parameters {
        let guarded = |parameter: &str| match parameter.split_once('=') {
            // A name may be written with %.
            Some((name, _)) if name.contains(['%', '@']) || name.contains("pass") => format!("{name}=***"),
            Some((name, value)) if value.contains('@') => format!("{name}=***"),
            Some(_) => parameter.to_owned(),
            None => "***".to_owned(),
        };
        shown.push('?');
        shown.push_str(&parameters.split('&').map(guarded).collect::<Vec<_>>().join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn passwords_stay_out_of_sight() {
        assert_eq!(without_password("postgres://me:p@ss@host/db?x=1"), "postgres://me:***@host/db?x=1");
        assert_eq!(without_password("postgres://me@host/db"), "postgres://me@host/db");
        assert_eq!(
            without_password("postgres://host?password=secret&host=/run&pa%73sword=x"),
            "postgres://host?password=***&host=/run&pa%73sword=***"
        );
        assert_eq!(without_password("postgres://me:a?b&user=c@d"), "postgres://me:a?***&user=***");
        assert_eq!(without_password("sqlite:a@b:c.db"), "sqlite:a@b:c.db");
    }
}
