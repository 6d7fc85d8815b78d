use proptest::prelude::*;

use super::*;

fn array(values: impl Array + 'static) -> ArrayRef {
    Arc::new(values)
}

fn fitted(array: &ArrayRef, type_name: &str) -> Fitted {
    fit(array, &Field::new("x", array.data_type().clone(), true), &PgType::parse(type_name)).unwrap()
}

fn rejected(array: &ArrayRef, type_name: &str) -> Vec<usize> {
    fitted(array, type_name).rejected.iter().map(|(row, _)| *row).collect()
}

#[test]
fn what_would_come_back_otherwise_is_refused() {
    let numbers = array(Float64Array::from(vec![1.0, 1.5, -0.0, 3e9, f64::NAN, f64::INFINITY]));
    let integers =
        array(Int64Array::from(vec![Some(1), None, Some(100_000), Some((1 << 53) + 1), Some(12_345)]));
    let unsigned = array(UInt64Array::from(vec![i64::MAX as u64, 1 << 63]));
    let decimals =
        array(Decimal128Array::from(vec![150, 155, 100_000]).with_precision_and_scale(9, 2).unwrap());
    let texts = array(StringArray::from(vec!["1", "012", " 1", "+5", "1e3", "1.5", "NaN", "true", "a\0"]));
    let padded = array(StringArray::from(vec!["   ", "ab   ", "a  b ", ""]));
    let blanks = array(StringArray::from(vec!["abc", "abcd", "ab ", "äöü", "äöüß"]));
    let times = array(TimestampMicrosecondArray::from(vec![1_000_000, 1_000, 1, i64::MAX]));
    let nanos = array(TimestampNanosecondArray::from(vec![Some(1_000), Some(1_001), None, Some(i64::MIN)]));
    let days = array(Time64MicrosecondArray::from(vec![0, -1, 86_399_999_999, 86_400_000_000]));
    let ids = array(StringArray::from(vec![
        "00112233-4455-6677-8899-aabbccddeeff",
        "00112233-4455-6677-8899-AABBCCDDEEFF",
        "00112233445566778899aabbccddeeff",
    ]));
    let documents = array(StringArray::from(vec!["{}", "{", "\"\\u0000\"", "1e400", "1e5"]));
    let cases: [(&ArrayRef, &str, &[usize]); 26] = [
        (&numbers, "integer", &[1, 3, 4, 5]),
        (&numbers, "real", &[]),
        (&numbers, "numeric(11,1)", &[5]),
        (&numbers, "boolean", &[1, 3, 4, 5]),
        (&numbers, "text", &[]),
        (&integers, "smallint", &[2, 3]),
        (&integers, "real", &[3]),
        (&integers, "numeric(5,0)", &[2, 3]),
        (&integers, "character varying(5)", &[2, 3]),
        (&unsigned, "bigint", &[1]),
        (&unsigned, "numeric(20,0)", &[]),
        (&decimals, "numeric(9,1)", &[1]),
        (&decimals, "numeric(4,2)", &[2]),
        (&decimals, "numeric(3,2)", &[2]),
        (&decimals, "integer", &[0, 1]),
        (&texts, "integer", &[1, 2, 3, 4, 5, 6, 7, 8]),
        (&texts, "text", &[8]),
        (&blanks, "character varying(3)", &[1, 4]),
        (&blanks, "character(3)", &[1, 4]),
        (&padded, "character(3)", &[2]),
        (&padded, "character varying(3)", &[1, 2]),
        (&times, "timestamp(3) without time zone", &[2, 3]),
        (&nanos, "timestamp with time zone", &[1, 3]),
        (&days, "time without time zone", &[1, 3]),
        (&ids, "uuid", &[1, 2]),
        (&documents, "jsonb", &[1, 2, 3]),
    ];
    for (array, type_name, expected) in cases {
        let context = format!("{} in {type_name}", array.data_type());
        assert_eq!(rejected(array, type_name), expected, "{context}");
    }
}

#[test]
fn a_refusal_says_what_is_wrong_with_the_value() {
    let message = |values: ArrayRef, type_name: &str| fitted(&values, type_name).rejected.remove(0).1;
    let long = array(StringArray::from(vec!["a text of 25 characters.."]));
    let said = message(long, "character varying(20)");
    assert_eq!(said, "the value has 25 characters, and the column holds 20");
    let said = message(array(StringArray::from(vec!["012"])), "integer");
    assert_eq!(said, "'012' would come back as '12' from a column of type integer");
    let said = message(array(Int64Array::from(vec![70_000])), "smallint");
    assert_eq!(said, "70000 is outside the column's range, -32768 to 32767");
}

#[test]
fn types_that_never_meet_are_an_error_that_names_both() {
    let bytes = array(BinaryArray::from(vec![b"1".as_ref()]));
    let lists = array(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)])]));
    for (values, type_name) in [(&bytes, "integer"), (&lists, "integer"), (&bytes, "bytea[]")] {
        let field = Field::new("x", values.data_type().clone(), true);
        let error = fit(values, &field, &PgType::parse(type_name)).unwrap_err();
        assert_eq!((error.kind(), error.column()), (ErrorKind::Unsupported, Some("x")));
        let message = error.message();
        assert!(
            message.contains(&values.data_type().to_string()) && message.contains(type_name),
            "{message}"
        );
    }
    let mut nested = ListBuilder::new(ListBuilder::new(Int32Builder::new()));
    nested.append_null();
    let nested = array(nested.finish());
    let field = Field::new("x", nested.data_type().clone(), true);
    assert!(
        fit(&nested, &field, &PgType::parse("integer[]")).unwrap_err().message().contains("one dimension")
    );
}

#[test]
fn an_array_of_the_column_s_own_type_is_not_copied() {
    let utc = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
    for (values, type_name) in [
        (array(Int64Array::from(vec![1])), "bigint"),
        (array(StringArray::from(vec!["a"])), "character varying(3)"),
        (array(StringViewArray::from(vec!["{}"])), "jsonb"),
        (array(utc), "timestamp with time zone"),
        (array(Decimal128Array::from(vec![1])), "numeric"),
    ] {
        assert!(Arc::ptr_eq(&values, &fitted(&values, type_name).array), "{type_name}");
    }
}

#[test]
fn slices_and_dictionaries_are_fitted_by_their_own_rows() {
    let texts =
        array(StringArray::from(vec![Some("x"), Some("12"), None, Some("long"), Some("7")])).slice(1, 4);
    let result = fitted(&texts, "smallint");
    assert_eq!(result.rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [2]);
    let numbers = result.array.as_primitive::<Int16Type>();
    assert_eq!((numbers.value(0), numbers.is_null(1), numbers.value(3)), (12, true, 7));
    assert_eq!(rejected(&texts, "character varying(3)"), [2]);

    let dictionary =
        array(DictionaryArray::<Int8Type>::from_iter([Some("a"), None, Some("long"), Some("a")]));
    let result = fitted(&dictionary, "character varying(3)");
    assert_eq!(result.rejected.len(), 1);
    assert_eq!(
        result.array.as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("a"), None, Some("long"), Some("a")]
    );

    let lists =
        [Some(vec![Some(70_000)]), Some(vec![]), None, Some(vec![Some(1), Some(80_000), Some(90_000)])];
    let lists = array(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)).slice(1, 3);
    let result = fitted(&lists, "smallint[]");
    assert_eq!(result.rejected.len(), 1);
    let (row, message) = &result.rejected[0];
    assert!(*row == 2 && message.starts_with("element 1: 80000"), "{message}");
}

#[test]
fn times_of_another_zone_are_the_same_moments() {
    let berlin = array(TimestampSecondArray::from(vec![Some(5), None]).with_timezone("Europe/Berlin"));
    let result = fitted(&berlin, "timestamp with time zone");
    assert_eq!(result.array.data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    let micros = result.array.as_primitive::<TimestampMicrosecondType>();
    assert!(result.rejected.is_empty() && micros.is_null(1) && micros.value(0) == 5_000_000);
    let wall_clock = array(TimestampMicrosecondArray::from(vec![5]));
    let result = fitted(&wall_clock, "timestamp with time zone");
    assert_eq!(result.array.data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
}

#[test]
fn a_jsonb_is_sent_the_numbers_that_it_keeps() {
    let documents = array(StringArray::from(vec![Some("[1]"), None, Some("[1e16]"), Some("{")]));
    let result = fitted(&documents, "jsonb");
    let texts: Vec<_> = result.array.as_string::<i64>().iter().collect();
    assert_eq!(texts, [Some("[1]"), None, Some("[10000000000000000.0]"), Some("{")]);
    assert_eq!(result.rejected.len(), 1);
    assert!(Arc::ptr_eq(&fitted(&documents, "text").array, &documents));
}

proptest! {
    /// What is accepted is the value itself, by arithmetic of its own.
    #[test]
    fn a_decimal_fits_where_arithmetic_says_so(
        value in -1_000_000_i128..1_000_000, own_scale in 0_i8..6, precision in 1_u32..8, scale in 0_i32..6,
    ) {
        prop_assume!(scale <= precision as i32);
        let decimals = array(Decimal128Array::from(vec![value]).with_precision_and_scale(12, own_scale).unwrap());
        let common = value * 10_i128.pow(6 - own_scale as u32);
        let unit = 10_i128.pow((6 - scale) as u32);
        let fits = common % unit == 0 && (common / unit).abs() < 10_i128.pow(precision);
        let type_name = format!("numeric({precision},{scale})");
        prop_assert_eq!(rejected(&decimals, &type_name).is_empty(), fits);
        let texts = array(StringArray::from(vec![number::scaled_text(value, own_scale.into())]));
        prop_assert_eq!(rejected(&texts, &type_name).is_empty(), fits && i32::from(own_scale) == scale);
    }

    #[test]
    fn an_integer_fits_a_float_where_it_comes_back(value: i64) {
        let integers = array(Int64Array::from(vec![value]));
        let exact = value as f64 as i128 == i128::from(value);
        prop_assert_eq!(rejected(&integers, "double precision").is_empty(), exact);
    }
}
