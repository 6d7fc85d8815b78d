//! Arrays of every kind, with the values at the edges of each type, and some beyond.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

pub(super) fn plain(array: impl Array + 'static) -> (Field, ArrayRef) {
    (Field::new("x", array.data_type().clone(), true), Arc::new(array))
}

pub(super) fn extension(array: impl Array + 'static, name: &str) -> (Field, ArrayRef) {
    let (field, array) = plain(array);
    (field.with_metadata([("ARROW:extension:name".to_owned(), name.to_owned())].into()), array)
}

pub(super) fn numbers() -> Vec<(Field, ArrayRef)> {
    let decimals = |values: Vec<i128>, precision, scale| {
        plain(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    let max = 10_i128.pow(38) - 1;
    let wide =
        vec![i256::from_i128(i128::MAX) * i256::from_i128(10_i128.pow(30)), i256::from(-150), i256::from(0)];
    vec![
        plain(BooleanArray::from(vec![Some(true), None, Some(false)])),
        plain(Int8Array::from(vec![i8::MIN, 0, 1, i8::MAX])),
        plain(Int16Array::from(vec![i16::MIN, i16::MAX])),
        plain(Int32Array::from(vec![i32::MIN, i32::MAX, 40_000, 16_777_217])),
        plain(Int64Array::from(vec![i64::MIN, i64::MAX, 0, -1, (1 << 53) + 1, 1 << 60, 10_000, 12_300])),
        plain(UInt8Array::from(vec![0, 1, 255])),
        plain(UInt32Array::from(vec![0, u32::MAX])),
        plain(UInt64Array::from(vec![0, u64::MAX, i64::MAX as u64, 1 << 63])),
        plain(Float64Array::from(vec![
            0.1,
            -0.0,
            1.0,
            1e300,
            5e-324,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            0.1 + 0.2,
            9.3e18,
            123456789.0,
            1e15,
            1e16,
            1e-5,
            -1200.0,
            0.25,
            1e22,
        ])),
        plain(Float32Array::from(vec![
            0.1,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::INFINITY,
            f32::NAN,
            16_777_217.0,
            1e-45,
            1e6,
            1e7,
            -0.0,
        ])),
        decimals(
            vec![0, 1, -150, 9_999_999_999, 12_345_678_901, 1_234_567_890_123_456_789, max, -max],
            38,
            2,
        ),
        decimals(vec![5, i128::from(i64::MAX), max, 10_000, 1_200, 0], 38, 0),
        decimals(vec![5, max, 10_i128.pow(37), 123_456_789], 38, 38),
        decimals(vec![5, -99_999, 0], 5, -3),
        plain(Decimal32Array::from(vec![-12345, 0, 100]).with_precision_and_scale(5, 3).unwrap()),
        plain(Decimal64Array::from(vec![-12345, 0, 100]).with_precision_and_scale(18, 2).unwrap()),
        plain(Decimal256Array::from(wide).with_precision_and_scale(76, 2).unwrap()),
    ]
}

pub(super) fn texts() -> Vec<(Field, ArrayRef)> {
    let texts = vec![
        "",
        "abc",
        "123",
        "007",
        " 1",
        "1.0",
        "1.5",
        "1e5",
        "-0",
        "9223372036854775808",
        "é\u{1F600}",
        "a\0b",
        "0x10",
        "inf",
        "NaN",
        "Infinity",
        "0.30000000000000004",
        "true",
        "TRUE",
        "2024-01-02",
        "ends  ",
        "éééééé",
        "03:04:05.000000",
        "03:04:05",
        "2024-01-02T03:04:05.000000",
        "2024-01-02T03:04:05.123456Z",
        "2024-01-02 03:04:05+00",
        "00112233-4455-6677-8899-aabbccddeeff",
        "00112233-4455-6677-8899-AABBCCDDEEFF",
        "{\"a\": 1}",
        "[1,2",
        "null",
        "\\x00",
        "{1,2}",
        "NULL",
        "\"",
        "\\",
        "1200",
        "1250",
    ];
    let documents = vec![
        "null",
        "true",
        "0",
        "-1",
        "-0",
        "-0.0",
        "1e16",
        "1E+2",
        "1.50",
        "1e400",
        "1e-7",
        "18446744073709551616",
        "-9223372036854775808",
        "1e300",
        "\"\"",
        "[]",
        "{}",
        r#"{"a":{"b":[1,null,{"c":"d"}]},"":"e","ü":"\"\\\n\u0001"}"#,
        r#""\u0000""#,
        r#""\ud83d\ude00""#,
        r#"{"a":1,"a":2}"#,
        " [ 1 , 2 ] ",
        "123456789.123456789123456789123456789",
        "\"\u{10ffff}\"",
        r#"{"b":1,"a":2,"cc":[1e5,"1e5"]}"#,
    ];
    vec![
        plain(StringArray::from(texts)),
        plain(LargeStringArray::from(vec!["7", "x", "{\"a\":1e5}"])),
        plain(StringViewArray::from(vec![Some("7"), None, Some("a text too long to be inlined")])),
        plain(DictionaryArray::<Int8Type>::from_iter(["a", "b", "a"])),
        extension(StringArray::from(documents), "arrow.json"),
        plain(BinaryArray::from(vec![b"".as_ref(), b"\0\xff", b"12"])),
        plain(LargeBinaryArray::from(vec![b"".as_ref(), b"\0\xff", b"12"])),
        plain(BinaryViewArray::from(vec![b"".as_ref(), b"12 and more than is inlined"])),
        plain(FixedSizeBinaryArray::try_from_iter([[1_u8, 2], [0, 0]].iter()).unwrap()),
        plain(FixedSizeBinaryArray::try_from_iter([[7_u8; 16]].iter()).unwrap()),
        extension(FixedSizeBinaryArray::try_from_iter([[7_u8; 16], [255; 16]].iter()).unwrap(), "arrow.uuid"),
        plain(NullArray::new(3)),
    ]
}

pub(super) fn times() -> Vec<(Field, ArrayRef)> {
    let first = -62_135_596_800_000_000;
    let last = 253_402_300_799_999_999;
    vec![
        plain(Date32Array::from(vec![-719_162, -719_163, 0, 10_957, 2_932_896, i32::MAX])),
        plain(Date64Array::from(vec![0, 86_400_000, 1, i64::MAX])),
        plain(Time32SecondArray::from(vec![0, 86_399, 86_400])),
        plain(Time32MillisecondArray::from(vec![0, 86_399_999, -1])),
        plain(Time64MicrosecondArray::from(vec![0, 1, 1_000, 86_399_999_999, 86_400_000_000])),
        plain(Time64NanosecondArray::from(vec![0, 1_000, 1_001])),
        plain(TimestampSecondArray::from(vec![0, -1, i64::MAX, 86_400])),
        plain(TimestampMillisecondArray::from(vec![0, -1, i64::MIN]).with_timezone("+02:00")),
        plain(TimestampMicrosecondArray::from(vec![
            first,
            first - 1,
            -1,
            0,
            86_400_000_000,
            last,
            last + 1,
            i64::MIN,
        ])),
        plain(
            TimestampMicrosecondArray::from(vec![Some(first), None, Some(1), Some(last)])
                .with_timezone("UTC"),
        ),
        plain(TimestampNanosecondArray::from(vec![1_000, 1_001, 0, i64::MAX])),
    ]
}

pub(super) fn lists() -> Vec<(Field, ArrayRef)> {
    let numbers = || [Some(vec![Some(1), None, Some(40_000)]), None, Some(vec![]), Some(vec![Some(-1)])];
    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value(["a\"b\\c", "", "NULL", "{", "a,b"].map(Some));
    texts.append_value([Some("too long"), None]);
    texts.append_value([Some("a\0"), Some("1.50")]);
    texts.append_value(["[1e5]", "{}"].map(Some));
    let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        [Some(vec![Some(0.1), Some(-0.0)]), None, Some(vec![Some(f32::NAN), Some(f32::MAX)])],
        2,
    );
    vec![
        plain(ListArray::from_iter_primitive::<Int32Type, _, _>(numbers())),
        plain(ListArray::from_iter_primitive::<Int32Type, _, _>(numbers()).slice(1, 3)),
        plain(LargeListArray::from_iter_primitive::<Int32Type, _, _>(numbers())),
        plain(ListArray::from_iter_primitive::<UInt64Type, _, _>([Some(vec![Some(u64::MAX), None])])),
        plain(ListArray::from_iter_primitive::<Float64Type, _, _>([
            Some(vec![Some(0.1), Some(-1e300)]),
            Some(vec![Some(1.0), Some(f64::NAN), Some(f64::NEG_INFINITY)]),
        ])),
        plain(ListArray::from_iter_primitive::<Date32Type, _, _>([Some(vec![Some(0), Some(i32::MIN)])])),
        plain(vectors.clone()),
        plain(vectors.slice(1, 2)),
        plain(texts.finish()),
    ]
}
