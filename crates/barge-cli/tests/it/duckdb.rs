//! Databases in DuckDB.

use barge::Database;
use barge::arrow::array::RecordBatch;
use barge::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::export::ALL_TYPES;
use crate::{Place, Run, rows_of};

/// The rows of a query, values joined by `|`, NULL as `∅`.
fn rows(place: &Place, sql: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let read = async {
        let url = format!("duckdb:{}", place.path("test.duckdb").display());
        let db: Database = barge::open(&url).await.unwrap();
        let rows = db.query(sql).await.unwrap().into_batch().await.unwrap();
        db.close().await.unwrap();
        rows
    };
    let rows: RecordBatch = runtime.block_on(read);
    let options = FormatOptions::default().with_null("∅");
    let columns: Vec<_> =
        rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let cell = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..rows.num_rows()).map(cell).collect()
}

fn execute(place: &Place, statements: &[&str]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let url = format!("duckdb:{}", place.path("test.duckdb").display());
        let db = barge::open(&url).await.unwrap();
        for statement in statements {
            db.execute(*statement).await.unwrap();
        }
        db.close().await.unwrap();
    });
}

fn load(place: &Place, file: &str, arguments: &[&str]) -> Run {
    place
        .barge(&[&["load", file, "--to", "duckdb:test.duckdb", "--table", "t", "--json"], arguments].concat())
}

#[test]
fn a_file_makes_a_table_and_is_loaded_again() {
    let place = Place::new();
    place.write("a.csv", "id,name,price,day\n1,one,1.50,2024-01-02\n2,two,,2024-01-03\n");
    assert_eq!(load(&place, "a.csv", &["--key", "id"]).ends(0).counts(), [2, 2, 0]);
    let found = rows(&place, "SELECT * FROM t ORDER BY id");
    assert_eq!(found, ["1|one|1.5|2024-01-02", "2|two|∅|2024-01-03"]);
    assert!(!place.path("test.duckdb.wal").exists(), "the database is closed whole");

    assert_eq!(load(&place, "a.csv", &[]).ends(3).counts(), [2, 0, 2]);
    place.write("b.csv", "id,name\n2,deux\n3,trois\n");
    let run = load(&place, "b.csv", &["--mode", "upsert"]).ends(0);
    assert_eq!((run.counts(), run.json()["rows_updated"].as_u64()), ([2, 2, 0], Some(1)));
    assert_eq!(rows(&place, "SELECT name FROM t ORDER BY id"), ["one", "deux", "trois"]);

    place.write("c.csv", "id,name\n7,seven\n");
    load(&place, "c.csv", &["--mode", "replace"]).ends(0);
    assert_eq!(rows(&place, "SELECT id, name FROM t"), ["7|seven"]);
}

#[test]
fn bad_rows_are_told_and_their_neighbours_loaded() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TYPE side AS ENUM ('buy', 'sell')",
            "CREATE TABLE t(id BIGINT PRIMARY KEY, side side NOT NULL, n HUGEINT CHECK (n > 0), code VARCHAR UNIQUE)",
        ],
    );
    place.write(
        "a.csv",
        "id,side,n,code\n1,buy,170141183460469231731687303,a\n2,hold,1,b\n3,sell,0,c\n1,buy,1,d\n4,sell,1,a\n5,,1,e\n6,buy,,\n",
    );
    let run = load(&place, "a.csv", &[]).ends(3);
    assert_eq!(run.counts(), [7, 2, 5]);
    let rejected = run.rejected().join("\n");
    for said in ["hold", "check", "id", "code", "no NULL"] {
        assert!(rejected.contains(said), "{said}: {rejected}");
    }
    let found = rows(&place, "SELECT * FROM t ORDER BY id");
    assert_eq!(found, ["1|buy|170141183460469231731687303|a", "6|buy|∅|∅"]);
}

#[test]
fn tables_and_columns_are_shown() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TABLE t(id BIGINT PRIMARY KEY, tags VARCHAR[])",
            "CREATE SCHEMA s",
            "CREATE TABLE s.u(x FLOAT[3])",
        ],
    );
    let tables = place.barge(&["tables", "duckdb:test.duckdb"]).ends(0);
    assert!(tables.out.contains('t') && tables.out.contains("s.u"), "{}", tables.out);
    let described = place.barge(&["describe", "duckdb:test.duckdb", "t"]).ends(0);
    assert!(described.out.contains("VARCHAR[]") && described.out.contains("BIGINT"), "{}", described.out);
    let described = place.barge(&["describe", "duckdb:test.duckdb", "s.u"]).ends(0);
    assert!(described.out.contains("FLOAT[3]"), "{}", described.out);
    // Looking makes no file.
    let missing = place.barge(&["tables", "duckdb:none.duckdb"]).ends(1);
    assert!(missing.message().contains("none.duckdb") && !place.path("none.duckdb").exists(), "{missing:?}");
}

#[test]
fn a_file_held_by_another_process_is_named() {
    let place = Place::new();
    execute(&place, &["CREATE TABLE t(id BIGINT)"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let url = format!("duckdb:{}", place.path("test.duckdb").display());
    let db = runtime.block_on(barge::open(&url)).unwrap();
    place.write("a.csv", "id\n1\n");
    let run = load(&place, "a.csv", &[]).ends(1);
    let message = run.message();
    assert!(message.contains("test.duckdb") && message.contains("another process"), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    runtime.block_on(db.close()).unwrap();
    load(&place, "a.csv", &[]).ends(0);
}

#[test]
fn two_hundred_thousand_flights_load() {
    let place = Place::new();
    let file = format!("{}/../../data/flights-200k.arrow", env!("CARGO_MANIFEST_DIR"));
    assert_eq!(load(&place, &file, &[]).ends(0).counts(), [200_000, 200_000, 0]);
    let found = rows(&place, "SELECT count(*), min(delay), max(delay), min(distance), max(distance) FROM t");
    assert_eq!(found, ["200000|-86|1444|30|4962"]);
}

#[test]
fn every_type_goes_there_and_comes_back() {
    let place = Place::with(ALL_TYPES);
    let there = place.barge(&["copy", "sqlite:test.db", "t", "--to", "duckdb:test.duckdb", "--json"]).ends(0);
    assert_eq!(there.counts(), [4, 4, 0]);
    let back = place.barge(&["copy", "duckdb:test.duckdb", "t", "--to", "sqlite:back.db", "--json"]).ends(0);
    assert_eq!(back.counts(), [4, 4, 0]);
    let other = rusqlite::Connection::open(place.path("back.db")).unwrap();
    let sql = "SELECT * FROM t ORDER BY id";
    assert_eq!(rows_of(&other, sql), place.rows(sql));
}

#[test]
fn a_table_goes_into_files_and_back() {
    let place = Place::with(ALL_TYPES);
    place.barge(&["copy", "sqlite:test.db", "t", "--to", "duckdb:test.duckdb"]).ends(0);
    let found = rows(&place, "SELECT COLUMNS(*)::VARCHAR FROM (FROM t ORDER BY id)");
    for file in ["t.parquet", "t.arrow", "t.csv", "t.jsonl.zst"] {
        place.barge(&["export", "duckdb:test.duckdb", "t", "--to", file]).ends(0);
        execute(&place, &["DELETE FROM t"]);
        assert_eq!(load(&place, file, &[]).ends(0).counts(), [4, 4, 0], "{file}");
        assert_eq!(rows(&place, "SELECT COLUMNS(*)::VARCHAR FROM (FROM t ORDER BY id)"), found, "{file}");
    }
}

#[test]
fn a_table_is_not_copied_onto_itself_nor_a_database_exported_over_itself() {
    let place = Place::new();
    place.write("a.csv", "id\n1\n");
    load(&place, "a.csv", &[]).ends(0);
    let run = place.barge(&["copy", "duckdb:test.duckdb", "t", "--to", "duckdb:./test.duckdb"]).ends(2);
    assert!(run.message().contains("onto itself"), "{run:?}");
    let export =
        ["export", "duckdb:test.duckdb", "t", "--to", "test.duckdb", "--format", "csv", "--overwrite"];
    place.barge(&export).ends(2);
    assert_eq!(rows(&place, "SELECT * FROM t"), ["1"]);
    let arguments =
        ["copy", "duckdb:test.duckdb", "t", "--to", "duckdb:test.duckdb", "--table", "u", "--json"];
    assert_eq!(place.barge(&arguments).ends(0).counts(), [1, 1, 0]);
}

/// Two schemas of one file are two places; one schema is one, however it is named.
#[test]
fn a_table_goes_into_another_schema_of_its_file() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE SCHEMA s",
            "CREATE TABLE t(id BIGINT PRIMARY KEY)",
            "CREATE TABLE s.t(id BIGINT PRIMARY KEY)",
            "INSERT INTO t VALUES (1), (2)",
        ],
    );
    let copy = |from: &str, to: &str| {
        place.barge(&[
            "copy",
            "duckdb:test.duckdb",
            from,
            "--to",
            "duckdb:test.duckdb",
            "--table",
            to,
            "--json",
        ])
    };
    assert_eq!(copy("t", "s.t").ends(0).counts(), [2, 2, 0]);
    assert_eq!(rows(&place, "SELECT count(*) FROM s.t"), ["2"]);
    assert!(copy("s.t", "S.T").ends(2).message().contains("onto itself"));
    assert!(copy("t", "main.t").ends(2).message().contains("onto itself"));
}

/// The file that is only read is left as it is.
#[test]
fn a_copy_leaves_its_source_as_it_is() {
    let place = Place::new();
    execute(&place, &["CREATE TABLE t(id BIGINT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]);
    let path = place.path("test.duckdb");
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    place.barge(&["copy", "duckdb:test.duckdb", "t", "--to", "duckdb:other.duckdb"]).ends(0);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
    let again = place.barge(&[
        "copy",
        "duckdb:test.duckdb?read_only=true",
        "t",
        "--to",
        "duckdb:other.duckdb",
        "--table",
        "u",
    ]);
    again.ends(0);
}

/// Nanoseconds go where there is a place for them, and are refused elsewhere.
#[test]
fn nanoseconds_are_never_cut_off() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TABLE t(id BIGINT PRIMARY KEY, moment TIMESTAMP_NS)",
            "INSERT INTO t VALUES (1, '2024-01-02 03:04:05.123456789'), (2, '2024-01-02 03:04:05.5')",
        ],
    );
    let found = "SELECT moment::VARCHAR FROM t ORDER BY id";
    let expected = rows(&place, found);
    place.barge(&["copy", "duckdb:test.duckdb", "t", "--to", "duckdb:test.duckdb", "--table", "u"]).ends(0);
    assert_eq!(rows(&place, &found.replace(" t ", " u ")), expected);
    let run = place.barge(&["copy", "duckdb:test.duckdb", "t", "--to", "sqlite:other.db", "--json"]).ends(3);
    assert_eq!(run.counts(), [2, 1, 1]);
    for file in ["t.csv", "t.jsonl"] {
        let message = place.barge(&["export", "duckdb:test.duckdb", "t", "--to", file]).ends(1);
        assert!(message.message().contains("nanoseconds"), "{message:?}");
        assert!(!place.path(file).exists());
    }
    place.barge(&["export", "duckdb:test.duckdb", "t", "--to", "t.parquet"]).ends(0);
    execute(&place, &["DELETE FROM t"]);
    assert_eq!(load(&place, "t.parquet", &[]).ends(3).counts(), [2, 1, 1]);
}

/// What has no Arrow type is text in files, as in look-ups.
#[test]
fn types_without_an_arrow_type_are_text_in_files() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TABLE t(id BIGINT PRIMARY KEY, i INTERVAL, b BIT, z TIMETZ, l INTEGER[][])",
            "INSERT INTO t VALUES (1, INTERVAL 36 HOURS, '101', '03:04:05+02', [[7], NULL]), (2, NULL, NULL, NULL, NULL)",
        ],
    );
    let found = rows(&place, "SELECT COLUMNS(*)::VARCHAR FROM (FROM t ORDER BY id)");
    for file in ["t.parquet", "t.csv", "t.jsonl"] {
        place.barge(&["export", "duckdb:test.duckdb", "t", "--to", file]).ends(0);
        execute(&place, &["DELETE FROM t"]);
        assert_eq!(load(&place, file, &[]).ends(0).counts(), [2, 2, 0], "{file}");
        assert_eq!(rows(&place, "SELECT COLUMNS(*)::VARCHAR FROM (FROM t ORDER BY id)"), found, "{file}");
    }
}

/// Two connections take batches beside each other, and every row is answered.
#[test]
fn a_load_goes_over_several_connections() {
    let place = Place::new();
    let lines = (0..20_000).map(|id| format!("{},{id}\n", if id == 15_000 { 3 } else { id }));
    place.write("a.csv", format!("id,n\n{}", lines.collect::<String>()));
    let arguments = ["--key", "id", "--connections", "2", "--batch-rows", "1000"];
    assert_eq!(load(&place, "a.csv", &arguments).ends(3).counts(), [20_000, 19_999, 1]);
    assert_eq!(rows(&place, "SELECT count(*), count(DISTINCT id) FROM t"), ["19999|19999"]);
    let within =
        ["copy", "duckdb:test.duckdb", "t", "--to", "duckdb:./test.duckdb", "--table", "u", "--json"];
    let refused = place.barge(&[&within[..], &["--connections", "2"]].concat()).ends(2);
    assert!(refused.message().contains("within one DuckDB file"), "{refused:?}");
    assert_eq!(place.barge(&within).ends(0).counts(), [19_999, 19_999, 0]);
}

/// What is inside a STRUCT or a MAP is as it was.
#[test]
fn values_inside_structs_and_maps_come_back_equal() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TABLE t(id BIGINT PRIMARY KEY, s STRUCT(b BLOB, x DOUBLE, y BOOLEAN, h HUGEINT, t VARCHAR), m MAP(VARCHAR, BOOLEAN), \
             l STRUCT(x DOUBLE)[], n INTEGER[][])",
            "INSERT INTO t VALUES \
             (1, {'b': '\\x00\\xFF'::BLOB, 'x': 'nan', 'y': true, 'h': 170141183460469231731687303715884105727, 't': 'it''s, {x}'}, \
              MAP {'a': true, 'b': false}, [{'x': 'inf'}, NULL], [[1, NULL], []]), \
             (2, NULL, NULL, NULL, NULL), (3, {'b': NULL, 'x': NULL, 'y': false, 'h': -1, 't': 'NULL'}, MAP {}, [], NULL)",
        ],
    );
    let all = "SELECT id, md5(s.b), s.x::VARCHAR, s.y, s.h::VARCHAR, s.t, s.t IS NULL, m::VARCHAR, l::VARCHAR, n::VARCHAR FROM t ORDER BY id";
    let found = rows(&place, all);
    for file in ["t.parquet", "t.arrow", "t.csv", "t.jsonl"] {
        place.barge(&["export", "duckdb:test.duckdb", "t", "--to", file]).ends(0);
        execute(&place, &["DELETE FROM t"]);
        assert_eq!(load(&place, file, &[]).ends(0).counts(), [3, 3, 0], "{file}");
        assert_eq!(rows(&place, all), found, "{file}");
    }
}

/// DuckDB calls a database like its file, and a schema may have the same name.
#[test]
fn a_schema_may_be_called_like_its_file() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE SCHEMA test",
            "CREATE TABLE test.test.t(id BIGINT PRIMARY KEY)",
            "INSERT INTO test.test.t VALUES (1), (2)",
        ],
    );
    place.barge(&["export", "duckdb:test.duckdb", "test.t", "--to", "t.csv"]).ends(0);
    let into = |table| ["--to", "duckdb:test.duckdb", "--schema", "test", "--table", table, "--json"];
    let copy = [&["copy", "duckdb:test.duckdb", "test.t"][..], &into("u")].concat();
    assert_eq!(place.barge(&copy).ends(0).counts(), [2, 2, 0]);
    place.write("a.csv", "id\n7\n");
    for table in ["u", "v"] {
        let replace = [&["load", "a.csv", "--mode", "replace"][..], &into(table)].concat();
        assert_eq!(place.barge(&replace).ends(0).counts(), [1, 1, 0]);
        assert_eq!(rows(&place, &format!("SELECT * FROM test.test.{table}")), ["7"]);
    }
}

#[test]
fn a_list_that_does_not_fit_is_its_rows_end_alone() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TABLE t(id BIGINT PRIMARY KEY, l BIGINT[])",
            "INSERT INTO t VALUES (1, [1, NULL]), (2, [3000000000])",
            "CREATE TABLE u(id BIGINT PRIMARY KEY, l INTEGER[])",
        ],
    );
    let copy = ["copy", "duckdb:test.duckdb", "t", "--to", "duckdb:test.duckdb", "--table", "u", "--json"];
    assert_eq!(place.barge(&copy).ends(3).counts(), [2, 1, 1]);
    assert_eq!(rows(&place, "SELECT id, l::VARCHAR FROM u"), ["1|[1, NULL]"]);
}

/// Times of other units than microseconds, from text: exact, or refused.
#[test]
fn text_goes_into_timestamps_of_every_unit() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, s TIMESTAMP_S, ms TIMESTAMP_MS, us TIMESTAMP, ns TIMESTAMP_NS)",
        ],
    );
    place.write(
        "a.csv",
        "id,s,ms,us,ns\n\
         1,2024-02-29 01:02:03,2024-02-29 01:02:03.004,2024-02-29 01:02:03.000005,2024-02-29 01:02:03.000000006\n\
         2,2024-02-29 01:02:03.5,,,\n3,,2024-02-29 01:02:03.0005,,\n4,,,2024-02-29 01:02:03.0000005,\n5,,,,2024-02-29 01:02:03.0000000001\n",
    );
    let run = load(&place, "a.csv", &[]).ends(3);
    assert_eq!(run.counts(), [5, 1, 4]);
    assert!(run.rejected().iter().all(|told| told.contains("is more exact than")), "{run:?}");
    let written = "SELECT s::VARCHAR, ms::VARCHAR, us::VARCHAR, ns::VARCHAR FROM t";
    let times = ["01:02:03", "01:02:03.004", "01:02:03.000005", "01:02:03.000000006"];
    assert_eq!(rows(&place, written), [times.map(|time| format!("2024-02-29 {time}")).join("|")]);
    for format in ["csv", "jsonl"] {
        let file = format!("out.{format}");
        let exported = place.barge(&[
            "export",
            "duckdb:test.duckdb",
            "--query",
            "SELECT id + 10 AS id, s, ms, us FROM t",
            "--to",
            &file,
        ]);
        exported.ends(0);
        assert_eq!(load(&place, &file, &[]).ends(0).counts(), [1, 1, 0], "{format}");
        execute(&place, &["DELETE FROM t WHERE id > 10"]);
    }
}

/// Its text doesn't say which member a value is of: `1` would become the first that takes it.
#[test]
fn a_union_is_not_written_as_another() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x UNION(num INTEGER, str VARCHAR))",
            "INSERT INTO t VALUES (1, union_value(str := '1'))",
            "CREATE TABLE other(id INTEGER PRIMARY KEY, x UNION(num INTEGER, str VARCHAR))",
        ],
    );
    let copy = ["copy", "duckdb:test.duckdb", "t", "--to", "duckdb:test.duckdb", "--table", "other"];
    let run = place.barge(&copy).ends(1);
    assert!(run.message().contains("UNION"), "{run:?}");
    assert_eq!(rows(&place, "SELECT count(*) FROM other"), ["0"]);
    let query = [&copy[..2], &["--query", "SELECT id FROM t"], &copy[3..]].concat();
    place.barge(&query).ends(0);
    assert_eq!(rows(&place, "SELECT id FROM other WHERE x IS NULL OR x.str IS NULL"), ["1"]);
}

/// A row that DuckDB can't change in this transaction is a rejected row, and not the load's end.
#[test]
fn a_row_that_duckdb_can_not_change_leaves_its_neighbours() {
    let place = Place::new();
    execute(
        &place,
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u INTEGER UNIQUE, v INTEGER)",
            "INSERT INTO t SELECT range, range, 0 FROM range(5000)",
            "CREATE TABLE child(t INTEGER REFERENCES t(id))",
            "INSERT INTO child VALUES (7)",
        ],
    );
    let lines: String = (0..5_000).map(|id| format!("{id},{},1\n", id + 10_000)).collect();
    place.write("a.csv", format!("id,u,v\n{lines}"));
    let run =
        load(&place, "a.csv", &["--mode", "upsert", "--batch-rows", "1000", "--dead-letter", "rest.jsonl"])
            .ends(3);
    assert_eq!(run.counts(), [5_000, 4_999, 1]);
    assert!(run.rejected()[0].starts_with("9: "), "{run:?}");
    assert_eq!(rows(&place, "SELECT count(*) FROM t WHERE v = 1"), ["4999"]);
}

#[test]
fn a_database_in_memory_answers_queries() {
    let place = Place::new();
    let run = place
        .barge(&["export", "duckdb::memory:", "--query", "SELECT 7 AS n", "--to", "-", "--format", "csv"])
        .ends(0);
    assert_eq!(run.out, "n\n7\n");
}

/// Random rows of many types into every format and through other databases, and back: DuckDB itself finds no difference.
#[test]
fn random_rows_come_back_equal() {
    // Words that formats have to quote, and some that look like other types.
    const WORDS: &str = "['', ' ', 'NULL', 'null', 'true', '007', '1e5', 'NaN', 'a,b', 'say \"x\"', 'two\nlines', E'\\r\\n', E'tab\\t', 'é列🦆', \
                         '\\x00ff', '{\"a\": 1}', '[1]', '2024-02-30', '''', ';--', 'a\\b']";
    // A number between 0 and 1 that the row, the column and the seed decide.
    let at = |column: u32| format!("(hash(i, {column}, seed) % 1000003) / 1000003.0");
    let pick =
        |column: u32, value: &str| format!("CASE WHEN {} < 0.15 THEN NULL ELSE {value} END", at(column));
    let word = |column: u32| format!("({WORDS})[1 + (hash(i, {column}, seed) % 21)::INTEGER]");
    let columns = [
        ("flag", pick(1, "hash(i, 2, seed) % 2 = 0"), "BOOLEAN"),
        ("tiny", pick(3, "(hash(i, 4, seed) % 256)::INTEGER - 128"), "TINYINT"),
        ("whole", pick(5, "(hash(i, 6, seed) % 4294967296)::BIGINT - 2147483648"), "INTEGER"),
        ("large", pick(7, "(hash(i, 8, seed)::HUGEINT - 9223372036854775808::HUGEINT)"), "BIGINT"),
        ("unsigned_", pick(9, "hash(i, 10, seed) % 9223372036854775807"), "UBIGINT"),
        ("single", pick(11, &format!("({} - 0.5) * 1e10", at(12))), "FLOAT"),
        ("double_", pick(13, &format!("({} - 0.5) / 1e200", at(14))), "DOUBLE"),
        ("price", pick(15, "(hash(i, 16, seed) % 1000000000000)::DECIMAL(18,0) / 1000000"), "DECIMAL(30,10)"),
        ("word", pick(17, &word(18)), "VARCHAR"),
        ("joined", pick(19, &format!("{} || {} || {}", word(20), word(21), word(22))), "VARCHAR"),
        ("bytes_", pick(23, &format!("encode({})", word(24))), "BLOB"),
        ("day", pick(25, "DATE '1970-01-01' + ((hash(i, 26, seed) % 200000)::INTEGER - 100000)"), "DATE"),
        (
            "clock",
            pick(27, "TIME '00:00:00' + to_microseconds((hash(i, 28, seed) % 86400000000)::BIGINT)"),
            "TIME",
        ),
        (
            "at_",
            pick(29, "make_timestamp((hash(i, 30, seed) % 8000000000000000)::BIGINT - 4000000000000000)"),
            "TIMESTAMP",
        ),
        ("moment", pick(31, "make_timestamp((hash(i, 32, seed) % 8000000000000000)::BIGINT)"), "TIMESTAMPTZ"),
        ("uid", pick(33, "md5(hash(i, 34, seed)::VARCHAR)"), "UUID"),
        ("numbers", pick(35, "[(hash(i, 36, seed) % 100)::INTEGER, NULL, i]"), "INTEGER[]"),
        ("words", pick(37, &format!("[{}, NULL, {}]", word(38), word(39))), "VARCHAR[]"),
    ];
    let columns: Vec<String> = columns
        .iter()
        .map(|(name, value, data_type)| format!("CAST({value} AS {data_type}) AS {name}"))
        .collect();
    for seed in 1..=3 {
        let place = Place::new();
        let make = format!(
            "CREATE TABLE t AS SELECT i::BIGINT AS id, {} FROM (SELECT range::INTEGER AS i, {seed} AS seed FROM range(400))",
            columns.join(", ")
        );
        execute(&place, &[&make, "CREATE TABLE back AS FROM t LIMIT 0"]);
        let differ = |way: &str| {
            let differences = "SELECT count(*) FROM ((FROM t EXCEPT ALL FROM back) UNION ALL (FROM back EXCEPT ALL FROM t))";
            assert_eq!(rows(&place, differences), ["0"], "{way}, seed {seed}");
            assert_eq!(rows(&place, "SELECT count(*) FROM back"), ["400"], "{way}, seed {seed}");
            execute(&place, &["DELETE FROM back"]);
        };
        for file in ["a.csv", "a.jsonl.gz", "a.parquet", "a.arrow"] {
            place.barge(&["export", "duckdb:test.duckdb", "t", "--to", file]).ends(0);
            place.barge(&["load", file, "--to", "duckdb:test.duckdb", "--table", "back"]).ends(0);
            differ(file);
        }
        place
            .barge(&["copy", "duckdb:test.duckdb", "t", "--to", "duckdb:test.duckdb", "--table", "back"])
            .ends(0);
        differ("a copy");
        place.barge(&["copy", "duckdb:test.duckdb", "t", "--to", "sqlite:other.db"]).ends(0);
        place
            .barge(&["copy", "sqlite:other.db", "t", "--to", "duckdb:test.duckdb", "--table", "back"])
            .ends(0);
        differ("SQLite");
    }
}
