//! Numbers from bytes, without a detour through `str` for the common ones.

use super::parse::Wrong;

/// A sign and the digits after it.
#[inline]
fn sign(bytes: &[u8]) -> (bool, &[u8]) {
    match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, bytes),
    }
}

#[inline]
fn magnitude(digits: &[u8]) -> Result<u64, Wrong> {
    if digits.is_empty() {
        return Err(Wrong::Malformed);
    }
    // 19 digits always fit.
    let (head, tail) = digits.split_at(digits.len().min(19));
    let mut value = 0u64;
    for &byte in head {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Wrong::Malformed);
        }
        value = value * 10 + u64::from(digit);
    }
    if tail.is_empty() {
        return Ok(value);
    }
    if !tail.iter().all(u8::is_ascii_digit) {
        return Err(Wrong::Malformed);
    }
    let grown =
        tail.iter().try_fold(value, |value, byte| value.checked_mul(10)?.checked_add(u64::from(byte - b'0')));
    grown.ok_or(Wrong::OutOfRange)
}

#[inline]
pub(super) fn int64(bytes: &[u8]) -> Result<i64, Wrong> {
    let (negative, digits) = sign(bytes);
    let magnitude = magnitude(digits)?;
    let value = if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() };
    value.ok_or(Wrong::OutOfRange)
}

#[inline]
pub(super) fn uint64(bytes: &[u8]) -> Result<u64, Wrong> {
    match sign(bytes) {
        (false, digits) => magnitude(digits),
        (true, digits) => match magnitude(digits)? {
            0 => Ok(0),
            _ => Err(Wrong::OutOfRange),
        },
    }
}

/// Whether an integer prints back as it is written: no plus sign, no leading zero, no negative zero.
#[inline]
pub(super) fn is_plain_integer(bytes: &[u8]) -> bool {
    match bytes {
        [b'0'] => true,
        [b'0' | b'+', ..] | [b'-', b'0', ..] => false,
        _ => true,
    }
}

/// Whether a number that may have a fraction starts like one, and not like a code: no plus sign, no leading zero.
#[inline]
pub(super) fn is_plain_float(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    !matches!(digits, [b'+', ..] | [b'0', b'0'..=b'9', ..])
}

/// Whether a float has all digits of the text: it is a number, and no more exact than floats are. Up to 15 digits always come back; of more,
/// programs write those of the float itself.
pub(super) fn keeps_digits(bytes: &[u8]) -> bool {
    let Ok(value) = float64(bytes) else { return false };
    if bytes.len() <= 15 {
        return true;
    }
    let digits = |text: &str| {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        digits.trim_start_matches('0').to_owned()
    };
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let written = digits(text);
    written.trim_end_matches('0').len() <= 15
        || written == digits(&format!("{value:.0$e}", written.len() - 1))
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The nearest `f64`. Digits up to 2^53 over a power of ten up to 10^22 are both exact, so that one division rounds
/// once and right; all else goes to the standard library.
#[inline]
pub(super) fn float64(bytes: &[u8]) -> Result<f64, Wrong> {
    let (negative, rest) = sign(bytes);
    if rest.len() <= 17 {
        let (mut mantissa, mut digits, mut point) = (0u64, 0, None);
        for (index, &byte) in rest.iter().enumerate() {
            let digit = byte.wrapping_sub(b'0');
            if digit <= 9 {
                mantissa = mantissa * 10 + u64::from(digit);
                digits += 1;
            } else if byte == b'.' && point.is_none() {
                point = Some(index);
            } else {
                return slow_float(bytes);
            }
        }
        if digits > 0 && mantissa <= 1 << 53 {
            let scale = point.map_or(0, |point| rest.len() - point - 1);
            let value = mantissa as f64 / POWERS[scale];
            return Ok(if negative { -value } else { value });
        }
    }
    slow_float(bytes)
}

#[cold]
fn slow_float(bytes: &[u8]) -> Result<f64, Wrong> {
    let value: f64 = parse(bytes)?;
    finite(bytes, value.is_infinite()).map(|()| value)
}

pub(super) fn float32(bytes: &[u8]) -> Result<f32, Wrong> {
    let value: f32 = parse(bytes)?;
    finite(bytes, value.is_infinite()).map(|()| value)
}

fn parse<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, Wrong> {
    let text = std::str::from_utf8(bytes).map_err(|_| Wrong::Malformed)?;
    text.parse().map_err(|_| Wrong::Malformed)
}

/// An infinity that was written with digits is a number too large.
fn finite(bytes: &[u8], infinite: bool) -> Result<(), Wrong> {
    if infinite && bytes.iter().any(u8::is_ascii_digit) { Err(Wrong::OutOfRange) } else { Ok(()) }
}

/// An exact decimal, as its digits at the scale. Nothing is rounded: digits beyond the scale must be zeros.
pub(super) fn decimal(bytes: &[u8], precision: u8, scale: i8) -> Result<i128, Wrong> {
    let (negative, rest) = sign(bytes);
    let (mantissa, exponent) = match rest.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&rest[..at], int64(&rest[at + 1..]).map_err(|_| Wrong::Malformed)?),
        None => (rest, 0),
    };
    let (whole, fraction) = match memchr::memchr(b'.', mantissa) {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &mantissa[..0]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(Wrong::Malformed);
    }
    let digits = whole.iter().chain(fraction);
    if !digits.clone().all(u8::is_ascii_digit) {
        return Err(Wrong::Malformed);
    }
    // The value is 0.d1d2d3… × 10^point; the digit at `index` stands at `place` of the result, 0 being its last.
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(exponent);
    let last = point.saturating_add(i64::from(scale)).saturating_sub(1);
    let (mut value, mut index) = (0i128, 0i64);
    for byte in digits {
        let digit = i128::from(byte - b'0');
        if index > last {
            if digit != 0 {
                return Err(Wrong::Scale(scale));
            }
        } else {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(digit))
                .ok_or(Wrong::Precision(precision))?;
        }
        index += 1;
    }
    while value != 0 && index <= last {
        value = value.checked_mul(10).ok_or(Wrong::Precision(precision))?;
        index += 1;
    }
    if value >= 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX) {
        return Err(Wrong::Precision(precision));
    }
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_at_their_edges() {
        assert_eq!(int64(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(int64(b"9223372036854775807"), Ok(i64::MAX));
        assert_eq!(int64(b"9223372036854775808"), Err(Wrong::OutOfRange));
        assert_eq!(int64(b"-9223372036854775809"), Err(Wrong::OutOfRange));
        assert_eq!(int64(b"99999999999999999999999999"), Err(Wrong::OutOfRange));
        assert_eq!(int64(b"9999999999999999999999999x"), Err(Wrong::Malformed));
        assert_eq!(uint64(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(uint64(b"18446744073709551616"), Err(Wrong::OutOfRange));
        assert_eq!(uint64(b"-1"), Err(Wrong::OutOfRange));
        for text in ["", "-", "+", "--1", "1.0", "1e3", "1_000", "0x10", "\u{661}"] {
            assert_eq!(int64(text.as_bytes()), Err(Wrong::Malformed), "{text}");
        }
    }

    #[test]
    fn floats_equal_the_standard_library() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        for round in 0..200_000u32 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let text = match round % 4 {
                0 => format!("{}.{}", state % 1_000_000, (state >> 32) % 100_000),
                1 => format!("-0.{:017}", state % 100_000_000_000_000_000),
                2 => format!("{:e}", f64::from_bits(state)),
                _ => format!("{}", state),
            };
            let Ok(expected) = text.parse::<f64>() else { continue };
            if expected.is_finite() {
                assert_eq!(float64(text.as_bytes()).unwrap().to_bits(), expected.to_bits(), "{text}");
            }
        }
        for text in [
            "0.30000000000000004",
            "0.10000000000000001",
            "1.000000000000000056e-01",
            "-123456789.500000000000",
            "1e300",
        ] {
            assert!(keeps_digits(text.as_bytes()), "{text}");
        }
        for text in [
            "1234567890123456.78",
            "12345678901234.567",
            "123456789012345678.5",
            "0.1234567890123456789",
            "x",
        ] {
            assert!(!keeps_digits(text.as_bytes()), "{text}");
        }
        assert_eq!(float64(b"1e400"), Err(Wrong::OutOfRange));
        assert_eq!(float64(b"-inf"), Ok(f64::NEG_INFINITY));
        assert!(float64(b"NaN").unwrap().is_nan());
        assert_eq!(float64(b"."), Err(Wrong::Malformed));
        assert_eq!(float64(b"1.2.3"), Err(Wrong::Malformed));
        assert_eq!(float32(b"1e39"), Err(Wrong::OutOfRange));
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal(b"12.34", 10, 2), Ok(1234));
        assert_eq!(decimal(b"-0.5", 10, 2), Ok(-50));
        assert_eq!(decimal(b"12", 4, 2), Ok(1200));
        assert_eq!(decimal(b"123", 4, 2), Err(Wrong::Precision(4)));
        assert_eq!(decimal(b"1.230", 4, 2), Ok(123));
        assert_eq!(decimal(b"1.234", 4, 2), Err(Wrong::Scale(2)));
        assert_eq!(decimal(b"1.5e2", 6, 2), Ok(15_000));
        assert_eq!(decimal(b"15E-1", 6, 2), Ok(150));
        assert_eq!(decimal(b"0e999999999999", 6, 2), Ok(0));
        assert_eq!(decimal(b"1e-999999999999", 6, 2), Err(Wrong::Scale(2)));
        assert_eq!(decimal(b"1e999999999999", 6, 2), Err(Wrong::Precision(6)));
        assert_eq!(decimal(b"99999999999999999999999999999999999999", 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(decimal(b"100000000000000000000000000000000000000", 38, 0), Err(Wrong::Precision(38)));
        assert_eq!(decimal(b"1200", 4, -2), Ok(12));
        for text in ["", ".", "1.2.3", "abc", "1e", "-"] {
            assert_eq!(decimal(text.as_bytes(), 10, 2), Err(Wrong::Malformed), "{text}");
        }
    }

    #[test]
    fn plain_numbers() {
        for text in ["0", "7", "-7", "10"] {
            assert!(is_plain_integer(text.as_bytes()), "{text}");
        }
        for text in ["007", "+7", "-0", "-07", "00"] {
            assert!(!is_plain_integer(text.as_bytes()), "{text}");
        }
        for text in ["0.5", "-0.5", ".5", "-0", "1e5", "NaN"] {
            assert!(is_plain_float(text.as_bytes()), "{text}");
        }
        for text in ["00.5", "+0.5", "-01.5"] {
            assert!(!is_plain_float(text.as_bytes()), "{text}");
        }
    }
}
