//! Dates, times and timestamps in ISO 8601, of the years 1 to 9999.

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

/// Microseconds since midnight of `HH:MM[:SS[.fraction]]`, and what follows. Digits beyond the sixth of a fraction have to be
/// zeros: nothing is cut off.
#[inline]
fn clock(bytes: &[u8]) -> Result<(i64, &[u8]), Wrong> {
    if bytes.len() < 5 || bytes[2] != b':' {
        return Err(Wrong::Malformed);
    }
    let (hour, minute) = (two(bytes)?, two(&bytes[3..])?);
    let (mut second, mut micros, mut rest) = (0, 0, &bytes[5..]);
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
            if fraction[..digits].iter().skip(6).any(|&digit| digit != b'0') {
                return Err(Wrong::Fraction);
            }
            rest = &fraction[digits..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return Err(Wrong::NoSuchTime);
    }
    Ok((i64::from(hour * 3600 + minute * 60 + second) * MICROS_A_SECOND + micros, rest))
}

/// Microseconds since midnight.
pub(super) fn time(bytes: &[u8]) -> Result<i64, Wrong> {
    match clock(bytes)? {
        (micros, []) => Ok(micros),
        _ => Err(Wrong::Malformed),
    }
}

/// Microseconds since 1970-01-01 by the clock that the text shows, and its offset from UTC in seconds, where it has one.
/// A date alone is its midnight.
#[inline]
pub(super) fn timestamp(bytes: &[u8]) -> Result<(i64, Option<i64>), Wrong> {
    if bytes.len() < 10 {
        return Err(Wrong::Malformed);
    }
    let (day, rest) = bytes.split_at(10);
    let midnight = i64::from(date(day)?) * MICROS_A_DAY;
    match rest {
        [] => Ok((midnight, None)),
        [b'T' | b't' | b' ', rest @ ..] => {
            let (micros, zone) = clock(rest)?;
            Ok((midnight + micros, offset(zone)?))
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

#[cfg(test)]
mod tests {
    use super::*;

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
