//! Every mode but replace, several connections, dead letters, the data sets.

use barge_testkit::servers::{self, PoolMode};
use serde_json::json;

use super::Server;

const KEYED: &str = "CREATE TABLE t(id bigint PRIMARY KEY, name text, n integer);
                     INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20);";

fn lines(ids: impl Iterator<Item = u32>) -> String {
    ids.map(|id| format!("{id},name {id},{}\n", id % 7)).collect()
}

#[test]
fn append_creates_the_table_with_its_key() {
    let server = Server::new();
    server.place.write(
        "a.csv",
        "id,price,day,code,at,ok\n1,1.5,2024-01-02,007,2024-01-02 03:04:05Z,true\n2,,2024-01-03,x,,\n",
    );
    let run = server.load("a.csv", &["--key", "id", "--json"]).ends(0);
    assert_eq!((run.counts(), &run.json()["created"]), ([2, 2, 0], &json!(true)));
    assert_eq!(
        server.rows("SET TimeZone = 'UTC'; SELECT * FROM t ORDER BY id"),
        ["1|1.5|2024-01-02|007|2024-01-02 03:04:05+00|t", "2|∅|2024-01-03|x|∅|∅"]
    );
    let described = server.barge(&["describe", &server.url(), "t", "--json"]).ends(0).json();
    assert_eq!(described["key"], json!(["id"]));
    let types: Vec<_> =
        described["columns"].as_array().unwrap().iter().map(|column| &column["type"]).collect();
    assert_eq!(types, ["bigint", "double precision", "date", "text", "timestamp with time zone", "boolean"]);

    // A second time, every row is there.
    let run = server.load("a.csv", &["--json"]).ends(3);
    assert_eq!(run.counts(), [2, 0, 2]);
    assert_eq!(run.json()["rejected"][0]["kind"], "UniqueViolation");
    let run = server.load("a.csv", &["--mode", "create"]).ends(1);
    assert!(run.message().contains("the table exists already"), "{run:?}");
}

#[test]
fn upsert_and_update_say_what_became_of_each_row() {
    let server = Server::with(KEYED);
    server.place.write("a.csv", "id,name\n2,zwei\n3,drei\n3,tres\n");
    let summary = server.load("a.csv", &["--mode", "upsert", "--json"]).ends(0).json();
    assert_eq!((&summary["rows_inserted"], &summary["rows_updated"]), (&json!(1), &json!(2)));
    server.place.write("b.csv", "id,n\n2,21\n9,99\n");
    let summary = server.load("b.csv", &["--mode", "update", "--json"]).ends(0).json();
    assert_eq!((&summary["rows_updated"], &summary["rows_not_found"]), (&json!(1), &json!(1)));
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id"), ["1|one|10", "2|zwei|21", "3|tres|∅"]);
    let run =
        server.barge(&["load", "b.csv", "--to", &server.url(), "--table", "u", "--mode", "update"]).ends(1);
    assert!(run.message().starts_with("table u: there is no such table"), "{run:?}");
    let run =
        server.barge(&["load", "b.csv", "--to", &server.url(), "--table", "u", "--mode", "upsert"]).ends(2);
    assert!(run.message().contains("name its columns with --key"), "{run:?}");
}

#[test]
fn a_dot_parts_schema_and_table_unless_it_is_in_the_name() {
    let server = Server::with("CREATE SCHEMA app");
    server.place.write("a.csv", "id\n1\n");
    let load = |table: &str| {
        server.barge(&["load", "a.csv", "--to", &server.url(), "--table", table, "--key", "id"])
    };
    assert!(load("app.tasks").ends(0).out.contains("table app.tasks of "));
    assert_eq!(server.count("app.tasks"), 1);
    let run = load("nowhere.tasks").ends(1);
    assert!(run.message().contains("schema \"nowhere\" does not exist"), "{run:?}");
    server.run("CREATE TABLE \"app.tasks\"(id bigint PRIMARY KEY)");
    load("app.tasks").ends(0);
    assert_eq!((server.count("app.tasks"), server.count("\"app.tasks\"")), (1, 1));
    // Letters find their way back into the schema.
    let arguments = [
        "load",
        "a.csv",
        "--to",
        &server.url(),
        "--schema",
        "app",
        "--table",
        "tasks",
        "--dead-letter",
        "dead.jsonl",
    ];
    server.barge(&arguments).ends(3);
    server.run("DELETE FROM app.tasks");
    server.barge(&["load", "dead.jsonl", "--to", &server.url()]).ends(0);
    assert_eq!(server.count("app.tasks"), 1);
}

#[test]
fn several_connections_account_for_every_row() {
    let server = Server::with(
        "CREATE TABLE t(id bigint PRIMARY KEY, name text, n integer CHECK (n < 6)); INSERT INTO t VALUES (77, '', 0)",
    );
    // n is 6 in every seventh row; some lines are no rows, and one key is there.
    let bad = "bad,x,1\n1\n";
    let content =
        format!("id,name,n\n{}{bad}{}{bad}{}", lines(0..7_000), lines(7_000..14_000), lines(14_000..21_000));
    server.place.write("a.csv", content);
    for connections in ["1", "2", "3", "8"] {
        server.run("DELETE FROM t WHERE id <> 77");
        let _ = std::fs::remove_file(server.place.path("dead.jsonl"));
        let more =
            ["--json", "--connections", connections, "--batch-rows", "500", "--dead-letter", "dead.jsonl"];
        let run = server.load("a.csv", &more).ends(3);
        assert_eq!(run.counts(), [21_004, 17_999, 3_005], "{connections}");
        assert_eq!(server.count("t"), 18_000);
        // The account is in the file's order.
        let told: Vec<u64> = run.json()["rejected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["line"].as_u64().unwrap())
            .collect();
        assert_eq!(told, [8, 15, 22, 29, 36, 43, 50, 57, 64, 71]);
        let lines_kept: Vec<u64> = server
            .place
            .read("dead.jsonl")
            .lines()
            .map(|letter| {
                serde_json::from_str::<serde_json::Value>(letter).unwrap()["line"].as_u64().unwrap()
            })
            .collect();
        assert_eq!(lines_kept.len(), 3_005);
        let mut distinct = lines_kept.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 3_005);
    }
}

#[test]
fn several_connections_are_used_and_no_more_than_the_url_allows() {
    let server = Server::with(
        "CREATE TABLE t(id bigint PRIMARY KEY, name text, n integer, by integer DEFAULT pg_backend_pid())",
    );
    server.place.write("a.csv", format!("id,name,n\n{}", lines(0..40_000)));
    let url = server.url();
    for (url, more, most) in [
        (url.clone(), &["--connections", "3"][..], 3),
        (url.clone(), &["--connections", "1"], 1),
        (format!("{url}?pool_size=1"), &[], 1),
        (format!("{url}?pool_size=1"), &["--connections", "2"], 2),
    ] {
        server.run("TRUNCATE t");
        let more = [&["--json", "--batch-rows", "500"], more].concat();
        let run = server.barge(&server.arguments(&url, "a.csv", &more)).ends(0);
        assert_eq!(run.counts(), [40_000, 40_000, 0]);
        let used: u64 = server.rows("SELECT count(DISTINCT by) FROM t")[0].parse().unwrap();
        // A flush may be done before a second one is ready; with so many of them not always.
        assert!((most.min(2)..=most).contains(&used), "{used} of {most}");
    }
}

#[test]
fn rows_that_refer_to_rows_before_them_go_in_order() {
    let server = Server::with("CREATE TABLE t(id bigint PRIMARY KEY, parent bigint REFERENCES t)");
    let content: String = (1..5_000).map(|id| format!("{id},{}\n", id - 1)).collect();
    server.place.write("a.csv", format!("id,parent\n0,\n{content}"));
    let run = server.load("a.csv", &["--json", "--connections", "4", "--batch-rows", "300"]).ends(0);
    assert_eq!(run.counts(), [5_000, 5_000, 0]);
}

#[test]
fn too_many_rejects_stop_the_load_with_its_account() {
    let server = Server::with(KEYED);
    let content: String =
        (3..9_003).map(|id| format!("{id},{}\n", if id % 100 == 99 { "bad" } else { "1" })).collect();
    server.place.write("a.csv", format!("id,n\n{content}"));
    let more = [
        "--batch-rows",
        "100",
        "--json",
        "--max-rejects",
        "3",
        "--connections",
        "3",
        "--dead-letter",
        "dead.jsonl",
    ];
    let run = server.load("a.csv", &more).ends(1);
    assert!(run.message().contains("--max-rejects allows 3"), "{run:?}");
    let [read, written, rejected] = run.counts();
    assert_eq!(read, written + rejected);
    assert!((4..=20).contains(&rejected), "{run:?}");
    assert_eq!(server.count("t"), written + 2);
    assert_eq!(server.place.read("dead.jsonl").lines().count() as u64, rejected);
}

#[test]
fn dead_letters_come_back_once_the_cause_is_mended() {
    let server = Server::with(
        "CREATE TYPE mood AS ENUM ('sad');
         CREATE TABLE parent(id integer PRIMARY KEY);
         CREATE TABLE t(id integer PRIMARY KEY, parent integer NOT NULL REFERENCES parent, name varchar(9), x double precision,
             b bytea, m mood, tags text[], extra jsonb, at timestamptz, price numeric(10,2))",
    );
    server.place.write(
        "a.csv",
        "id,parent,name,x,b,m,tags,extra,at,price\n\
         1,7,\"a \"\"b\"\"\",0.1,\\x00ff,sad,\"[\"\"a\"\",\"\"b,c\"\"]\",\"{\"\"a\"\": [1]}\",2024-01-02T03:04:05.123456Z,12.50\n\
         2,7,,,,,,,,\n3,8,é,1e300,,,,,,\n4,7,x,1,,glad,,,,\n",
    );
    let run = server.load("a.csv", &["--dead-letter", "dead.jsonl", "--json"]).ends(3);
    assert_eq!(run.counts(), [4, 0, 4]);
    let kinds: Vec<String> = server
        .place
        .read("dead.jsonl")
        .lines()
        .map(|letter| {
            serde_json::from_str::<serde_json::Value>(letter).unwrap()["error"]["kind"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "ForeignKeyViolation").count(), 3, "{kinds:?}");
    server.run("INSERT INTO parent VALUES (7), (8)");
    server.run("ALTER TYPE mood ADD VALUE 'glad'");
    let run = server.barge(&["load", "dead.jsonl", "--to", &server.url(), "--json"]).ends(0);
    assert_eq!(run.counts(), [4, 4, 0]);
    assert_eq!(
        server.rows("SET TimeZone = 'UTC'; SELECT * FROM t ORDER BY id"),
        [
            "1|7|a \"b\"|0.1|\\x00ff|sad|{a,\"b,c\"}|{\"a\": [1]}|2024-01-02 03:04:05.123456+00|12.50",
            "2|7|∅|∅|∅|∅|∅|∅|∅|∅",
            "3|8|é|1e+300|∅|∅|∅|∅|∅|∅",
            "4|7|x|1|∅|glad|∅|∅|∅|∅",
        ]
    );
}

#[test]
fn the_data_sets_load_and_their_types_fit() {
    let server = Server::new();
    let data = |name: &str| format!("{}/../../data/{name}", env!("CARGO_MANIFEST_DIR"));
    let types = |table: &str| -> Vec<String> {
        let described = server.barge(&["describe", &server.url(), table, "--json"]).ends(0).json();
        let columns = described["columns"].as_array().unwrap().iter();
        columns
            .map(|column| {
                format!("{} {}", column["name"].as_str().unwrap(), column["type"].as_str().unwrap())
            })
            .collect()
    };
    let file = data("sp500-2000.csv");
    let url = server.url();
    let prices = ["load", &file, "--to", &url, "--table", "prices", "--key", "date", "--json"];
    assert_eq!(server.barge(&prices).ends(0).counts(), [5_105, 5_105, 0]);
    assert_eq!(
        types("prices"),
        [
            "date date",
            "open double precision",
            "high double precision",
            "low double precision",
            "close double precision",
            "adjclose double precision",
            "volume bigint"
        ]
    );
    assert_eq!(server.barge(&prices).ends(3).counts(), [5_105, 0, 5_105]);
    let again = server.barge(&[&prices[..], &["--mode", "upsert"]].concat()).ends(0);
    assert_eq!(again.json()["rows_updated"], 5_105);

    let run = server.load(&data("flights-200k.arrow"), &["--json"]).ends(0);
    assert_eq!(run.counts(), [200_000, 200_000, 0]);
    let found = server.rows("SELECT count(*), min(delay), max(delay), min(distance), max(distance) FROM t");
    assert_eq!(found, ["200000|-86|1444|30|4962"]);
    assert_eq!(types("t"), ["delay smallint", "distance smallint", "time real"]);
}

#[test]
fn any_name_works_for_tables_and_columns() {
    let server = Server::with("CREATE TABLE students(id integer); INSERT INTO students VALUES (1)");
    server
        .place
        .write("a.csv", "select,\"a \"\"quoted\"\" b\",it's,naïve ñ 列,Name,name,$1\n1,2,3,4,5,6,7\n");
    for table in ["order", "a \"b\" c", "Robert'); DROP TABLE students;--", "très léger", "--help", "T"] {
        let option = format!("--table={table}");
        let url = server.url();
        let arguments = ["load", "a.csv", "--to", &url, &option, "--key", "\"a \"\"quoted\"\" b\",it's"];
        for mode in ["append", "upsert", "update", "replace"] {
            server.barge(&[&arguments[..], &["--mode", mode]].concat()).ends(0);
        }
        let quoted = format!("\"{}\"", table.replace('"', "\"\""));
        assert_eq!(server.rows(&format!("SELECT * FROM {quoted}")), ["1|2|3|4|5|6|7"], "{table}");
    }
    assert_eq!(server.count("students"), 1);
}

#[test]
fn a_pooler_in_between_makes_no_difference() {
    let server = Server::new();
    let pooler = servers::pgbouncer(&servers::postgres(), PoolMode::Transaction);
    let url = pooler.url(server.database.name());
    let content: String = (0..6_000).map(|id| format!("{id},name {id}\n")).collect();
    server.place.write("a.csv", format!("id,name\n{content}5,again\n"));
    // More connections than the pooler has to give.
    for more in [&["--connections", "5"][..], &["--mode", "replace"]] {
        let more = [&["--key", "id", "--json", "--batch-rows", "400"], more].concat();
        assert_eq!(server.barge(&server.arguments(&url, "a.csv", &more)).ends(3).counts(), [6_001, 6_000, 1]);
        assert_eq!(server.count("t"), 6_000);
    }
    let run = server.barge(&server.arguments(&url, "a.csv", &["--mode", "upsert", "--json"])).ends(0);
    assert_eq!(run.json()["rows_updated"], 6_001);
    assert!(
        server.barge(&["describe", &url, "t"]).ends(0).out.contains("id      bigint  no             key")
    );
}
