//! Values as text, in the one form that both fitting and decoding use: a value put in a column of text reads back as it was,
//! and text is put in a column of values only where it has this form.
//!
//! Floats are laid out as PostgreSQL itself does (`1e+15`, `0.1`, `NaN`, `-Infinity`), dates and times as ISO 8601
//! (`2024-01-02T03:04:05.123456Z`), always with six digits of a second, so that texts sort as the times do and other stores of
//! Barge read the same.

use std::{fmt, io, ops, str};

/// Microseconds in a day.
pub(crate) const DAY: i64 = 86_400_000_000;
/// Microseconds from 1970 of 0001-01-01T00:00:00 and of 9999-12-31T23:59:59.999999: what every store can hold.
pub(crate) const TIMESTAMPS: ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// The same in days.
pub(crate) const DATES: ops::RangeInclusive<i32> = -719_162..=2_932_896;

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

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
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
        self.push_digits(year.unsigned_abs(), 4);
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

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl io::Write for ShortText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Days from 1970-01-01 as text; the years 1 to 9999.
pub(crate) fn date_text(days: i32) -> ShortText {
    let mut text = ShortText::new();
    text.push_date(days.clamp(*DATES.start(), *DATES.end()));
    text
}

/// Microseconds since midnight as text.
pub(crate) fn time_text(micros: i64) -> ShortText {
    let mut text = ShortText::new();
    text.push_time(micros.rem_euclid(DAY));
    text
}

/// Microseconds from 1970-01-01T00:00 as text, with a `Z` where they are UTC; the years 1 to 9999.
pub(crate) fn timestamp_text(micros: i64, utc: bool) -> ShortText {
    let micros = micros.clamp(*TIMESTAMPS.start(), *TIMESTAMPS.end());
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
pub(crate) fn uuid_text(bytes: &[u8; 16]) -> ShortText {
    let mut text = ShortText::new();
    text.extend(uuid::Uuid::from_bytes(*bytes).hyphenated().encode_lower(&mut [0; 36]).as_bytes());
    text
}

/// The shortest text that reads back as the same double precision.
pub(crate) fn double_text(value: f64) -> ShortText {
    let mut shortest = ShortText::new();
    // serde_json writes the shortest digits, and there is always room for them.
    let _ = serde_json::to_writer(&mut shortest, &value);
    special_text(value).unwrap_or_else(|| lay_out(shortest.as_str(), 15))
}

/// The shortest text that reads back as the same real.
pub(crate) fn single_text(value: f32) -> ShortText {
    let mut shortest = ShortText::new();
    let _ = serde_json::to_writer(&mut shortest, &value);
    special_text(value.into()).unwrap_or_else(|| lay_out(shortest.as_str(), 6))
}

fn special_text(value: f64) -> Option<ShortText> {
    let special: &[u8] = if value.is_nan() {
        b"NaN"
    } else if value == f64::INFINITY {
        b"Infinity"
    } else if value == f64::NEG_INFINITY {
        b"-Infinity"
    } else {
        return None;
    };
    let mut text = ShortText::new();
    text.extend(special);
    Some(text)
}

/// Lays a float's digits out as PostgreSQL does: with an exponent of at least two digits below 1e-4 and from 10 to the power
/// of `places` on, and without a point where nothing follows it.
fn lay_out(shortest: &str, places: i32) -> ShortText {
    let mut text = ShortText::new();
    let unsigned = shortest.strip_prefix('-').unwrap_or(shortest);
    if unsigned.len() < shortest.len() {
        text.push(b'-');
    }
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut all = ShortText::new();
    all.extend(whole.as_bytes());
    all.extend(fraction.as_bytes());
    let zeros = all.as_str().bytes().take_while(|digit| *digit == b'0').count();
    let digits = all.as_str()[zeros..].trim_end_matches('0').as_bytes();
    if digits.is_empty() {
        text.push(b'0');
        return text;
    }
    // The power of ten of the first digit.
    let exponent = exponent.parse::<i32>().unwrap_or(0) + whole.len() as i32 - 1 - zeros as i32;
    if !(-4..places).contains(&exponent) {
        text.push(digits[0]);
        if digits.len() > 1 {
            text.push(b'.');
            text.extend(&digits[1..]);
        }
        text.push(b'e');
        text.push(if exponent < 0 { b'-' } else { b'+' });
        let exponent = exponent.unsigned_abs();
        text.push_digits(exponent, if exponent < 100 { 2 } else { 3 });
        return text;
    }
    if exponent < 0 {
        text.extend(b"0.");
        text.extend(&b"000"[..exponent.unsigned_abs() as usize - 1]);
        text.extend(digits);
        return text;
    }
    let whole = exponent as usize + 1;
    text.extend(&digits[..whole.min(digits.len())]);
    for _ in digits.len()..whole {
        text.push(b'0');
    }
    if digits.len() > whole {
        text.push(b'.');
        text.extend(&digits[whole..]);
    }
    text
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
/// one it is taken as UTC.
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
                [hours @ .., b':', a, b] if hours.len() == 2 => number(hours)? * 60 + number(&[*a, *b])?,
                [hours @ .., a, b] if hours.len() == 2 => number(hours)? * 60 + number(&[*a, *b])?,
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
    (1..=12).contains(&month).then_some(())?;
    let days = days_of(year as i32, month, day);
    // A day that the month doesn't have comes back as another date.
    (civil(days) == (year as i32, month, day) && DATES.contains(&days)).then_some(days)
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floats_are_laid_out_as_postgresql_does() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (100.0, "100"),
            (123456789012345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1234567890123456.0, "1.234567890123456e+15"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.000123, "0.000123"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN, "-1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (value, text) in cases {
            assert_eq!(double_text(value).as_str(), text);
        }
        for (value, text) in [(0.1, "0.1"), (1e6, "1e+06"), (123456.0, "123456"), (f32::MAX, "3.4028235e+38")]
        {
            assert_eq!(single_text(value).as_str(), text);
        }
    }

    proptest! {
        #[test]
        fn a_float_s_text_reads_back_as_the_float(bits: u64, single: u32) {
            let value = f64::from_bits(bits);
            let read: f64 = double_text(value).as_str().parse().unwrap();
            prop_assert!(read.to_bits() == bits || value.is_nan() && read.is_nan());
            let value = f32::from_bits(single);
            let read: f32 = single_text(value).as_str().parse().unwrap();
            prop_assert!(read.to_bits() == single || value.is_nan() && read.is_nan());
        }

        #[test]
        fn a_time_s_text_is_chrono_s_and_reads_back(micros in TIMESTAMPS) {
            let time = DateTime::from_timestamp_micros(micros).unwrap();
            let text = timestamp_text(micros, true);
            prop_assert_eq!(text.as_str(), time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
            prop_assert_eq!(parse_timestamp(text.as_str()), Some((micros, true)));
            let of_day = micros.rem_euclid(DAY);
            prop_assert_eq!(parse_time(time_text(of_day).as_str()), Some(of_day));
        }

        #[test]
        fn a_date_s_text_is_chrono_s_and_reads_back(days in DATES) {
            let first = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
            let text = date_text(days);
            let date = first + chrono::Duration::days(i64::from(days));
            prop_assert_eq!(text.as_str(), date.format("%Y-%m-%d").to_string());
            prop_assert_eq!(parse_date(text.as_str()), Some(days));
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in ["2024-02-30", "2024-13-01", "2024-00-01", "0000-01-01", "2024-1-2", "", "x", "20240102"]
        {
            assert_eq!(parse_date(text), None, "{text}");
        }
        for text in ["2024-01-02T25:00", "2024-01-02T12:00:00.0000001", "2024-01-02T12:00+1", "2024-01-0é"] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }
}
