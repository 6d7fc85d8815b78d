//! Dates, times and timestamps in ISO 8601, of the years 1 to 9999.

use arrow::datatypes::TimeUnit;

use super::parse::Wrong;

const MICROS_A_SECOND: i64 = 1_000_000;
const MICROS_A_DAY: i64 = 86_400 * MICROS_A_SECOND;

#[inline]
fn two(bytes: &[u8]) -> Result<u32, Wrong> {
    let (tens, ones) = (bytes[0].wrapping_sub(b'0'), bytes[1].wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { Err(Wrong::Malformed) } else { Ok(u32::from(tens) * 10 + u32::from(ones)) }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
#[inline]
pub(super) fn date(bytes: &[u8]) -> Result<i32, Wrong> {
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return Err(Wrong::Malformed);
    }
    let year = two(&bytes[..2])? * 100 + two(&bytes[2..4])?;
    let (month, day) = (two(&bytes[5..7])?, two(&bytes[8..])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1..=12 => 31,
        _ => return Err(Wrong::NoSuchDate),
    };
    if year == 0 || day == 0 || day > days_of_month {
        return Err(Wrong::NoSuchDate);
    }
    // Counted from 1 March, so that the leap day comes last: five months of 153 days each repeat.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    Ok(days as i32 - 719_468)
}

/// Microseconds since midnight of `HH:MM[:SS[.fraction]]`, the nanoseconds beyond, and what follows. Digits beyond the ninth of a fraction
/// have to be zeros: nothing is cut off.
#[inline]
fn clock(bytes: &[u8]) -> Result<(i64, i64, &[u8]), Wrong> {
    if bytes.len() < 5 || bytes[2] != b':' {
        return Err(Wrong::Malformed);
    }
    let (hour, minute) = (two(bytes)?, two(&bytes[3..])?);
    let (mut second, mut micros, mut nanos, mut rest) = (0, 0, 0, &bytes[5..]);
    if let [b':', seconds @ ..] = rest {
        if seconds.len() < 2 {
            return Err(Wrong::Malformed);
        }
        second = two(seconds)?;
        rest = &seconds[2..];
        if let [b'.' | b',', fraction @ ..] = rest {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return Err(Wrong::Malformed);
            }
            for place in 0..6 {
                let digit = fraction[..digits].get(place).map_or(0, |byte| i64::from(byte - b'0'));
                micros = micros * 10 + digit;
            }
            if digits > 6 {
                nanos = beyond_micros(&fraction[6..digits])?;
            }
            rest = &fraction[digits..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(Wrong::NoSuchTime);
    }
    Ok((i64::from(hour * 3600 + minute * 60 + second) * MICROS_A_SECOND + micros, nanos, rest))
}

/// The nanoseconds of the digits behind microseconds.
fn beyond_micros(digits: &[u8]) -> Result<i64, Wrong> {
    if digits.iter().skip(3).any(|&digit| digit != b'0') {
        return Err(Wrong::Fraction);
    }
    Ok((0..3).fold(0, |nanos, place| nanos * 10 + digits.get(place).map_or(0, |byte| i64::from(byte - b'0'))))
}

/// Microseconds since midnight.
pub(super) fn time(bytes: &[u8]) -> Result<i64, Wrong> {
    match clock(bytes)? {
        (micros, 0, []) => Ok(micros),
        (_, _, []) => Err(Wrong::Fraction),
        _ => Err(Wrong::Malformed),
    }
}

/// Microseconds since 1970-01-01 by the clock that the text shows, and its offset from UTC in seconds, where it has one.
/// A date alone is its midnight.
#[inline]
pub(super) fn timestamp(bytes: &[u8]) -> Result<(i64, Option<i64>), Wrong> {
    match exact_timestamp(bytes)? {
        (micros, 0, offset) => Ok((micros, offset)),
        _ => Err(Wrong::Fraction),
    }
}

/// The same, with the nanoseconds beyond between the two.
#[inline]
fn exact_timestamp(bytes: &[u8]) -> Result<(i64, i64, Option<i64>), Wrong> {
    if bytes.len() < 10 {
        return Err(Wrong::Malformed);
    }
    let (day, rest) = bytes.split_at(10);
    let midnight = i64::from(date(day)?) * MICROS_A_DAY;
    match rest {
        [] => Ok((midnight, 0, None)),
        [b'T' | b't' | b' ', rest @ ..] => {
            let (micros, nanos, zone) = clock(rest)?;
            Ok((midnight + micros, nanos, offset(zone)?))
        }
        _ => Err(Wrong::Malformed),
    }
}

/// `Z`, `+HH`, `+HHMM` or `+HH:MM`, in seconds.
#[inline]
fn offset(zone: &[u8]) -> Result<Option<i64>, Wrong> {
    let (sign, digits) = match zone {
        [] => return Ok(None),
        [b'Z' | b'z'] => return Ok(Some(0)),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return Err(Wrong::Malformed),
    };
    let (hours, minutes) = match digits {
        [_, _] => (two(digits)?, 0),
        [_, _, b':', minutes @ ..] if minutes.len() == 2 => (two(digits)?, two(minutes)?),
        [_, _, minutes @ ..] if minutes.len() == 2 => (two(digits)?, two(minutes)?),
        _ => return Err(Wrong::Malformed),
    };
    if hours > 23 || minutes > 59 {
        return Err(Wrong::NoSuchTime);
    }
    Ok(Some(sign * i64::from(hours * 3600 + minutes * 60)))
}

/// Microseconds since 1970-01-01 UTC; a text without an offset is taken as UTC.
pub(super) fn instant(bytes: &[u8]) -> Result<i64, Wrong> {
    let (micros, offset) = timestamp(bytes)?;
    Ok(micros - offset.unwrap_or(0) * MICROS_A_SECOND)
}

/// Microseconds since 1970-01-01 by a clock without a time zone.
pub(super) fn local(bytes: &[u8]) -> Result<i64, Wrong> {
    match timestamp(bytes)? {
        (micros, None) => Ok(micros),
        (_, Some(_)) => Err(Wrong::Offset),
    }
}

/// A timestamp in another unit than microseconds, in a column with a time zone or without.
pub(super) fn in_unit(bytes: &[u8], unit: TimeUnit, zoned: bool) -> Result<i64, Wrong> {
    let (micros, nanos, offset) = exact_timestamp(bytes)?;
    if offset.is_some() && !zoned {
        return Err(Wrong::Offset);
    }
    let micros = micros - offset.unwrap_or(0) * MICROS_A_SECOND;
    let whole = |part: i64| match (micros % part, nanos) {
        (0, 0) => Ok(micros / part),
        _ => Err(Wrong::Fraction),
    };
    match unit {
        TimeUnit::Second => whole(MICROS_A_SECOND),
        TimeUnit::Millisecond => whole(1_000),
        TimeUnit::Microsecond => whole(1),
        TimeUnit::Nanosecond => {
            micros.checked_mul(1_000).and_then(|all| all.checked_add(nanos)).ok_or(Wrong::OutOfRange)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_in_other_units() {
        let text = b"2024-02-29 00:00:01.123456789";
        let day = 19_782 * 86_400_i64;
        assert_eq!(in_unit(text, TimeUnit::Nanosecond, false), Ok((day + 1) * 1_000_000_000 + 123_456_789));
        assert_eq!(in_unit(text, TimeUnit::Microsecond, false), Err(Wrong::Fraction));
        assert_eq!(
            in_unit(b"2024-02-29 00:00:01.5000", TimeUnit::Millisecond, false),
            Ok((day + 1) * 1_000 + 500)
        );
        assert_eq!(in_unit(b"2024-02-29 00:00:01.5", TimeUnit::Second, false), Err(Wrong::Fraction));
        assert_eq!(in_unit(b"2024-02-29 01:00:01+01", TimeUnit::Second, true), Ok(day + 1));
        assert_eq!(in_unit(b"2024-02-29 01:00:01+01", TimeUnit::Second, false), Err(Wrong::Offset));
        assert_eq!(in_unit(b"1969-12-31 23:59:59.999", TimeUnit::Millisecond, false), Ok(-1));
        assert_eq!(in_unit(b"2500-01-01", TimeUnit::Nanosecond, false), Err(Wrong::OutOfRange));
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = -719_162;
        for year in 1..=9999u32 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Ok(days) = date(format!("{year:04}-{month:02}-{day:02}").as_bytes()) {
                        assert_eq!(days, expected, "{year}-{month}-{day}");
                        expected += 1;
                    }
                }
            }
        }
        assert_eq!(date(b"1970-01-01"), Ok(0));
        assert_eq!(expected - 1, 2_932_896);
    }

    #[test]
    fn dates_that_do_not_exist() {
        for text in
            ["2023-02-29", "1900-02-29", "2024-13-01", "2024-00-10", "2024-01-32", "0000-01-01", "2024-04-31"]
        {
            assert_eq!(date(text.as_bytes()), Err(Wrong::NoSuchDate), "{text}");
        }
        for text in ["2024-1-01", "24-01-01", "2024/01/01", "2024-01-0x", ""] {
            assert_eq!(date(text.as_bytes()), Err(Wrong::Malformed), "{text}");
        }
    }

    #[test]
    fn timestamps() {
        let day = 19_782 * MICROS_A_DAY;
        assert_eq!(timestamp(b"2024-02-29"), Ok((day, None)));
        assert_eq!(timestamp(b"2024-02-29T00:01"), Ok((day + 60 * MICROS_A_SECOND, None)));
        assert_eq!(timestamp(b"2024-02-29 00:00:01.5"), Ok((day + 1_500_000, None)));
        assert_eq!(timestamp(b"2024-02-29 00:00:00.123456000Z"), Ok((day + 123_456, Some(0))));
        assert_eq!(timestamp(b"2024-02-29 00:00:00.1234567"), Err(Wrong::Fraction));
        assert_eq!(time(b"00:00:00.0000001"), Err(Wrong::Fraction));
        assert_eq!(timestamp(b"2024-02-29T00:00:00+02"), Ok((day, Some(7200))));
        assert_eq!(timestamp(b"2024-02-29T00:00:00-0130"), Ok((day, Some(-5400))));
        assert_eq!(instant(b"2024-02-29T01:30:00+01:30"), Ok(day));
        assert_eq!(local(b"2024-02-29T00:00:00Z"), Err(Wrong::Offset));
        assert_eq!(timestamp(b"2024-02-29T24:00:00"), Err(Wrong::NoSuchTime));
        for text in [
            "2024-02-29T",
            "2024-02-29T1:00",
            "2024-02-29 00:00:00.",
            "2024-02-29 00:00:00 UTC",
            "2024-02-29x",
        ] {
            assert_eq!(timestamp(text.as_bytes()), Err(Wrong::Malformed), "{text}");
        }
        assert_eq!(time(b"23:59:59.999999"), Ok(MICROS_A_DAY - 1));
        assert_eq!(time(b"23:59:59Z"), Err(Wrong::Malformed));
    }
}
