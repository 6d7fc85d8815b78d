//! PostgreSQL's binary numeric: digits to the base 10,000, aligned with the decimal point.
//!
//! Four 16-bit words stand in front: the number of digits, the weight of the first (how many digits stand between it and the
//! point, less one), the sign, and how many decimal places are shown. Zeros at either end are left out.

use bytes::{BufMut, BytesMut};

use crate::fit::number::{Parts, parts};

pub(crate) const NEGATIVE: u16 = 0x4000;
pub(crate) const NAN: u16 = 0xC000;
pub(crate) const INFINITY: u16 = 0xD000;
pub(crate) const NEGATIVE_INFINITY: u16 = 0xF000;

/// Base-10,000 digits of an `i128`: 39 decimal ones, and up to three more for the alignment.
const DIGITS_MAX: usize = 11;
/// Bytes before the digits: the length, and four words.
const HEAD: usize = 12;
const SMALL_POWERS: [u64; 5] = [1, 10, 100, 1_000, 10_000];

/// Appends an integer of 10^-scale, with its length in front.
pub(crate) fn put_scaled(out: &mut BytesMut, value: i128, scale: i32) {
    // Zeros that complete the lowest digit, so that a digit ends at the point.
    let padding = (-scale).rem_euclid(4);
    let digits_behind = (scale + padding) / 4;
    let mut digits = [0_u16; DIGITS_MAX];
    let mut count = 0;
    let mut rest = value.unsigned_abs();
    if padding > 0 && rest > 0 {
        let power = SMALL_POWERS[4 - padding as usize];
        digits[0] = ((rest % u128::from(power)) as u64 * SMALL_POWERS[padding as usize]) as u16;
        rest /= u128::from(power);
        count = 1;
    }
    // Division of 128 bits is many times slower, and nearly all values are small.
    while rest > u128::from(u64::MAX) {
        digits[count] = (rest % 10_000) as u16;
        rest /= 10_000;
        count += 1;
    }
    let mut rest = rest as u64;
    while rest > 0 {
        digits[count] = (rest % 10_000) as u16;
        rest /= 10_000;
        count += 1;
    }
    let zeros = digits[..count].iter().take_while(|digit| **digit == 0).count();
    let weight = if zeros == count { 0 } else { count as i32 - 1 - digits_behind };
    let sign = if value < 0 { NEGATIVE } else { 0 };
    // One piece, so that the room is checked once.
    let mut bytes = [0; HEAD + 2 * DIGITS_MAX];
    bytes[..HEAD].copy_from_slice(&head(count - zeros, weight, sign, scale.max(0) as usize));
    let places = bytes[HEAD..].as_chunks_mut::<2>().0;
    for (place, digit) in places.iter_mut().zip(digits[zeros..count].iter().rev()) {
        *place = digit.to_be_bytes();
    }
    out.extend_from_slice(&bytes[..HEAD + 2 * (count - zeros)]);
}

/// Appends a literal, with its length in front. What is no literal is written as NaN: `fit` lets none pass.
pub(crate) fn put_literal(out: &mut BytesMut, text: &str) {
    let Some(Parts { negative, whole, fraction }) = parts(text) else {
        let sign = match text {
            "Infinity" => INFINITY,
            "-Infinity" => NEGATIVE_INFINITY,
            _ => NAN,
        };
        return out.extend_from_slice(&head(0, 0, sign, 0));
    };
    let start = out.len();
    let sign = if negative { NEGATIVE } else { 0 };
    // The number of digits and the weight are known once they are written.
    out.extend_from_slice(&head(0, 0, sign, fraction.len()));
    let body = out.len();
    let mut weight = whole.len().div_ceil(4) as i32 - 1;
    let (first, rest) = whole.as_bytes().split_at((whole.len() - 1) % 4 + 1);
    let digits = std::iter::once(first).chain(rest.chunks(4)).map(|group| digit(group, group.len()));
    let digits = digits.chain(fraction.as_bytes().chunks(4).map(|group| digit(group, 4)));
    let mut end = body;
    for digit in digits {
        if digit == 0 && out.len() == body {
            weight -= 1;
            continue;
        }
        out.put_u16(digit);
        if digit != 0 {
            end = out.len();
        }
    }
    out.truncate(end);
    let count = (end - body) / 2;
    let weight = if count == 0 { 0 } else { weight };
    out[start..body].copy_from_slice(&head(count, weight, sign, fraction.len()));
}

/// The digit of up to four decimal ones, as if zeros followed up to `width` of them.
fn digit(group: &[u8], width: usize) -> u16 {
    let value = group.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    value * SMALL_POWERS[width - group.len()] as u16
}

/// The length and the words in front of the digits.
fn head(count: usize, weight: i32, sign: u16, scale: usize) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..4].copy_from_slice(&(8 + 2 * count as u32).to_be_bytes());
    bytes[4..6].copy_from_slice(&(count as u16).to_be_bytes());
    bytes[6..8].copy_from_slice(&(weight as i16).to_be_bytes());
    bytes[8..10].copy_from_slice(&sign.to_be_bytes());
    bytes[10..].copy_from_slice(&(scale as u16).to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::numeric::{literal, scaled};
    use crate::fit::number::scaled_text;

    fn of_literal(text: &str) -> BytesMut {
        let mut out = BytesMut::new();
        put_literal(&mut out, text);
        out
    }

    fn of_scaled(value: i128, scale: i32) -> BytesMut {
        let mut out = BytesMut::new();
        put_scaled(&mut out, value, scale);
        out
    }

    /// As PostgreSQL 15's `numeric_send` gives them.
    #[test]
    fn numerics_have_the_server_s_bytes() {
        let cases: [(&str, &[u16]); 7] = [
            ("0", &[0, 0, 0, 0]),
            ("0.00", &[0, 0, 0, 2]),
            ("1", &[1, 0, 0, 0, 1]),
            ("-12345.678", &[3, 1, NEGATIVE, 3, 1, 2345, 6780]),
            ("10000", &[1, 1, 0, 0, 1]),
            ("0.00001234", &[1, (-2_i16) as u16, 0, 8, 1234]),
            ("NaN", &[0, 0, NAN, 0]),
        ];
        for (text, words) in cases {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            assert_eq!(&of_literal(text)[4..], bytes, "{text}");
        }
    }

    proptest! {
        #[test]
        fn literals_and_scaled_integers_have_the_same_bytes_and_read_back(
            value in prop_oneof![any::<i128>(), any::<i64>().prop_map(i128::from), -20_000_i128..20_000],
            shift in 0_u32..127,
            scale in -40_i32..=38,
        ) {
            let value = value >> shift;
            let text = scaled_text(value, scale);
            let bytes = of_literal(&text);
            prop_assert_eq!(&bytes, &of_scaled(value, scale));
            prop_assert_eq!(bytes.len(), 4 + u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize);
            prop_assert_eq!(literal(&bytes[4..]), Some(text));
            prop_assert_eq!(scaled(&bytes[4..], scale), Some(value));
        }

        #[test]
        fn long_literals_read_back(text in "-?(0|[1-9][0-9]{0,60})\\.[0-9]{1,60}") {
            prop_assume!(parts(&text).is_some());
            let literal = literal(&of_literal(&text)[4..]);
            prop_assert_eq!(literal, Some(text));
        }
    }
}
