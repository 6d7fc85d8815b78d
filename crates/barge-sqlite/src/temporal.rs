//! Dates and times as ISO 8601 text, written and read by hand: no formatting machinery per value.
//!
//! Written: `2024-01-02`, `03:04:05.123456`, `2024-01-02T03:04:05.123456`, with `Z` for UTC. Always six digits of a second, so that
//! texts sort as the times do. Read: these, and what SQLite and others write (a space for the `T`, fewer or no digits of
//! a second, no seconds, an offset).

use std::str;

/// Microseconds in a day.
const DAY: i64 = 86_400_000_000;

/// A short text on the stack.
#[derive(Clone, Copy)]
pub(crate) struct ShortText {
    bytes: [u8; 48],
    length: usize,
}

impl ShortText {
    fn new() -> Self {
        ShortText { bytes: [0; 48], length: 0 }
    }

    pub(crate) fn as_str(&self) -> &str {
        // Only ASCII is ever pushed.
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn push_digits(&mut self, mut value: u32, width: usize) {
        for place in (0..width).rev() {
            self.bytes[self.length + place] = b'0' + (value % 10) as u8;
            value /= 10;
        }
        self.length += width;
    }

    fn push_date(&mut self, days: i32) {
        let (year, month, day) = civil(days);
        match u32::try_from(year) {
            Ok(year) if year <= 9_999 => self.push_digits(year, 4),
            _ => {
                self.push(if year < 0 { b'-' } else { b'+' });
                self.push_digits(year.unsigned_abs(), 7);
            }
        }
        self.push(b'-');
        self.push_digits(month, 2);
        self.push(b'-');
        self.push_digits(day, 2);
    }

    fn push_time(&mut self, micros: i64) {
        let (seconds, fraction) = ((micros / 1_000_000) as u32, (micros % 1_000_000) as u32);
        self.push_digits(seconds / 3_600, 2);
        self.push(b':');
        self.push_digits(seconds / 60 % 60, 2);
        self.push(b':');
        self.push_digits(seconds % 60, 2);
        self.push(b'.');
        self.push_digits(fraction, 6);
    }
}

/// Days from 1970-01-01 as text.
pub(crate) fn date_text(days: i32) -> ShortText {
    let mut text = ShortText::new();
    text.push_date(days);
    text
}

/// Microseconds since midnight as text.
pub(crate) fn time_text(micros: i64) -> ShortText {
    let mut text = ShortText::new();
    text.push_time(micros.rem_euclid(DAY));
    text
}

/// Microseconds from 1970-01-01T00:00 as text, with a `Z` where they are UTC.
pub(crate) fn timestamp_text(micros: i64, utc: bool) -> ShortText {
    let mut text = ShortText::new();
    text.push_date(micros.div_euclid(DAY) as i32);
    text.push(b'T');
    text.push_time(micros.rem_euclid(DAY));
    if utc {
        text.push(b'Z');
    }
    text
}

/// The 36 characters of a UUID.
pub(crate) fn uuid_text(bytes: &[u8]) -> ShortText {
    const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";
    let mut text = ShortText::new();
    for (index, byte) in bytes.iter().take(16).enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push(b'-');
        }
        text.push(HEXADECIMAL[usize::from(byte >> 4)]);
        text.push(HEXADECIMAL[usize::from(byte & 15)]);
    }
    text
}

/// Reads a UUID: 32 hexadecimal digits, with hyphens or without, in braces or not.
pub(crate) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim_start_matches('{').trim_end_matches('}');
    let mut bytes = [0_u8; 16];
    let mut digits = 0;
    for byte in text.bytes().filter(|byte| *byte != b'-') {
        let digit = (byte as char).to_digit(16)? as u8;
        *bytes.get_mut(digits / 2)? |= if digits % 2 == 0 { digit << 4 } else { digit };
        digits += 1;
    }
    (digits == 32).then_some(bytes)
}

/// Reads a date as days from 1970-01-01. A time behind it must be midnight.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    match text.len() {
        10 => date_of(text.as_bytes()),
        _ => {
            let (micros, _) = parse_timestamp(text)?;
            (micros.rem_euclid(DAY) == 0).then_some(micros.div_euclid(DAY) as i32)
        }
    }
}

/// Reads a time of day as microseconds since midnight.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (micros, rest) = time_of(text.as_bytes())?;
    rest.is_empty().then_some(micros)
}

/// Reads a date and time as microseconds from 1970-01-01T00:00 UTC, and whether the text names an offset or `Z`. Without
/// one it is taken as UTC, as SQLite's own functions take it.
pub(crate) fn parse_timestamp(text: &str) -> Option<(i64, bool)> {
    let bytes = text.as_bytes();
    let days = i64::from(date_of(bytes.get(..10)?)?);
    let rest = &bytes[10..];
    if rest.is_empty() {
        return Some((days * DAY, false));
    }
    if !matches!(rest[0], b'T' | b't' | b' ') {
        return None;
    }
    let (micros, rest) = time_of(&rest[1..])?;
    let local = days * DAY + micros;
    match rest {
        [] => Some((local, false)),
        b"Z" | b"z" | b" UTC" => Some((local, true)),
        [sign @ (b'+' | b'-'), offset @ ..] => {
            let minutes = match offset {
                hours if hours.len() == 2 => number(hours)? * 60,
                [hours @ .., a, b] if hours.len() == 2 => number(hours)? * 60 + number(&[*a, *b])?,
                [hours @ .., b':', a, b] if hours.len() == 2 => number(hours)? * 60 + number(&[*a, *b])?,
                _ => return None,
            };
            let offset = i64::from(minutes) * 60_000_000;
            Some((if *sign == b'+' { local - offset } else { local + offset }, true))
        }
        _ => None,
    }
}

fn date_of(bytes: &[u8]) -> Option<i32> {
    let [year @ .., b'-', m1, m2, b'-', d1, d2] = bytes else { return None };
    if year.len() != 4 {
        return None;
    }
    let (year, month, day) = (number(year)?, number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let days = days_of(year as i32, month, day);
    // A day that the month doesn't have comes back as another date.
    (1..=12).contains(&month).then_some(())?;
    (civil(days) == (year as i32, month, day)).then_some(days)
}

/// A time of day and what follows it.
fn time_of(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let [h1, h2, b':', m1, m2, rest @ ..] = bytes else { return None };
    let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
    let (seconds, rest) = match rest {
        [b':', s1, s2, rest @ ..] => (number(&[*s1, *s2])?, rest),
        _ => (0, rest),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let mut micros = i64::from(hours * 3_600 + minutes * 60 + seconds) * 1_000_000;
    let [b'.', rest @ ..] = rest else { return Some((micros, rest)) };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, rest) = rest.split_at(digits);
    if fraction.is_empty() || fraction.iter().skip(6).any(|digit| *digit != b'0') {
        return None;
    }
    let mut scale = 100_000;
    for digit in fraction.iter().take(6) {
        micros += i64::from(digit - b'0') * scale;
        scale /= 10;
    }
    Some((micros, rest))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits
        .iter()
        .try_fold(0_u32, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0')))
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. Years are counted from March,
/// so that the leap day ends one; 400 years have 146,097 days.
fn civil(days: i32) -> (i32, u32, u32) {
    let days = i64::from(days) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as i32, month as u32, day as u32)
}

/// The inverse of [`civil`].
fn days_of(year: i32, month: u32, day: u32) -> i32 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let (month, day) = (i64::from(month), i64::from(day));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era - 719_468) as i32
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};

    use super::*;

    #[test]
    fn every_day_of_the_years_1_to_9999_is_written_as_chrono_writes_it_and_read_back() {
        let first = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for days in (-719_162..=2_932_896).step_by(17).chain([-719_162, -1, 0, 59, 2_932_896]) {
            let date = first + chrono::Duration::days(i64::from(days));
            let text = date_text(days);
            assert_eq!(text.as_str(), date.format("%Y-%m-%d").to_string());
            assert_eq!(parse_date(text.as_str()), Some(days));
        }
    }

    #[test]
    fn timestamps_keep_their_microseconds_before_1970_too() {
        for micros in [-62_135_596_800_000_000, -1, 0, 1, 1_704_164_645_123_456, 253_402_300_799_999_999] {
            let time = DateTime::from_timestamp_micros(micros).unwrap();
            let text = timestamp_text(micros, true);
            assert_eq!(text.as_str(), time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
            assert_eq!(parse_timestamp(text.as_str()), Some((micros, true)));
            assert_eq!(parse_timestamp(timestamp_text(micros, false).as_str()), Some((micros, false)));
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let noon = 1_704_153_600_000_000 + 12 * 3_600_000_000;
        for text in [
            "2024-01-02 12:00:00",
            "2024-01-02T12:00",
            "2024-01-02 12:00:00.000",
            "2024-01-02 12:00:00.000000000",
            "2024-01-02T14:00:00+02:00",
            "2024-01-02T14:00:00+0200",
            "2024-01-02T10:30:00-01:30",
            "2024-01-02T14:00:00+02",
        ] {
            assert_eq!(parse_timestamp(text).map(|(micros, _)| micros), Some(noon), "{text}");
        }
        for text in [
            "2024-02-30",
            "2024-13-01",
            "2024-1-2",
            "",
            "2024-01-02T25:00",
            "2024-01-02T12:00:00.0000001",
            "x",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
        assert_eq!(parse_time("03:04:05.5"), Some(11_045_500_000));
        assert_eq!(parse_date("2024-01-02 00:00:00"), Some(19_724));
        assert_eq!(parse_date("2024-01-02 00:00:01"), None);
    }

    #[test]
    fn uuids_are_hyphenated_and_read_in_any_case() {
        let bytes: Vec<u8> = (0..16).map(|byte| byte * 17).collect();
        let text = uuid_text(&bytes);
        assert_eq!(text.as_str(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(parse_uuid(&text.as_str().to_uppercase()).unwrap().as_slice(), bytes);
        assert_eq!(parse_uuid("00112233"), None);
    }
}
