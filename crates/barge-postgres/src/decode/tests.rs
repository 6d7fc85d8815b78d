use arrow::array::*;
use arrow::datatypes::*;
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::encode::{ArrayParameter, copy_rows};
use crate::types::PgType;

/// Reads values of a PostgreSQL type that a column of Arrow's holds, by way of the bytes that COPY sends.
fn read(values: ArrayRef, sent: &str, column_type: Type, wanted: &Field) -> Result<ArrayRef> {
    let rows = values.len();
    let columns = [(values, PgType::parse(sent))];
    let schema = Schema::new(vec![wanted.clone().with_name("x")]);
    let mut column = Column::new("x", &column_type, Some(&schema))?;
    for row in 0..rows {
        let mut bytes = BytesMut::new();
        copy_rows(&columns, row..row + 1, &mut bytes);
        let length = i32::from_be_bytes(bytes[2..6].try_into().unwrap());
        let value = (length >= 0).then_some(&bytes[6..]);
        column.append(value).map_err(|message| Error::new(ErrorKind::InvalidValue, message))?;
    }
    column.target.builder.finish()
}

fn array(values: impl Array + 'static) -> ArrayRef {
    Arc::new(values)
}

fn field(data_type: DataType) -> Field {
    Field::new("x", data_type, true)
}

/// Reads as [`read`], and gives the values' text or the reason why not.
fn shown(values: ArrayRef, sent: &str, column_type: Type, wanted: DataType) -> Result<Vec<String>, String> {
    let found =
        read(values, sent, column_type, &field(wanted)).map_err(|error| error.message().to_owned())?;
    let texts = (0..found.len()).map(|row| arrow::util::display::array_value_to_string(&found, row).unwrap());
    Ok(texts.collect())
}

fn numerics(texts: &[&str]) -> ArrayRef {
    array(StringArray::from(texts.to_vec()))
}

#[test]
fn numerics_are_read_in_every_type_that_holds_them() {
    let read = |texts: &[&str], wanted| shown(numerics(texts), "numeric", Type::NUMERIC, wanted);
    let texts = |texts: &[&str]| Ok(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let plain = ["0", "-12345.6700", "NaN", "-Infinity", "100000000000000000000000000000.5"];
    assert_eq!(read(&plain, DataType::Utf8), texts(&plain));
    assert_eq!(
        read(&["1.5", "-0.25", "10000"], DataType::Decimal128(9, 2)),
        texts(&["1.50", "-0.25", "10000.00"])
    );
    assert_eq!(read(&["1.5", "12"], DataType::Decimal256(60, 3)), texts(&["1.500", "12.000"]));
    assert_eq!(read(&["-1200"], DataType::Decimal256(60, -2)), texts(&["-1200"]));
    assert_eq!(read(&["1.5", "12"], DataType::Decimal64(10, 1)), texts(&["1.5", "12.0"]));
    assert_eq!(read(&["7.00"], DataType::Int16), texts(&["7"]));
    assert_eq!(read(&["18446744073709551615"], DataType::UInt64), texts(&["18446744073709551615"]));
    assert_eq!(read(&["0.1", "NaN"], DataType::Float64), texts(&["0.1", "NaN"]));
    for (value, wanted) in [
        ("1.505", DataType::Decimal128(9, 2)),
        ("10000000", DataType::Decimal128(9, 2)),
        ("NaN", DataType::Decimal128(9, 2)),
        ("7.5", DataType::Int64),
        ("-1", DataType::UInt64),
    ] {
        let said = read(&[value], wanted.clone()).unwrap_err();
        assert_eq!(said, format!("{value} can't be read as {wanted}"));
    }
}

#[test]
fn integers_and_floats_are_read_in_other_widths_without_loss() {
    let integers = || array(Int64Array::from(vec![300, -1]));
    let read = |wanted| shown(integers(), "bigint", Type::INT8, wanted);
    assert_eq!(read(DataType::Int16).unwrap(), ["300", "-1"]);
    assert_eq!(read(DataType::Decimal128(5, 1)).unwrap(), ["300.0", "-1.0"]);
    assert_eq!(read(DataType::Utf8).unwrap(), ["300", "-1"]);
    assert_eq!(read(DataType::LargeUtf8).unwrap(), ["300", "-1"]);
    assert_eq!(read(DataType::Int8).unwrap_err(), "300 can't be read as Int8");
    assert_eq!(read(DataType::UInt64).unwrap_err(), "-1 can't be read as UInt64");
    let floats = || array(Float64Array::from(vec![0.5, 0.1]));
    assert!(shown(floats(), "double precision", Type::FLOAT8, DataType::Float32).is_err());
    let text = shown(floats(), "double precision", Type::FLOAT8, DataType::Utf8).unwrap();
    assert_eq!(text, ["0.5", "0.1"]);
}

#[test]
fn what_no_calendar_here_holds_is_refused() {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let column = |column_type: Type, wanted: &DataType, bytes: &[u8]| {
        let schema = Schema::new(vec![field(wanted.clone())]);
        Column::new("x", &column_type, Some(&schema)).unwrap().append(Some(bytes)).unwrap_err()
    };
    let infinity = i64::MAX.to_be_bytes();
    assert!(column(Type::TIMESTAMPTZ, &utc, &infinity).contains("is infinity"));
    assert!(column(Type::TIMESTAMPTZ, &utc, &i64::MIN.to_be_bytes()).contains("-infinity"));
    assert!(
        column(Type::TIMESTAMPTZ, &DataType::Utf8, &(i64::MAX - 1).to_be_bytes()).contains("years 1 to 9999")
    );
    assert!(column(Type::DATE, &DataType::Date32, &i32::MAX.to_be_bytes()).contains("infinity"));
    assert!(column(Type::DATE, &DataType::Date32, &3_000_000_i32.to_be_bytes()).contains("years 1 to 9999"));
    let midnight = 86_400_000_000_i64.to_be_bytes();
    assert!(column(Type::TIME, &DataType::Time64(TimeUnit::Microsecond), &midnight).contains("24:00"));
    assert!(column(Type::INT8, &DataType::Int64, &[0; 4]).contains("4 bytes"));
    let seconds = DataType::Timestamp(TimeUnit::Second, None);
    assert!(column(Type::TIMESTAMP, &seconds, &1_i64.to_be_bytes()).contains("can't be read"));
}

#[test]
fn arrays_are_read_as_the_lists_wanted_or_refused() {
    let lists = || {
        let lists = [Some(vec![Some(1.5), Some(2.0)]), None, Some(vec![])];
        array(ListArray::from_iter_primitive::<Float32Type, _, _>(lists))
    };
    let item = Arc::new(Field::new("item", DataType::Float64, true));
    let read_as = |wanted| read(lists(), "real[]", Type::FLOAT4_ARRAY, &field(wanted));
    for wanted in [DataType::List(item.clone()), DataType::LargeList(item.clone())] {
        let found = read_as(wanted.clone()).unwrap();
        assert_eq!((found.data_type(), found.len(), found.null_count()), (&wanted, 3, 1));
    }
    let said = read_as(DataType::FixedSizeList(item.clone(), 2)).unwrap_err();
    assert!(said.message().contains("an array of 0 elements"), "{said}");
    let pairs = lists().slice(0, 2);
    let found = read(pairs, "real[]", Type::FLOAT4_ARRAY, &field(DataType::FixedSizeList(item, 2))).unwrap();
    assert_eq!((found.len(), found.null_count()), (2, 1));
    assert_eq!(
        found.as_fixed_size_list().value(0).as_primitive::<Float64Type>().values().as_ref(),
        [1.5, 2.0]
    );

    let nulls = array(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]));
    let strict = DataType::List(Arc::new(Field::new("item", DataType::Int32, false)));
    let said = read(nulls.clone(), "integer[]", Type::INT4_ARRAY, &field(strict)).unwrap_err();
    assert!(said.message().contains("holds a NULL"), "{said}");
    let said = read(nulls, "integer[]", Type::INT4_ARRAY, &field(DataType::Utf8)).unwrap_err();
    assert!(said.message().contains("cast it to text"), "{said}");
    let mut two = BytesMut::from([0, 0, 0, 2].as_slice());
    two.extend_from_slice(&[0; 24]);
    assert!(elements(&two).err().unwrap().contains("2 dimensions"));
}

#[test]
fn columns_without_a_known_form_are_refused_with_what_to_do() {
    let error = Decoder::new(vec![("since".into(), Type::INTERVAL)], None).err().unwrap();
    assert_eq!((error.kind(), error.column()), (ErrorKind::Unsupported, Some("since")));
    assert!(error.message().contains("interval") && error.message().contains("since::text"), "{error}");
    let wanted = Schema::new(vec![field(DataType::Duration(TimeUnit::Second))]);
    let error = Decoder::new(vec![("x".into(), Type::INT8)], Some(&wanted)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn blanks_of_padding_are_no_part_of_the_value() {
    let padded = array(StringArray::from(vec!["ab   ", "", " a "]));
    let read = shown(padded, "text", Type::BPCHAR, DataType::Utf8).unwrap();
    assert_eq!(read, ["ab", "", " a"]);
}

#[test]
fn the_rows_of_a_parameter_are_the_elements_of_an_array() {
    use postgres_types::ToSql;
    let values = array(Int32Array::from(vec![Some(7), Some(-1), None, Some(9)])).slice(1, 3);
    let mut bytes = BytesMut::new();
    let parameter = ArrayParameter::new(values, &PgType::parse("integer"));
    parameter.to_sql(&Type::INT4_ARRAY, &mut bytes).unwrap();
    let found: Vec<_> =
        elements(&bytes).unwrap().map(|element| element.unwrap().map(<[u8]>::to_vec)).collect();
    let expected = [Some((-1_i32).to_be_bytes().to_vec()), None, Some(9_i32.to_be_bytes().to_vec())];
    assert_eq!(found, expected);
}

proptest! {
    #[test]
    fn cut_off_bytes_are_refused_and_never_a_panic(bytes: Vec<u8>) {
        for column_type in [Type::NUMERIC, Type::INT4_ARRAY, Type::TEXT_ARRAY, Type::JSONB, Type::DATE, Type::UUID] {
            let mut column = Column::new("x", &column_type, None).unwrap();
            let _ = column.append(Some(&bytes));
        }
    }

    #[test]
    fn lists_of_texts_read_back(lists: Vec<Option<Vec<Option<String>>>>, skipped in 0_usize..3) {
        let mut builder = ListBuilder::new(StringBuilder::new());
        for list in &lists {
            builder.append_option(list.clone());
        }
        let values = array(builder.finish());
        let values = values.slice(skipped.min(values.len()), values.len().saturating_sub(skipped));
        let wanted = field(values.data_type().clone());
        let found = read(Arc::clone(&values), "text[]", Type::TEXT_ARRAY, &wanted).unwrap();
        prop_assert_eq!(found.as_list::<i32>(), values.as_list::<i32>());
    }
}
