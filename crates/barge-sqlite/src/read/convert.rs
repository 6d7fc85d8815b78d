//! One value as another type: without loss, or not at all.

use std::borrow::Cow;
use std::str;

use arrow::array::Float32Builder;

use crate::batch::cells::real_text;
use crate::statement::Value;

/// Why a value doesn't fit.
pub(super) type Misfit = String;

/// Appends the elements of a vector; `length` is how many it must have.
pub(super) fn append_vector(
    values: &mut Float32Builder,
    value: Value<'_>,
    length: Option<usize>,
) -> Option<()> {
    match value {
        Value::Blob(bytes)
            if bytes.len() % 4 == 0 && length.is_none_or(|length| bytes.len() == length * 4) =>
        {
            for bytes in bytes.chunks_exact(4) {
                values.append_value(f32::from_le_bytes(bytes.try_into().ok()?));
            }
        }
        // Others keep vectors as JSON.
        Value::Text(text) => {
            let list: Vec<f32> = serde_json::from_slice(text).ok()?;
            length.is_none_or(|length| list.len() == length).then(|| values.append_slice(&list))?;
        }
        _ => return None,
    }
    Some(())
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Misfit> {
    str::from_utf8(bytes).map_err(|error| format!("the text is not UTF-8: {error}"))
}

/// The value as text, where it is UTF-8.
pub(super) fn as_str(value: Value<'_>) -> Option<&str> {
    match value {
        Value::Text(bytes) | Value::Blob(bytes) => str::from_utf8(bytes).ok(),
        _ => None,
    }
}

pub(super) fn text(value: Value<'_>) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::Integer(value) => Cow::Owned(value.to_string()),
        Value::Real(value) => Cow::Owned(real_text(value)),
        value => Cow::Borrowed(as_str(value)?),
    })
}

pub(super) fn integer(value: Value<'_>) -> Option<i128> {
    match value {
        Value::Integer(value) => Some(value.into()),
        // Above 2⁶³ nothing that was an integer is stored as a real.
        Value::Real(value) if value.fract() == 0.0 && value.abs() <= 9.3e18 => Some(value as i128),
        Value::Text(bytes) => {
            let text = str::from_utf8(bytes).ok()?.trim();
            text.parse().ok().or_else(|| integer(Value::Real(text.parse().ok()?)))
        }
        _ => None,
    }
}

pub(super) fn real(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Real(value) => Some(value),
        Value::Integer(value) => {
            let real = value as f64;
            (real as i128 == i128::from(value)).then_some(real)
        }
        Value::Text(bytes) => str::from_utf8(bytes).ok()?.trim().parse().ok(),
        _ => None,
    }
}

pub(super) fn single(value: Value<'_>) -> Option<f32> {
    if let Value::Text(bytes) = value {
        return str::from_utf8(bytes).ok()?.trim().parse().ok();
    }
    let value = real(value)?;
    let single = value as f32;
    (f64::from(single) == value || value.is_nan()).then_some(single)
}

pub(super) fn boolean(value: Value<'_>) -> Option<bool> {
    if let Value::Text(bytes) = value {
        return match str::from_utf8(bytes).ok()?.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "t" | "1.0" => Some(true),
            "0" | "false" | "f" | "0.0" => Some(false),
            _ => None,
        };
    }
    match integer(value)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// A number as an integer of 10^-scale, where that is exact and has at most `precision` digits. A real is taken as its shortest
/// decimal.
pub(super) fn decimal(value: Value<'_>, precision: u8, scale: i8) -> Option<i128> {
    let owned;
    let text = match value {
        Value::Integer(value) => {
            owned = value.to_string();
            &owned
        }
        Value::Real(value) => {
            owned = format!("{value}");
            &owned
        }
        value => as_str(value)?.trim(),
    };
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let (whole, fraction) = (&digits[..point], digits.get(point + 1..).unwrap_or_default());
    if whole.len() + fraction.len() == 0 {
        return None;
    }
    let kept = usize::try_from(scale.max(0)).ok()?;
    let mut number: i128 = 0;
    for digit in whole.iter().chain(fraction.iter().take(kept)) {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add((digit - b'0').into())?;
    }
    if fraction.iter().skip(kept).any(|digit| *digit != b'0') {
        return None;
    }
    number = number.checked_mul(10_i128.checked_pow(kept.saturating_sub(fraction.len()) as u32)?)?;
    if scale < 0 {
        let power = 10_i128.checked_pow(scale.unsigned_abs().into())?;
        (number % power == 0).then_some(())?;
        number /= power;
    }
    (number.unsigned_abs() < 10_u128.checked_pow(precision.into())?).then_some(if negative {
        -number
    } else {
        number
    })
}

/// A value for a message, shortened.
pub(super) fn shown(value: Value<'_>) -> String {
    const CHARACTERS_MAX: usize = 60;
    match value {
        Value::Null => "NULL".into(),
        Value::Integer(value) => format!("the integer {value}"),
        Value::Real(value) => format!("the real {value}"),
        Value::Blob(bytes) => format!("a blob of {} bytes", bytes.len()),
        Value::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            match text.char_indices().nth(CHARACTERS_MAX) {
                Some((end, _)) => format!("the text '{}…'", &text[..end]),
                None => format!("the text '{text}'"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal(Value::Text(b"-1.50"), 5, 2), Some(-150));
        assert_eq!(decimal(Value::Real(0.1), 5, 2), Some(10));
        assert_eq!(decimal(Value::Integer(7), 5, 2), Some(700));
        assert_eq!(decimal(Value::Text(b"1.505"), 5, 2), None);
        assert_eq!(decimal(Value::Text(b"1000.00"), 5, 2), None);
        assert_eq!(decimal(Value::Text(b"1x"), 5, 2), None);
        assert_eq!(decimal(Value::Text(b"."), 5, 2), None);
        assert_eq!(decimal(Value::Integer(700), 5, -2), Some(7));
    }
}
