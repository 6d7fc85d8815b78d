//! Decimals: exact, or refused.

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, StringArray};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use rust_decimal::Decimal;

use super::read::cast;
use super::{ColumnOptions, ColumnType, DecimalBuilder, FromColumn, ToColumn, invalid};
use crate::Result;

/// Where no `decimal(p, s)` is given: the widest that rust_decimal and Decimal128 share.
const DEFAULT_DECIMAL: (u8, i8) = (28, 10);

impl ColumnType for Decimal {
    const DECIMAL: bool = true;

    fn data_type(options: ColumnOptions) -> DataType {
        let (precision, scale) = options.decimal.unwrap_or(DEFAULT_DECIMAL);
        DataType::Decimal128(precision, scale)
    }
}

impl ToColumn for Decimal {
    type Builder = DecimalBuilder;

    fn check(&self, builder: &Self::Builder) -> Result<()> {
        match scaled(*self, builder.precision, builder.scale) {
            Some(_) => Ok(()),
            None => Err(invalid(format!(
                "{self} doesn't fit decimal({}, {}): at most {} digits, {} of them after the point",
                builder.precision, builder.scale, builder.precision, builder.scale
            ))),
        }
    }

    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.values.append_option(scaled(*self, builder.precision, builder.scale));
        16
    }
}

/// The decimal as an integer of 10^-scale, where that is exact and has at most `precision` digits.
fn scaled(value: Decimal, precision: u8, scale: i8) -> Option<i128> {
    let mantissa = value.mantissa();
    let shift = i32::from(scale) - value.scale() as i32;
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    let scaled = if shift >= 0 {
        mantissa.checked_mul(power)?
    } else if mantissa % power == 0 {
        mantissa / power
    } else {
        return None;
    };
    (scaled.unsigned_abs() < 10_u128.checked_pow(u32::from(precision))?).then_some(scaled)
}

/// Decimals to read.
pub enum DecimalArray {
    /// Of one scale from 0.
    Scaled(Decimal128Array),
    /// Read from text, each with its own scale.
    Parsed(Vec<Decimal>),
}

impl FromColumn for Decimal {
    type Array = DecimalArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        let data_type = match array.data_type() {
            DataType::Decimal128(_, 0..) => return Ok(DecimalArray::Scaled(array.as_primitive().clone())),
            text if text.is_string() => return decimals_from_text(cast(array, &DataType::Utf8)?.as_string()),
            integer if integer.is_integer() => DataType::Decimal128(20, 0),
            &DataType::Decimal32(_, scale)
            | &DataType::Decimal64(_, scale)
            | &DataType::Decimal128(_, scale)
            | &DataType::Decimal256(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale.max(0)),
            _ => DataType::Decimal128(DEFAULT_DECIMAL.0, DEFAULT_DECIMAL.1),
        };
        Ok(DecimalArray::Scaled(cast(array, &data_type)?.as_primitive().clone()))
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        match array {
            DecimalArray::Scaled(array) => unscaled(array.value(row), array.scale()).ok_or_else(|| {
                let value = array.value_as_string(row);
                invalid(format!("{value} has more than the 28 digits a Decimal holds: read it as text"))
            }),
            DecimalArray::Parsed(values) => Ok(values[row]),
        }
    }
}

/// The decimal of an integer of 10^-scale, where a Decimal can hold it: zeros at its end need no room.
fn unscaled(mut value: i128, scale: i8) -> Option<Decimal> {
    let mut scale = u32::try_from(scale).ok()?;
    loop {
        match Decimal::try_from_i128_with_scale(value, scale) {
            Ok(decimal) => return Some(decimal),
            Err(_) if scale > 0 && value % 10 == 0 => {
                value /= 10;
                scale -= 1;
            }
            Err(_) => return None,
        }
    }
}

fn decimals_from_text(texts: &StringArray) -> Result<DecimalArray> {
    let parse = |text: &str| Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok();
    let values = texts.iter().enumerate().map(|(row, text)| match text {
        Some(text) => parse(text)
            .ok_or_else(|| invalid(format!("'{text}' is no decimal of 28 digits")).with_row(row as u64)),
        None => Ok(Decimal::ZERO),
    });
    values.collect::<Result<_>>().map(DecimalArray::Parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_fits_exactly_or_not_at_all() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        assert_eq!(scaled(decimal("1.500"), 5, 2), Some(150));
        assert_eq!(scaled(decimal("-0.01"), 5, 2), Some(-1));
        assert_eq!(scaled(decimal("1.505"), 5, 2), None);
        assert_eq!(scaled(decimal("999.99"), 5, 2), Some(99_999));
        assert_eq!(scaled(decimal("1000"), 5, 2), None);
        assert_eq!(scaled(Decimal::MAX, 28, 10), None);
    }
}
