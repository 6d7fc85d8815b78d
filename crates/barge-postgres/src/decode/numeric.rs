//! PostgreSQL's binary numeric, read: see [`crate::encode::numeric`] for its form.

use crate::encode::numeric::{INFINITY, NAN, NEGATIVE, NEGATIVE_INFINITY};
use crate::fit::number::POWERS;

/// A numeric's words.
struct Numeric<'a> {
    weight: i32,
    sign: u16,
    places: usize,
    digits: &'a [[u8; 2]],
}

fn numeric(bytes: &[u8]) -> Option<Numeric<'_>> {
    let (words, []) = bytes.as_chunks::<2>() else { return None };
    let [count, weight, sign, places, digits @ ..] = words else { return None };
    let weight = i16::from_be_bytes(*weight).into();
    let (sign, places) = (u16::from_be_bytes(*sign), u16::from_be_bytes(*places).into());
    let is_sound = usize::from(u16::from_be_bytes(*count)) == digits.len()
        && digits.iter().all(|digit| u16::from_be_bytes(*digit) < 10_000);
    is_sound.then_some(Numeric { weight, sign, places, digits })
}

/// A numeric as a plain literal, with all the decimal places it shows; nothing where the bytes are none.
pub(crate) fn literal(bytes: &[u8]) -> Option<String> {
    let Numeric { weight, sign, places, digits } = numeric(bytes)?;
    match sign {
        0 | NEGATIVE => {}
        NAN => return Some("NaN".into()),
        INFINITY => return Some("Infinity".into()),
        NEGATIVE_INFINITY => return Some("-Infinity".into()),
        _ => return None,
    }
    // The digit at a place: 0 is the last before the point.
    let digit = |place: i32| {
        let index = usize::try_from(weight - place).ok();
        index.and_then(|index| digits.get(index)).map_or(0, |digit| u16::from_be_bytes(*digit))
    };
    let mut text = String::with_capacity(2 + 4 * (weight.max(0) as usize + 1) + places);
    if sign == NEGATIVE {
        text.push('-');
    }
    let start = text.len();
    for place in (0..=weight.max(0)).rev() {
        push_digit(&mut text, digit(place));
    }
    let zeros = text[start..].bytes().take_while(|digit| *digit == b'0').count();
    text.drain(start..start + zeros.min(text.len() - start - 1));
    if places > 0 {
        text.push('.');
        let end = text.len() + places;
        for place in 1..=places.div_ceil(4) as i32 {
            push_digit(&mut text, digit(-place));
        }
        text.truncate(end);
    }
    Some(text)
}

fn push_digit(text: &mut String, digit: u16) {
    for power in [1_000, 100, 10, 1] {
        text.push(char::from(b'0' + (digit / power % 10) as u8));
    }
}

/// A numeric as an integer of 10^-scale, where that is exact and an `i128` holds it.
pub(crate) fn scaled(bytes: &[u8], scale: i32) -> Option<i128> {
    let Numeric { weight, sign, digits, .. } = numeric(bytes)?;
    if !matches!(sign, 0 | NEGATIVE) {
        return None;
    }
    let Some((last, digits)) = digits.split_last() else { return Some(0) };
    let mut value: i128 = 0;
    // Nineteen decimal digits fit 64 bits, where sums are cheaper; a numeric rarely has more.
    if digits.len() < 4 {
        value = digits
            .iter()
            .fold(0, |value, digit| value * 10_000 + u64::from(u16::from_be_bytes(*digit)))
            .into();
    } else {
        for digit in digits {
            value = value.checked_mul(10_000)?.checked_add(u16::from_be_bytes(*digit).into())?;
        }
    }
    // The lowest digit's place in powers of ten, above that of the wanted scale.
    let shift = 4 * (weight - digits.len() as i32) + scale;
    let last = i128::from(u16::from_be_bytes(*last));
    let value = if shift >= 0 {
        value.checked_mul(10_000)?.checked_add(last)?.checked_mul(*POWERS.get(shift as usize)?)?
    } else {
        // Only the lowest digit can hold zeros that the scale has no place for: one that isn't zero follows the others.
        let dropped = *POWERS.get(shift.unsigned_abs() as usize).filter(|_| shift > -4)?;
        if last % dropped != 0 {
            return None;
        }
        value.checked_mul(10_000 / dropped)?.checked_add(last / dropped)?
    };
    Some(if sign == NEGATIVE { -value } else { value })
}
