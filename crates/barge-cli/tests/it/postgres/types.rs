//! Text of files into the types of tables that are there.

use serde_json::json;

use super::Server;

/// A type, texts of it in a CSV file with what the server then holds, and texts that are rejected.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const CASES: &[Case] = &[
    ("smallint", &[("-32768", "-32768"), (" 7 ", "7")], &["32768", "1.5", "x"]),
    ("integer", &[("2147483647", "2147483647")], &["2147483648"]),
    ("bigint", &[("9223372036854775807", "9223372036854775807")], &["9223372036854775808"]),
    ("real", &[("0.1", "0.1"), ("NaN", "NaN"), ("-Infinity", "-Infinity")], &["1e99", "x"]),
    ("double precision", &[("1e300", "1e+300"), ("0.1", "0.1")], &["1e999", "x"]),
    ("numeric(10,2)", &[("12.5", "12.50"), ("-99999999.99", "-99999999.99")], &["1.005", "123456789", "x"]),
    ("numeric(5,0)", &[("99999", "99999")], &["0.5", "100000"]),
    (
        "numeric",
        &[
            (
                "123456789012345678901234567890.000000000000000000001",
                "123456789012345678901234567890.000000000000000000001",
            ),
            ("1.50", "1.50"),
            ("NaN", "NaN"),
        ],
        &["x", "1,5"],
    ),
    ("text", &[("007", "007"), ("é 列", "é 列")], &[]),
    ("varchar(3)", &[("abc", "abc"), ("列列列", "列列列")], &["abcd"]),
    ("char(3)", &[("ab", "ab "), ("abc", "abc")], &["abcd"]),
    ("mood", &[("sad", "sad")], &["Sad", "angry"]),
    ("percent", &[("100", "100")], &["101", "x"]),
    ("short", &[("ab", "ab")], &["abc"]),
    ("citizen", &[("sad", "sad")], &["glad"]),
    ("json", &[("{\"a\":  1}", "{\"a\":  1}"), ("7", "7")], &["{", "x"]),
    ("jsonb", &[("{\"b\":1,\"a\": [2]}", "{\"a\": [2], \"b\": 1}"), ("null", "null")], &["{a:1}"]),
    (
        "integer[]",
        &[("[1,2,null]", "{1,2,NULL}"), ("[]", "{}"), ("{1,2,NULL}", "{1,2,NULL}"), ("{}", "{}")],
        &["[1.5]", "1", "{1", "[\"x\"]"],
    ),
    (
        "text[]",
        &[
            ("[\"a\",\"b,c\",null,\"\"]", "{a,\"b,c\",NULL,\"\"}"),
            ("{a,\"b,c\",NULL,\"null\"}", "{a,\"b,c\",NULL,\"null\"}"),
        ],
        &["a", "{a"],
    ),
    ("numeric(4,1)[]", &[("[1.5]", "{1.5}"), ("{1.5,2}", "{1.5,2.0}")], &["[1.55]"]),
    (
        "date[]",
        &[("{2024-01-02,NULL}", "{2024-01-02,NULL}"), ("[\"2024-01-02\"]", "{2024-01-02}")],
        &["{2024-13-01}"],
    ),
    ("bytea", &[("\\x00ff", "\\x00ff"), ("\\x", "\\x")], &["\\x0", "xyz"]),
    ("inet", &[("10.0.0.1/8", "10.0.0.1/8"), ("::1", "::1")], &["10.0.0.256", "x"]),
    ("interval", &[("1 day 02:03:04", "1 day 02:03:04"), ("P1Y", "1 year")], &["soon"]),
    (
        "uuid",
        &[
            ("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            ("a0eebc999c0b4ef8bb6d6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ],
        &["a0eebc99"],
    ),
    ("date", &[("2024-02-29", "2024-02-29")], &["2023-02-29", "x"]),
    ("time", &[("23:59:59.999999", "23:59:59.999999"), ("01:02", "01:02:00")], &["25:00"]),
    (
        "timestamp",
        &[("2024-02-29 23:59:59.5", "2024-02-29 23:59:59.5"), ("2024-02-29T01:02:03", "2024-02-29 01:02:03")],
        &["2024-02-30 00:00:00", "2024-01-01T00:00:00+01:00"],
    ),
    (
        "timestamptz",
        &[
            ("2024-02-29T23:59:59Z", "2024-02-29 23:59:59+00"),
            ("2024-03-01 00:59:59+01", "2024-02-29 23:59:59+00"),
        ],
        &["soon"],
    ),
    (
        "boolean",
        &[("t", "t"), ("f", "f"), ("true", "t"), ("FALSE", "f"), ("1", "t"), ("no", "f")],
        &["maybe", "2"],
    ),
    ("int4range", &[("[1,3)", "[1,3)")], &["[3,1)"]),
    ("money", &[("12.50", "$12.50")], &["x"]),
    ("xml", &[("<a>1</a>", "<a>1</a>")], &["<a>"]),
    ("tsvector", &[("a b", "'a' 'b'")], &[]),
];

const OWN_TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
    CREATE DOMAIN short AS varchar(2);
    CREATE DOMAIN citizen AS mood CHECK (VALUE = 'sad');";

#[test]
fn csv_into_every_type() {
    let tables: String = (0..CASES.len())
        .map(|place| format!("CREATE TABLE t{place}(id integer, v {});", CASES[place].0))
        .collect();
    let server = Server::with(&format!("{OWN_TYPES}{tables}"));
    for (place, (type_name, good, bad)) in CASES.iter().enumerate() {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let texts = good.iter().map(|(text, _)| *text).chain(bad.iter().copied());
        let lines: String = texts.enumerate().map(|(id, text)| format!("{id},{}\n", quoted(text))).collect();
        server.place.write("a.csv", format!("id,v\n{lines}{},\n", good.len() + bad.len()));
        let table = format!("t{place}");
        let run = server.barge(&["load", "a.csv", "--to", &server.url(), "--table", &table, "--json"]);
        let expected: Vec<String> = good
            .iter()
            .enumerate()
            .map(|(id, (_, held))| format!("{id}|{held}"))
            .chain([format!("{}|∅", good.len() + bad.len())])
            .collect();
        assert_eq!(
            server.rows(&format!("SET TimeZone = 'UTC'; SELECT id, v FROM {table} ORDER BY id")),
            expected,
            "{type_name}: {run:#?}"
        );
        let told: Vec<u64> = run.json()["rejected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["line"].as_u64().unwrap())
            .collect();
        let first_bad = good.len() as u64 + 2;
        assert_eq!(
            told,
            (first_bad..first_bad + bad.len() as u64).collect::<Vec<_>>(),
            "{type_name}: {run:#?}"
        );
        assert_eq!(run.status, if bad.is_empty() { 0 } else { 3 }, "{type_name}: {run:#?}");
    }
}

#[test]
fn json_lines_into_the_same_types() {
    let server = Server::with(&format!(
        "{OWN_TYPES}
         CREATE TABLE t(id integer PRIMARY KEY, n numeric, p numeric(10,2), m mood, d percent, j jsonb, a integer[], w text[], b bytea,
            i inet, v interval, u uuid, day date, at timestamptz, ok boolean, big bigint)"
    ));
    let good = json!({"id": 1, "n": 1.25, "p": "7.5", "m": "sad", "d": 5, "j": {"a": [1, null]}, "a": [1, null], "w": ["x", "y,z"],
        "b": "\\x01", "i": "::1", "v": "2 days", "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "day": "2024-01-02",
        "at": "2024-01-02T00:00:00Z", "ok": true, "big": 9_007_199_254_740_993_i64});
    let mut lines = format!("{good}\n{{\"id\":2}}\n");
    for bad in [
        json!({"id": 3, "n": "x"}),
        json!({"id": 4, "p": 1.005}),
        json!({"id": 5, "m": "angry"}),
        json!({"id": 6, "d": 101}),
        json!({"id": 7, "a": ["x"]}),
        json!({"id": 8, "i": "10.0.0.256"}),
        json!({"id": 9, "v": "soon"}),
        json!({"id": 10, "ok": "maybe"}),
        json!({"id": 11, "day": "2023-02-29"}),
    ] {
        lines.push_str(&format!("{bad}\n"));
    }
    server.place.write("a.jsonl", lines);
    let run = server.load("a.jsonl", &["--json"]).ends(3);
    assert_eq!(run.counts(), [11, 2, 9]);
    assert_eq!(
        server.rows("SET TimeZone = 'UTC'; SELECT * FROM t ORDER BY id"),
        [
            "1|1.25|7.50|sad|5|{\"a\": [1, null]}|{1,NULL}|{x,\"y,z\"}|\\x01|::1|2 days|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\
             |2024-01-02|2024-01-02 00:00:00+00|t|9007199254740993",
            "2|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅|∅",
        ]
    );
    let told = run.rejected();
    assert!(told.iter().any(|told| told.starts_with("8: ") && told.contains("10.0.0.256")), "{told:?}");
}

#[test]
fn what_files_bring_becomes_types_that_hold_it() {
    let server = Server::new();
    server
        .place
        .write("a.jsonl", "{\"id\":1,\"tags\":[\"a\"],\"extra\":{\"x\":1},\"price\":1.5,\"ok\":true}\n");
    server.load("a.jsonl", &["--column-type", "price=decimal(12,2)"]).ends(0);
    assert_eq!(
        server.rows("SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum"),
        ["id|bigint", "tags|jsonb", "extra|jsonb", "price|numeric(12,2)", "ok|boolean"]
    );
}

#[test]
fn defaults_identities_and_computed_columns() {
    let server = Server::with(
        "CREATE TABLE t(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, state text NOT NULL DEFAULT 'new',
            loud text GENERATED ALWAYS AS (upper(name)) STORED)",
    );
    server.place.write("a.csv", "name\na\nb\n");
    server.load("a.csv", &[]).ends(0);
    server.place.write("b.csv", "id,name\n10,c\n");
    server.load("b.csv", &[]).ends(0);
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id"), ["1|a|new|A", "2|b|new|B", "10|c|new|C"]);
    server.place.write("c.csv", "name,loud\na,A\n");
    let run = server.load("c.csv", &[]).ends(1);
    assert!(run.message().contains("loud"), "{run:?}");
}
