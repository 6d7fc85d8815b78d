//! Dates and times: to the microsecond, in the years 1 to 9999.

use std::fmt;

use arrow::array::{ArrayRef, AsArray, PrimitiveArray, PrimitiveBuilder};
use arrow::datatypes::{DataType, Date32Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};

use super::read::cast;
use super::{ColumnOptions, ColumnType, FromColumn, ToColumn, invalid};
use crate::Result;

/// Days from 1970-01-01. Years before 1 and after 9999 are refused.
impl ColumnType for NaiveDate {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Date32
    }
}

impl ToColumn for NaiveDate {
    type Builder = PrimitiveBuilder<Date32Type>;

    #[inline]
    fn check(&self, _: &Self::Builder) -> Result<()> {
        check_year(self.year(), self)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(Date32Type::from_naive_date(*self));
        4
    }
}

impl FromColumn for NaiveDate {
    type Array = PrimitiveArray<Date32Type>;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &DataType::Date32)?.as_primitive().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        array
            .value_as_date(row)
            .ok_or_else(|| invalid(format!("{} days from 1970-01-01 is no date", array.value(row))))
    }
}

/// Microseconds since midnight; nanoseconds are truncated. A leap second is refused.
impl ColumnType for NaiveTime {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Time64(TimeUnit::Microsecond)
    }
}

impl ToColumn for NaiveTime {
    type Builder = PrimitiveBuilder<Time64MicrosecondType>;

    #[inline]
    fn check(&self, _: &Self::Builder) -> Result<()> {
        refuse_leap_second(self.nanosecond(), self)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        let micros =
            i64::from(self.num_seconds_from_midnight()) * 1_000_000 + i64::from(self.nanosecond() / 1_000);
        builder.append_value(micros);
        8
    }
}

impl FromColumn for NaiveTime {
    type Array = PrimitiveArray<Time64MicrosecondType>;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &DataType::Time64(TimeUnit::Microsecond))?.as_primitive().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        array.value_as_time(row).ok_or_else(|| invalid(format!("{} µs is no time of day", array.value(row))))
    }
}

/// chrono shows a leap second as a second of more than 10⁹ nanoseconds; no store can hold one.
#[inline]
fn refuse_leap_second(nanosecond: u32, value: &dyn fmt::Display) -> Result<()> {
    if nanosecond < 1_000_000_000 {
        return Ok(());
    }
    Err(invalid(format!("{value} is a leap second, which can't be stored")))
}

/// The years that every store can hold and show in four digits.
#[inline]
fn check_year(year: i32, value: &dyn fmt::Display) -> Result<()> {
    if (1..=9999).contains(&year) {
        return Ok(());
    }
    Err(invalid(format!("{value} is outside the years 1 to 9999, which can be stored")))
}

/// Microseconds from 1970-01-01, UTC; nanoseconds are truncated. A leap second is refused, and so are years before 1 and after
/// 9999.
impl ColumnType for DateTime<Utc> {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }
}

impl ToColumn for DateTime<Utc> {
    type Builder = PrimitiveBuilder<TimestampMicrosecondType>;

    #[inline]
    fn check(&self, _: &Self::Builder) -> Result<()> {
        check_year(self.naive_utc().year(), self)?;
        refuse_leap_second(self.nanosecond(), self)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(self.timestamp_micros());
        8
    }
}

impl FromColumn for DateTime<Utc> {
    type Array = PrimitiveArray<TimestampMicrosecondType>;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &<Self as ColumnType>::data_type(ColumnOptions::default()))?.as_primitive().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        let micros = array.value(row);
        DateTime::from_timestamp_micros(micros)
            .ok_or_else(|| invalid(format!("{micros} µs from 1970 is no time")))
    }
}

/// Microseconds from 1970-01-01 in a time zone that only the application knows; else as `DateTime<Utc>`.
impl ColumnType for NaiveDateTime {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, None)
    }
}

impl ToColumn for NaiveDateTime {
    type Builder = PrimitiveBuilder<TimestampMicrosecondType>;

    #[inline]
    fn check(&self, _: &Self::Builder) -> Result<()> {
        check_year(self.year(), self)?;
        refuse_leap_second(self.nanosecond(), self)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(self.and_utc().timestamp_micros());
        8
    }
}

impl FromColumn for NaiveDateTime {
    type Array = PrimitiveArray<TimestampMicrosecondType>;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &<Self as ColumnType>::data_type(ColumnOptions::default()))?.as_primitive().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        <DateTime<Utc> as FromColumn>::get(array, row).map(|time| time.naive_utc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_second_is_refused_and_nanoseconds_are_truncated() {
        let time = NaiveTime::from_hms_nano_opt(1, 2, 3, 4_005_999).unwrap();
        let mut builder = PrimitiveBuilder::<Time64MicrosecondType>::new();
        time.check(&builder).unwrap();
        time.append(&mut builder);
        assert_eq!(builder.finish().value(0), 3_723_004_005);
        let leap = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_500_000_000).unwrap();
        assert!(leap.check(&PrimitiveBuilder::new()).unwrap_err().to_string().contains("leap second"));
    }
}
