//! Numbers as plain decimal literals, the form in which a numeric of any size is kept here: `-12.50`, `0.001`, `NaN`,
//! `-Infinity`. No plus sign, no exponent, no zeros in front, no minus before zero: as PostgreSQL writes them.

use std::borrow::Cow;

/// Digits that a numeric holds before and after its point.
const WHOLE_DIGITS_MAX: usize = 131_072;
const FRACTION_DIGITS_MAX: usize = 16_383;

/// The powers of ten that an `i128` holds.
pub(crate) const POWERS: [i128; 39] = {
    let mut powers = [1_i128; 39];
    let mut exponent = 1;
    while exponent < 39 {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// A literal's sign and digits before and after its point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Parts<'a> {
    pub(crate) negative: bool,
    pub(crate) whole: &'a str,
    pub(crate) fraction: &'a str,
}

/// Whether the text is a literal for what is no finite number.
pub(crate) fn is_special(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// The parts of a finite number's literal; nothing where the text isn't written as PostgreSQL would write it, or is too long
/// for a numeric.
pub(crate) fn parts(text: &str) -> Option<Parts<'_>> {
    let unsigned = text.strip_prefix('-');
    let negative = unsigned.is_some();
    let unsigned = unsigned.unwrap_or(text);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (unsigned, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = !whole.is_empty() && digits(whole) && digits(fraction);
    let zeros = whole.len() > 1 && whole.starts_with('0');
    let is_zero = || whole == "0" && fraction.bytes().all(|digit| digit == b'0');
    let long = whole.len() > WHOLE_DIGITS_MAX || fraction.len() > FRACTION_DIGITS_MAX;
    if !plain || zeros || long || negative && is_zero() {
        return None;
    }
    Some(Parts { negative, whole, fraction })
}

/// A number as people and programs write it (`+5`, `.5`, `007`, `1e3`, ` inf `) as a literal; nothing where PostgreSQL would not take it.
pub(crate) fn plain(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if is_special(&text) || parts(&text).is_some() {
        return Some(text);
    }
    let trimmed = text.trim_matches(|letter: char| letter.is_ascii_whitespace());
    let (sign, unsigned) = match trimmed.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    if trimmed.eq_ignore_ascii_case("nan") {
        return Some("NaN".into());
    }
    if ["inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word)) {
        return Some(format!("{sign}Infinity").into());
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent);
    if point.unsigned_abs() as usize > WHOLE_DIGITS_MAX {
        return None;
    }
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    digits = format!("{}{digits}{}", zeros(-point), zeros(point - digits.len() as i64));
    let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let is_zero = whole == "0" && fraction.bytes().all(|digit| digit == b'0');
    let literal = match (if is_zero { "" } else { sign }, fraction) {
        (sign, "") => format!("{sign}{whole}"),
        (sign, fraction) => format!("{sign}{whole}.{fraction}"),
    };
    parts(&literal)?;
    Some(literal.into())
}

/// The literal as a numeric of a precision and scale holds it: with as many digits after the point as the scale says.
/// Nothing where it would be rounded or has too many digits.
pub(crate) fn within(text: Cow<'_, str>, precision: u32, scale: i32) -> Option<Cow<'_, str>> {
    if is_special(&text) {
        // A numeric with a precision holds no infinity.
        return (text == "NaN").then_some(text);
    }
    let Parts { whole, fraction, .. } = parts(&text)?;
    // The places of the first and the last digit that isn't zero: 0 is that of the ones, -1 the first after the point.
    let first = match whole {
        "0" => fraction.bytes().position(|digit| digit != b'0').map(|zeros| -1 - zeros as i64),
        whole => Some(whole.len() as i64 - 1),
    };
    if let Some(first) = first {
        let kept = fraction.trim_end_matches('0').len() as i64;
        let last = match kept {
            0 => (whole.len() - whole.trim_end_matches('0').len()) as i64,
            kept => -kept,
        };
        if last < -i64::from(scale) || first >= i64::from(precision) - i64::from(scale) {
            return None;
        }
    }
    let places = usize::try_from(scale).unwrap_or(0);
    if fraction.len() == places {
        return Some(text);
    }
    let mut text = text.into_owned();
    let end = text.find('.').unwrap_or(text.len());
    let shown = text.len().saturating_sub(end + 1);
    if places == 0 {
        text.truncate(end);
    } else if places < shown {
        text.truncate(end + 1 + places);
    } else {
        if shown == 0 {
            text.push('.');
        }
        text.extend(std::iter::repeat_n('0', places - shown));
    }
    Some(Cow::Owned(text))
}

/// An integer of 10^-scale as a literal, with all the digits of the scale.
pub(crate) fn scaled_text(value: i128, scale: i32) -> String {
    digits_text(value < 0, value.unsigned_abs().to_string(), scale)
}

/// A number of the given digits, of which `scale` stand after the point.
pub(crate) fn digits_text(negative: bool, mut digits: String, scale: i32) -> String {
    match usize::try_from(scale) {
        Ok(0) => {}
        Ok(scale) => {
            if digits.len() <= scale {
                digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
            }
            digits.insert(digits.len() - scale, '.');
        }
        Err(_) if digits != "0" => digits.push_str(&"0".repeat(scale.unsigned_abs() as usize)),
        Err(_) => {}
    }
    if negative {
        digits.insert(0, '-');
    }
    digits
}

/// The literal as an integer of 10^-scale, where that is exact.
pub(crate) fn scaled(text: &str, scale: i32) -> Option<i128> {
    let Parts { negative, whole, fraction } = parts(text)?;
    let kept = usize::try_from(scale).unwrap_or(0);
    let (fraction, dropped) = fraction.split_at(fraction.len().min(kept));
    if dropped.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let mut value: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value.checked_mul(10)?.checked_add((digit - b'0').into())?;
    }
    value = value.checked_mul(*POWERS.get(kept - fraction.len())?)?;
    if scale < 0 {
        let power = if value == 0 { 1 } else { *POWERS.get(scale.unsigned_abs() as usize)? };
        if value % power != 0 {
            return None;
        }
        value /= power;
    }
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_literals_as_the_server_writes_them_are_taken() {
        for text in ["0", "-1", "10", "1.50", "0.00", "-0.01", "123456789012345678901234567890.5"] {
            assert!(parts(text).is_some(), "{text}");
        }
        for text in [
            "", "-", ".", "1.", ".5", "01", "+1", " 1", "1 ", "1e5", "-0", "-0.00", "NaN", "1.2.3", "1,5",
            "é",
        ] {
            assert!(parts(text).is_none(), "{text}");
        }
        assert!(parts(&"9".repeat(WHOLE_DIGITS_MAX + 1)).is_none());
        assert!(parts(&format!("0.{}", "9".repeat(FRACTION_DIGITS_MAX + 1))).is_none());
    }

    #[test]
    fn a_literal_fits_a_precision_and_scale_exactly_or_not_at_all() {
        let fits = |text, precision, scale| within(Cow::Borrowed(text), precision, scale);
        assert_eq!(fits("1.5", 5, 2).as_deref(), Some("1.50"));
        assert_eq!(fits("1.5000", 5, 2).as_deref(), Some("1.50"));
        assert_eq!(fits("-999.99", 5, 2).as_deref(), Some("-999.99"));
        assert_eq!(fits("5.00", 5, 0).as_deref(), Some("5"));
        assert_eq!(fits("0", 5, 2).as_deref(), Some("0.00"));
        assert_eq!(fits("1200", 2, -2).as_deref(), Some("1200"));
        assert_eq!(fits("0.00012", 2, 5).as_deref(), Some("0.00012"));
        assert_eq!(fits("NaN", 5, 2).as_deref(), Some("NaN"));
        for (text, precision, scale) in [
            ("1.505", 5, 2),
            ("1000", 5, 2),
            ("1250", 2, -2),
            ("0.01", 2, 5),
            ("Infinity", 5, 2),
            ("x", 5, 2),
        ] {
            assert_eq!(fits(text, precision, scale), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_scaled_integer_s_literal_is_plain_and_reads_back(value: i128, scale in -3_i32..=38) {
            let text = scaled_text(value, scale);
            prop_assert!(parts(&text).is_some(), "{}", text);
            if value.checked_mul(POWERS[scale.min(0).unsigned_abs() as usize]).is_some() {
                prop_assert_eq!(scaled(&text, scale), Some(value));
            }
        }
    }

    #[test]
    fn numbers_are_taken_as_people_write_them() {
        for (text, literal) in [
            ("1e2", "100"),
            ("1E2", "100"),
            ("1.50e1", "15.0"),
            ("-12.5e-3", "-0.0125"),
            ("007", "7"),
            ("+5", "5"),
            (".5", "0.5"),
            ("5.", "5"),
            (" 5 ", "5"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("0e5", "0"),
            ("nan", "NaN"),
            ("infinity", "Infinity"),
            ("-INF", "-Infinity"),
            ("12.50", "12.50"),
        ] {
            assert_eq!(plain(text.into()).as_deref(), Some(literal), "{text}");
        }
        assert_eq!(plain("1e500".into()).map(|text| text.len()), Some(501));
        for text in [
            "",
            " ",
            ".",
            "e5",
            "1e",
            "1 2",
            "1.2.3",
            "0x1",
            "--1",
            "1e99999999999",
            "1e131073",
            "1e-20000",
            "-nan",
            "1_0",
            "１",
        ] {
            assert_eq!(plain(text.into()), None, "{text}");
        }
    }
}
