use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use barge_core::ErrorKind;
use barge_files::{CsvOptions, ReadOptions};

use crate::{failure, read, read_with};

#[test]
fn types_are_inferred() {
    let outcome = read(
        "a.csv",
        "id,price,open,day,at,seen,code,big,none\n\
         1,9.5,true,2024-02-29,2024-02-29 10:00:00,2024-02-29T10:00:00+02:00,007,99999999999999999999,\n\
         2,,False,,,,x,1,\n",
    );
    assert_eq!(
        outcome.types,
        [
            "id: Int64",
            "price: Float64",
            "open: Boolean",
            "day: Date32",
            "at: Timestamp(µs)",
            "seen: Timestamp(µs, \"UTC\")",
            "code: Utf8",
            "big: Utf8",
            "none: Utf8"
        ]
    );
    assert_eq!(
        outcome.rows(),
        [
            "1|9.5|true|2024-02-29|2024-02-29T10:00:00|2024-02-29T08:00:00Z|007|99999999999999999999|∅",
            "2|∅|false|∅|∅|∅|x|1|∅"
        ]
    );
    assert_eq!(outcome.lines, [2, 3]);
}

#[test]
fn quotes_line_ends_and_blank_lines() {
    let outcome = read(
        "a.csv",
        "\u{feff}\r\n id ,\"text\"\r\n\r\n1,\"a \"\"b\"\", c\"\r\n2,\"two\nlines\"\r\n\n3,5\" pipe\r\n4,\"\"\n5,\n6,\"é,\"",
    );
    assert_eq!(outcome.types, ["id: Int64", "text: Utf8"]);
    assert_eq!(outcome.rows(), ["1|a \"b\", c", "2|two\nlines", "3|5\" pipe", "4|", "5|∅", "6|é,"]);
    assert_eq!(outcome.lines, [4, 5, 8, 9, 10, 11]);
    assert!(outcome.rejected.is_empty());
}

#[test]
fn carriage_returns_alone_end_lines() {
    let outcome = read("a.csv", "a,b\r1,x\r\r2,y\r\n3,z\r");
    assert_eq!(outcome.rows(), ["1|x", "2|y", "3|z"]);
    assert_eq!(outcome.lines, [2, 4, 5]);
}

#[test]
fn bad_values_reject_their_row_only() {
    let options = ReadOptions { sample_rows: 1, ..ReadOptions::default() };
    let content = "id,price,day,name\n\
                   1,1.5,2024-01-01,a\n\
                   x2,1.5,2024-01-01,a\n\
                   3,cheap,never,a\n\
                   9223372036854775808,1,2024-01-01,a\n\
                   5,1e999,2024-01-01,a\n\
                   6,1,2023-02-29,a\n\
                   007,1,2024-01-01,a\n\
                   8,2,2024-01-02,b\n";
    let outcome = read_with("data/prices.csv", content, &options).unwrap();
    assert_eq!(outcome.rows(), ["1|1.5|2024-01-01|a", "8|2.0|2024-01-02|b"]);
    assert_eq!(outcome.lines, [2, 9]);
    let hint = |data_type: &str, column: &str| {
        format!(
            "; the column was taken for {data_type} from the first row: \
             use --text {column} or a larger --sample-rows"
        )
    };
    assert_eq!(
        outcome.reasons(),
        [
            format!("data/prices.csv, line 3, column id: \"x2\" is not an integer{}", hint("Int64", "id")),
            format!(
                "data/prices.csv, line 4, column price: \"cheap\" is not a number{}",
                hint("Float64", "price")
            ),
            format!(
                "data/prices.csv, line 5, column id: \"9223372036854775808\" is out of range: Int64 holds \
                 -9223372036854775808 to 9223372036854775807{}",
                hint("Int64", "id")
            ),
            format!(
                "data/prices.csv, line 6, column price: \"1e999\" is out of range for Float64{}",
                hint("Float64", "price")
            ),
            format!(
                "data/prices.csv, line 7, column day: \"2023-02-29\" is not a date, as in 2024-02-29: there is no \
                 such day in the years 1 to 9999{}",
                hint("Date32", "day")
            ),
            format!(
                "data/prices.csv, line 8, column id: \"007\" would not come back as it is written if it were a \
                 number{}",
                hint("Int64", "id")
            ),
        ]
    );
    let second = &outcome.rejected[1];
    assert_eq!((second.line, second.row, second.raw.as_str()), (4, 3, "3,cheap,never,a"));
    assert_eq!(second.column.as_deref(), Some("price"));
    assert_eq!(second.error.kind(), ErrorKind::InvalidValue);
}

#[test]
fn text_columns_types_and_schema_settle_types() {
    let schema = Schema::new(vec![
        Field::new("b", DataType::Int16, false),
        Field::new("c", DataType::Int8, false),
        Field::new("d", DataType::Float32, true),
    ]);
    let options = ReadOptions {
        schema: Some(Arc::new(schema)),
        types: vec![("c".into(), DataType::Decimal128(5, 2)), ("a".into(), DataType::Int32)],
        text_columns: vec!["a".into()],
        ..ReadOptions::default()
    };
    let outcome =
        read_with("a.csv", "a,b,c,e\n1,2,3,4\n1,70000,3,4\n1,2,3.001,4\n1,2,1234,4\n", &options).unwrap();
    assert_eq!(outcome.types, ["a: Utf8", "b: Int16", "c: Decimal128(5, 2)", "e: Int64"]);
    assert_eq!(outcome.rows(), ["1|2|3.00|4"]);
    assert_eq!(
        outcome.reasons(),
        [
            "a.csv, line 3, column b: \"70000\" is out of range: Int16 holds -32768 to 32767",
            "a.csv, line 4, column c: \"3.001\" would be rounded: Decimal128(5, 2) keeps 2 digits after the point",
            "a.csv, line 5, column c: \"1234\" has too many digits: Decimal128(5, 2) holds 5",
        ]
    );
}

#[test]
fn every_target_type() {
    let extension = |field: Field, name: &str| {
        field.with_metadata([("ARROW:extension:name".to_owned(), name.to_owned())].into())
    };
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let fields = vec![
        Field::new("flag", DataType::Boolean, true),
        Field::new("u64", DataType::UInt64, true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("time", DataType::Time64(TimeUnit::Microsecond), true),
        Field::new("utc", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        extension(Field::new("uuid", DataType::FixedSizeBinary(16), true), "arrow.uuid"),
        extension(Field::new("json", DataType::Utf8, true), "arrow.json"),
        Field::new("list", DataType::List(item.clone()), true),
        Field::new("pair", DataType::FixedSizeList(item, 2), true),
    ];
    let header: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let header = header.join(";");
    let options = ReadOptions { schema: Some(Arc::new(Schema::new(fields))), ..ReadOptions::default() };
    let good = "yes;18446744073709551615;\\xCAFE;23:59:59.5;2024-02-29;00112233-4455-6677-8899-aabbccddeeff;\
                {\"a\": [1]};[1, null, \"NaN\"];[1.5,2]";
    let content = format!(
        "{header}\n{good}\n;;;;;;;;\n2;;;;;;;;\n;-1;;;;;;;\n;;xyz;;;;;;\n;;;25:00;;;;;\n;;;;yesterday;;;;\n\
         ;;;;;123;;;\n;;;;;;{{;;\n;;;;;;;[1,\"x\"];\n;;;;;;;;[1]\n"
    );
    let outcome = read_with("all.csv", content, &options).unwrap();
    assert_eq!(
        outcome.rows(),
        [
            "true|18446744073709551615|cafe|23:59:59.500|2024-02-29T00:00:00Z|00112233445566778899aabbccddeeff|\
             {\"a\": [1]}|[1.0, , NaN]|[1.5, 2.0]",
            "∅|∅|∅|∅|∅|∅|∅|∅|∅"
        ]
    );
    assert_eq!(
        outcome.reasons(),
        [
            "all.csv, line 4, column flag: \"2\" is not a boolean (true or false)",
            "all.csv, line 5, column u64: \"-1\" is out of range: UInt64 holds 0 to 18446744073709551615",
            "all.csv, line 6, column bytes: \"xyz\" is not bytes in hexadecimal, as in \\x00ff",
            "all.csv, line 7, column time: \"25:00\" is not a time of day, as in 23:59:59.999999: there is no such \
             time of day",
            "all.csv, line 8, column utc: \"yesterday\" is not a timestamp, as in 2024-02-29T23:59:59Z",
            "all.csv, line 9, column uuid: \"123\" is not a UUID",
            "all.csv, line 10, column json: \"{\" is not valid JSON: EOF while parsing an object at line 1 column 1",
            "all.csv, line 11, column list: \"[1,\\\"x\\\"]\": item 2: \"x\" is not a number",
            "all.csv, line 12, column pair: \"[1]\" has 1 items where 2 are expected",
        ]
    );
}

#[test]
fn lines_of_another_shape_are_rejected() {
    let mut content = b"a,b\n1,x\n1\n1,2,3\n2,\xff\xfe\n3,\"y\"z\n4,w\n".to_vec();
    content.extend_from_slice(b"5,\"open\n6,v\n");
    let outcome = read("bad.csv", &content);
    assert_eq!(outcome.rows(), ["1|x", "4|w"]);
    assert_eq!(
        outcome.reasons(),
        [
            "bad.csv, line 3: the line has 1 field where 2 are expected",
            "bad.csv, line 4: the line has 3 fields where 2 are expected",
            "bad.csv, line 5, column b: \"\u{fffd}\u{fffd}\" is not valid UTF-8: its byte 1 is 0xff",
            "bad.csv, line 6, column b: field 2 goes on after its closing quote: a quote inside quotes is written \
             twice",
            "bad.csv, line 8, column b: the quote that opens on line 8 in field 2 is never closed; lines 8 to 10 were \
             read as one row",
        ]
    );
    assert_eq!(outcome.rejected[4].raw, "5,\"open\n6,v\n");
    assert_eq!((outcome.rejected[4].line, outcome.rejected[4].last_line), (8, 10));
}

#[test]
fn rows_too_large_are_rejected() {
    for read_bytes in [1, 7, 64, 1 << 20] {
        let options =
            ReadOptions { row_bytes_max: 100, read_bytes, batch_bytes: 1000, ..ReadOptions::default() };
        let long = "é".repeat(60);
        let lines = "x\n".repeat(300);
        let content = format!("a,b\n1,x\n2,{long}\n3,y\n4,\"{lines}\"\n5,z\n6,\"{lines}");
        let outcome = read_with("large.csv", content, &options).unwrap();
        assert_eq!(outcome.rows(), ["1|x", "3|y", "5|z"], "{read_bytes}");
        assert_eq!(outcome.lines, [2, 4, 306]);
        assert_eq!(
            outcome.reasons(),
            [
                "large.csv, line 3: the row is larger than 100 bytes",
                "large.csv, line 5, column b: the row is larger than 100 bytes: a quote that opens on line 5 is not \
                 closed within them; lines 5 to 305 were read as one row",
                "large.csv, line 307, column b: the row is larger than 100 bytes: a quote that opens on line 307 is \
                 not closed within them; lines 307 to 607 were read as one row",
            ]
        );
        assert!(outcome.rejected.iter().all(|line| line.error.kind() == ErrorKind::TooLarge));
        assert!(outcome.rejected.iter().all(|line| line.raw.len() <= 104));
    }
}

#[test]
fn nulls_are_what_the_options_say() {
    let csv = CsvOptions { nulls: vec!["NA".into(), "\\N".into()], ..CsvOptions::default() };
    let options = ReadOptions { csv, ..ReadOptions::default() };
    let outcome = read_with("a.csv", "n,t\nNA,NA\n1,\"NA\"\n\\N,\n2,\\N\n", &options).unwrap();
    assert_eq!(outcome.types, ["n: Int64", "t: Utf8"]);
    assert_eq!(outcome.rows(), ["∅|∅", "1|NA", "∅|", "2|∅"]);
    // Where the empty field is NULL, an empty quoted one is too, but for text.
    let outcome = read("a.csv", "n,t\n\"\",\"\"\n\"1\",\"x\"\n");
    assert_eq!(outcome.rows(), ["∅|", "1|x"]);
}

#[test]
fn headers() {
    assert_eq!(failure("e.csv", ""), "e.csv is empty: it has no header and no rows");
    assert_eq!(failure("e.csv", "\n\n"), "e.csv is empty: it has no header and no rows");
    assert_eq!(
        failure("e.csv", "a,,c\n1,2,3\n"),
        "e.csv, line 1: column 2 has no name in the header: give it one, or name all columns yourself"
    );
    assert_eq!(
        failure("e.csv", "a,b,a\n1,2,3\n"),
        "e.csv has two columns named a: rename one, or name all columns yourself"
    );
    assert_eq!(
        failure("e.csv", "a,\"b\n1,2\n"),
        "e.csv, line 1: the quote that opens on line 1 in field 2 is never closed; lines 1 to 3 were read as one row"
    );
    assert_eq!(failure("e.csv", b"\xff\xfea\0"), "e.csv is encoded in UTF-16: convert it to UTF-8 first");
    assert_eq!(failure("e.csv", b"a,\xff\n"), "e.csv, line 1: the header's \"\u{fffd}\" is not valid UTF-8");
    let only_header = read("h.csv", "a,b\n");
    assert_eq!(
        (only_header.batch.num_rows(), only_header.types),
        (0, vec!["a: Utf8".into(), "b: Utf8".into()])
    );

    let csv = CsvOptions { has_header: false, ..CsvOptions::default() };
    let options = ReadOptions { csv, ..ReadOptions::default() };
    let outcome = read_with("n.csv", "1,x\n2,y\n", &options).unwrap();
    assert_eq!(outcome.types, ["column_1: Int64", "column_2: Utf8"]);
    assert_eq!((outcome.rows(), outcome.lines), (vec!["1|x".into(), "2|y".into()], vec![1, 2]));

    let named = |names: &[&str]| {
        let columns = Some(names.iter().map(ToString::to_string).collect());
        ReadOptions { csv: CsvOptions { columns, ..CsvOptions::default() }, ..ReadOptions::default() }
    };
    let outcome = read_with("n.csv", "a,a\n1,2\n", &named(&["x", "y"])).unwrap();
    assert_eq!(outcome.types, ["x: Int64", "y: Int64"]);
    let error = read_with("n.csv", "a,a\n1,2\n", &named(&["x"])).err().unwrap();
    assert_eq!(error.to_string(), "n.csv has 2 columns, and 1 were named for it");
    let options = ReadOptions { text_columns: vec!["z".into()], ..ReadOptions::default() };
    let error = read_with("n.csv", "a,b\n1,2\n", &options).err().unwrap();
    assert_eq!(error.to_string(), "n.csv has no column z; its columns are a, b");
    let options = ReadOptions { text_columns: vec!["nmae".into()], ..ReadOptions::default() };
    let error = read_with("n.csv", "id,name\n1,2\n", &options).err().unwrap();
    assert_eq!(error.to_string(), "n.csv has no column nmae; did you mean name?; its columns are id, name");
}

#[test]
fn delimiters_and_dialects() {
    assert_eq!(read("a.csv", "a;b\n1;2,5\n").types, ["a: Int64", "b: Utf8"]);
    assert_eq!(read("a.tsv", "a,x\tb\n1\t2\n").types, ["a,x: Int64", "b: Int64"]);
    let csv = CsvOptions { delimiter: Some(b'|'), quote: None, ..CsvOptions::default() };
    let options = ReadOptions { csv, ..ReadOptions::default() };
    assert_eq!(read_with("a.csv", "a|b\n\"x|y\"\n", &options).unwrap().rows(), ["\"x|y\""]);
    let csv = CsvOptions { delimiter: Some(b'"'), ..CsvOptions::default() };
    let error = read_with("a.csv", "a", &ReadOptions { csv, ..ReadOptions::default() }).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[test]
fn rejected_lines_are_kept_whole_where_that_is_asked_for() {
    let long = "x".repeat(10_000);
    let content = format!("id,name\n1,a\nbad,{long}\n{long}\n2,b\nbad,{}\n", "x".repeat(30_000));
    let cut = read("a.csv", &content).rejected;
    assert!(cut.iter().all(|line| !line.is_whole && line.values.is_empty() && line.raw.len() <= 4096));
    let options = ReadOptions {
        rejected_bytes_max: 1 << 20,
        row_bytes_max: 20_000,
        sample_rows: 1,
        ..ReadOptions::default()
    };
    let whole = read_with("a.csv", &content, &options).unwrap().rejected;
    assert_eq!(whole[0].values[1], ("name".into(), Some(long.clone())));
    assert_eq!((&whole[1].raw, whole[1].is_whole), (&long, true));
    // Larger than a row may be: not even then.
    assert!(!whole[2].is_whole && whole[2].raw.ends_with('…') && whole[2].raw.len() <= 20_000);
}

#[test]
fn a_file_of_nothing_but_bad_lines_comes_in_bounded_chunks() {
    let content = format!("a,b\n{}", "1\n".repeat(25_000));
    let mut source =
        barge_files::Source::from_reader("bad.csv", std::io::Cursor::new(content), &ReadOptions::default())
            .unwrap();
    let mut rejected = 0;
    while let Some(chunk) = source.next_chunk().unwrap() {
        assert!(chunk.rejected.len() <= 10_000);
        rejected += chunk.rejected.len();
    }
    assert_eq!(rejected, 25_000);
}
