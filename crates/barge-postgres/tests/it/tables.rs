//! Tables of every kind: drawn and computed columns, defaults, partitions, views, rules, triggers, policies, deferred constraints.

use arrow::datatypes::DataType::{Int64, Utf8};
use barge_core::Operation::{Delete, Insert, InsertIfAbsent, Update, Upsert};

use std::sync::Arc;

use barge_core::Table;

use crate::support::{Fresh, batch, words, write};

const COLUMNS: &[(&str, arrow::datatypes::DataType)] = &[("id", Int64), ("name", Utf8)];

/// Every operation on a table of `id` and `name`, with outcomes.
async fn every_operation(fresh: &Fresh, table: &str) {
    let write = async |operation, rows: &[&[Option<&str>]]| {
        words(&fresh.write(table, operation, &["id"], COLUMNS, rows).await)
    };
    assert_eq!(write(Insert, &[&[Some("1"), Some("a")], &[Some("2"), Some("b")]]).await, ["Inserted"; 2]);
    assert_eq!(
        write(Upsert, &[&[Some("3"), Some("c")], &[Some("2"), Some("B")]]).await,
        ["Inserted", "Updated"]
    );
    assert_eq!(
        write(InsertIfAbsent, &[&[Some("3"), Some("x")], &[Some("4"), Some("d")]]).await,
        ["Unchanged", "Inserted"]
    );
    assert_eq!(
        write(Update, &[&[Some("4"), Some("D")], &[Some("9"), Some("x")]]).await,
        ["Updated", "NotFound"]
    );
    assert_eq!(write(Delete, &[&[Some("1"), None], &[Some("8"), None]]).await, ["Deleted", "NotFound"]);
    assert_eq!(
        write(Insert, &[&[Some("2"), Some("again")], &[Some("5"), Some("e")]]).await,
        ["UniqueViolation", "Inserted"]
    );
    let rows = fresh.rows(&format!("SELECT id, name FROM {table} ORDER BY id")).await;
    assert_eq!(rows, ["2|B", "3|c", "4|D", "5|e"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitioned_tables_take_every_operation() {
    let fresh = Fresh::with(&[
        "CREATE TABLE parts(id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (3)",
        "CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (3) TO (100)",
    ])
    .await;
    every_operation(&fresh, "parts").await;
    // A row that no partition takes is rejected alone.
    let rows: [&[Option<&str>]; 2] = [&[Some("1000"), Some("x")], &[Some("6"), Some("f")]];
    let answers = fresh.write("parts", Insert, &[], COLUMNS, &rows).await;
    assert_eq!(words(&answers), ["CheckViolation", "Inserted"]);
    assert_eq!(fresh.db.tables().await.unwrap(), ["parts".into()], "partitions are not tables of their own");
    // A partition that is written directly has the foreign keys of the whole, once each.
    for sql in [
        "CREATE TABLE children(id bigint PRIMARY KEY, part bigint REFERENCES parts) PARTITION BY RANGE (id)",
        "CREATE TABLE children_low PARTITION OF children FOR VALUES FROM (0) TO (100)",
    ] {
        fresh.run(sql).await;
    }
    for (table, parents, children) in
        [("children", 1, 0), ("children_low", 1, 0), ("parts", 0, 1), ("parts_low", 0, 1)]
    {
        let described = fresh.db.describe(&table.into()).await.unwrap();
        assert_eq!(
            (described.foreign_keys.len(), described.referenced_by.len()),
            (parents, children),
            "{table}"
        );
        assert!(described.foreign_keys.iter().all(|key| key.parent == "parts".into()), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_defaults_and_computed_columns() {
    let fresh = Fresh::with(&["CREATE TABLE things(
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, serial bigserial, name text NOT NULL DEFAULT 'nameless',
        made timestamptz NOT NULL DEFAULT now(), shout text GENERATED ALWAYS AS (upper(name)) STORED)"])
    .await;
    let answers = fresh.write("things", Insert, &[], &[("name", Utf8)], &[&[Some("a")], &[Some("b")]]).await;
    assert_eq!(words(&answers), ["Inserted"; 2]);
    // A file that holds the identity's own values keeps them.
    let answers = fresh.write("things", Insert, &[], COLUMNS, &[&[Some("100"), Some("c")]]).await;
    assert_eq!(words(&answers), ["Inserted"]);
    let answers = fresh.write("things", Insert, &[], &[("id", Int64)], &[&[Some("101")]]).await;
    assert_eq!(words(&answers), ["Inserted"]);
    let rows = fresh.rows("SELECT id, serial, name, shout, made IS NOT NULL FROM things ORDER BY id").await;
    assert_eq!(rows, ["1|1|a|A|true", "2|2|b|B|true", "100|3|c|C|true", "101|4|nameless|NAMELESS|true"]);
    let answers = fresh.write("things", Insert, &[], &[("shout", Utf8)], &[&[Some("X")]]).await;
    assert_eq!(words(&answers), ["Unsupported"], "a computed column can't be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_go_by_copy_and_keep_identities_and_defaults() {
    let fresh = Fresh::with(&[
        "CREATE TABLE things(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, n int DEFAULT 7)",
    ])
    .await;
    let names: Vec<String> = (0..1_000).map(|n| format!("name {n}")).collect();
    let rows: Vec<[Option<&str>; 1]> = names.iter().map(|name| [Some(name.as_str())]).collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let answers = fresh.write("things", Insert, &[], &[("name", Utf8)], &rows).await;
    assert!(words(&answers).iter().all(|word| word == "Inserted"));
    let rows =
        fresh.rows("SELECT count(*), min(id), max(id), sum(n), count(DISTINCT name) FROM things").await;
    assert_eq!(rows, ["1000|1|1000|7000|1000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn views_take_what_the_database_allows() {
    let fresh = Fresh::with(&[
        "CREATE TABLE base(id bigint PRIMARY KEY, name text)",
        "CREATE VIEW simple AS SELECT id, name FROM base WHERE id > 0 WITH CHECK OPTION",
        "CREATE VIEW joined AS SELECT a.id, a.name FROM base a JOIN base b USING (id)",
        "CREATE FUNCTION into_base() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF TG_OP = 'DELETE' THEN DELETE FROM base WHERE id = OLD.id; RETURN OLD; END IF;
            IF NEW.name = 'no' THEN RETURN NULL; END IF;
            IF TG_OP = 'INSERT' THEN INSERT INTO base VALUES (NEW.id, NEW.name);
            ELSE UPDATE base SET name = NEW.name WHERE id = NEW.id; END IF;
            RETURN NEW; END $$",
        "CREATE TRIGGER into_base INSTEAD OF INSERT OR UPDATE OR DELETE ON joined FOR EACH ROW EXECUTE FUNCTION into_base()",
    ])
    .await;
    for view in ["simple", "joined"] {
        let write = async |operation, rows: &[&[Option<&str>]]| {
            words(&fresh.write(view, operation, &["id"], COLUMNS, rows).await)
        };
        assert_eq!(
            write(Insert, &[&[Some("1"), Some("a")], &[Some("2"), Some("b")]]).await,
            ["Inserted"; 2],
            "{view}"
        );
        assert_eq!(
            write(Update, &[&[Some("2"), Some("B")], &[Some("9"), None]]).await,
            ["Updated", "NotFound"],
            "{view}"
        );
        assert_eq!(
            write(Insert, &[&[Some("1"), Some("x")], &[Some("3"), Some("c")]]).await,
            ["UniqueViolation", "Inserted"],
            "{view}"
        );
        assert_eq!(
            write(Delete, &[&[Some("1"), None], &[Some("9"), None]]).await,
            ["Deleted", "NotFound"],
            "{view}"
        );
        assert_eq!(fresh.rows("SELECT id, name FROM base ORDER BY id").await, ["2|B", "3|c"], "{view}");
        // Only a unique key of the table itself can tell what an upsert is to do.
        assert_eq!(write(Upsert, &[&[Some("1"), Some("a")]]).await, ["InvalidConfig"], "{view}");
        fresh.run("DELETE FROM base").await;
    }
    let rows: [&[Option<&str>]; 2] = [&[Some("-1"), Some("x")], &[Some("1"), Some("a")]];
    assert_eq!(
        words(&fresh.write("simple", Insert, &[], COLUMNS, &rows).await),
        ["CheckViolation", "Inserted"]
    );
    let rows: [&[Option<&str>]; 3] =
        [&[Some("5"), Some("no")], &[Some("6"), Some("f")], &[Some("7"), Some("no")]];
    let answers = fresh.write("joined", Insert, &[], COLUMNS, &rows).await;
    assert_eq!(words(&answers), ["Unchanged", "Inserted", "Unchanged"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_followed() {
    let fresh = Fresh::with(&[
        "CREATE TABLE kept(id bigint PRIMARY KEY, name text)",
        "CREATE TABLE seen(id bigint)",
        "CREATE RULE also AS ON INSERT TO kept DO ALSO INSERT INTO seen VALUES (NEW.id)",
    ])
    .await;
    let ids: Vec<String> = (0..500).map(|id| id.to_string()).collect();
    let rows: Vec<[Option<&str>; 2]> = ids.iter().map(|id| [Some(id.as_str()), None]).collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let answers = fresh.write("kept", Insert, &[], COLUMNS, &rows).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(
        fresh.rows("SELECT (SELECT count(*) FROM kept), (SELECT count(*) FROM seen)").await,
        ["500|500"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_refuse_their_row_alone() {
    let fresh = Fresh::with(&[
        "CREATE TABLE guarded(id bigint PRIMARY KEY, name text)",
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.name = 'bad' THEN RAISE EXCEPTION 'no % here', NEW.name; END IF;
            IF NEW.name = 'out' THEN RETURN NULL; END IF;
            RETURN NEW; END $$",
        "CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION guard()",
    ])
    .await;
    let rows: [&[Option<&str>]; 5] = [
        &[Some("1"), Some("a")],
        &[Some("2"), Some("bad")],
        &[Some("3"), Some("out")],
        &[Some("1"), Some("again")],
        &[Some("4"), Some("d")],
    ];
    let answers = fresh.write("guarded", Insert, &[], COLUMNS, &rows).await;
    assert_eq!(words(&answers), ["Inserted", "CheckViolation", "Unchanged", "UniqueViolation", "Inserted"]);
    let refused = answers[1].as_ref().unwrap_err();
    assert!(refused.message().contains("no bad here") && refused.table() == Some("guarded"), "{refused:?}");
    let rows: [&[Option<&str>]; 4] = [
        &[Some("1"), Some("out")],
        &[Some("4"), Some("bad")],
        &[Some("9"), Some("x")],
        &[Some("1"), Some("A")],
    ];
    let answers = fresh.write("guarded", Update, &["id"], COLUMNS, &rows).await;
    assert_eq!(words(&answers), ["Unchanged", "CheckViolation", "NotFound", "Updated"]);
    assert_eq!(fresh.rows("SELECT id, name FROM guarded ORDER BY id").await, ["1|A", "4|d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_that_wait_for_commit_reject_their_row_alone() {
    let fresh = Fresh::with(&[
        "CREATE TABLE parents(id bigint PRIMARY KEY, name text)",
        "CREATE TABLE children(id bigint PRIMARY KEY, parent bigint REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE places(id bigint PRIMARY KEY, place bigint UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO parents VALUES (1, 'p')",
    ])
    .await;
    let columns = [("id", Int64), ("parent", Int64)];
    let rows: [&[Option<&str>]; 4] =
        [&[Some("1"), Some("1")], &[Some("2"), Some("7")], &[Some("3"), None], &[Some("4"), Some("1")]];
    let answers = fresh.write("children", Insert, &[], &columns, &rows).await;
    assert_eq!(words(&answers), ["Inserted", "ForeignKeyViolation", "Inserted", "Inserted"]);
    assert_eq!(fresh.rows("SELECT id FROM children ORDER BY id").await, ["1", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_triggers_that_wait_for_commit_reject_their_row_alone() {
    let fresh = Fresh::with(&[
        "CREATE TABLE places(id bigint, name text, PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF new.name = 'bad' THEN RAISE EXCEPTION 'late'; END IF; RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON places DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION late()",
    ])
    .await;
    let ids: Vec<String> = (0..300).map(|id| (id % 290).to_string()).collect();
    let rows: Vec<[Option<&str>; 2]> = (0..300)
        .map(|row| [Some(ids[row].as_str()), Some(if row % 100 == 7 { "bad" } else { "good" })])
        .collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let answers = words(&fresh.write("places", Insert, &[], COLUMNS, &rows).await);
    let expected = |row: usize| match row {
        7 | 107 | 207 => "CheckViolation",
        // Those that were there before were rejected: 7's place is free.
        297 => "Inserted",
        290.. => "UniqueViolation",
        _ => "Inserted",
    };
    let expected: Vec<String> = (0..300).map(|row| expected(row).to_owned()).collect();
    assert_eq!(answers, expected);
}

/// Neither a trigger nor a foreign key makes a flush cost a statement a row.
#[tokio::test(flavor = "multi_thread")]
async fn tables_with_triggers_take_a_few_statements_a_flush() {
    let fresh = Fresh::with(&[
        "CREATE TABLE parents(id bigint PRIMARY KEY)",
        "INSERT INTO parents VALUES (1)",
        "CREATE TABLE guarded(id bigint PRIMARY KEY, parent bigint NOT NULL REFERENCES parents)",
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.id % 500 = 77 THEN RETURN NULL; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION guard()",
        "CREATE TRIGGER touched BEFORE UPDATE ON guarded FOR EACH ROW EXECUTE FUNCTION guard()",
    ])
    .await;
    let columns = [("id", Int64), ("parent", Int64)];
    let ids: Vec<String> = (0..4_000).map(|id| id.to_string()).collect();
    let rows: Vec<[Option<&str>; 2]> = ids.iter().map(|id| [Some(id.as_str()), Some("1")]).collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let batch = batch(&columns, &rows);
    let table = Arc::new(Table::of_schema("guarded", &batch.schema(), &[]).unwrap());
    let writer = fresh.db.writer().start();
    let receipt = writer.add_batch(&table, Insert, &batch).await.unwrap();
    let answers = words(&receipt.outcomes().await);
    assert_eq!(answers.iter().filter(|answer| *answer == "Unchanged").count(), 8);
    assert_eq!(answers.iter().filter(|answer| *answer == "Inserted").count(), 3_992);
    let statements = writer.close().await.unwrap().statistics.statements;
    assert!(statements < 400, "{statements} statements for 4,000 rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn exclusion_constraints_refuse_one_row() {
    let fresh = Fresh::with(&[
        "CREATE TABLE bookings(id bigint PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&))",
    ])
    .await;
    let columns = [("id", Int64), ("during", Utf8)];
    let rows: [&[Option<&str>]; 3] =
        [&[Some("1"), Some("[1,5)")], &[Some("2"), Some("[4,6)")], &[Some("3"), Some("[5,7)")]];
    let answers = fresh.write("bookings", Insert, &[], &columns, &rows).await;
    assert_eq!(words(&answers), ["Inserted", "UniqueViolation", "Inserted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_other_schemas_and_of_no_columns_in_common() {
    let fresh =
        Fresh::with(&["CREATE SCHEMA app", "CREATE TABLE app.tasks(id bigint PRIMARY KEY, name text)"]).await;
    let name = barge_core::TableName::in_schema("app", "tasks");
    assert_eq!(fresh.db.tables().await.unwrap(), std::slice::from_ref(&name));
    let described = fresh.db.describe(&name).await.unwrap();
    assert_eq!((described.name.clone(), &described.key[..]), (name, &["id".to_owned()][..]));
    let missing = fresh.db.describe(&"tasks".into()).await.unwrap_err();
    assert_eq!(missing.kind(), barge_core::ErrorKind::MissingTable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_under_a_writer_is_described_anew() {
    let fresh = Fresh::with(&["CREATE TABLE t(id bigint PRIMARY KEY, name text)"]).await;
    let rows: [&[Option<&str>]; 1] = [&[Some("1"), Some("a")]];
    assert_eq!(words(&fresh.write("t", Insert, &["id"], COLUMNS, &rows).await), ["Inserted"]);
    fresh.run("ALTER TABLE t ALTER COLUMN name TYPE varchar(3), ALTER COLUMN id TYPE integer").await;
    let rows: [&[Option<&str>]; 2] = [&[Some("2"), Some("long name")], &[Some("3"), Some("c")]];
    let answers = fresh.write("t", Insert, &["id"], COLUMNS, &rows).await;
    assert_eq!(words(&answers), ["InvalidValue", "Inserted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_compare_as_their_collation_says() {
    let fresh = Fresh::with(&[
        "CREATE COLLATION ignoring_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE words(id text COLLATE ignoring_case PRIMARY KEY, name text, CHECK (id IN ('a', 'b', 'c')))",
    ])
    .await;
    let columns = [("id", Utf8), ("name", Utf8)];
    let rows: [&[Option<&str>]; 3] =
        [&[Some("a"), Some("1")], &[Some("A"), Some("2")], &[Some("b"), Some("3")]];
    let answers = fresh.write("words", Upsert, &["id"], &columns, &rows).await;
    assert_eq!(words(&answers), ["Inserted", "Updated", "Inserted"]);
    let rows: [&[Option<&str>]; 2] = [&[Some("B"), Some("20")], &[Some("b"), Some("10")]];
    assert_eq!(words(&fresh.write("words", Update, &["id"], &columns, &rows).await), ["Updated"; 2]);
    assert_eq!(fresh.rows("SELECT id, name FROM words ORDER BY id").await, ["a|2", "b|10"]);
    // A CHECK compares so, too.
    let mut many: Vec<[Option<&str>; 2]> = vec![[Some("x"), None]; 80];
    many.push([Some("C"), None]);
    let many: Vec<&[Option<&str>]> = many.iter().map(|row| &row[..]).collect();
    let answers = words(&fresh.write("words", Insert, &[], &columns, &many).await);
    assert!(
        answers[..80].iter().all(|word| word == "CheckViolation") && answers[80] == "Inserted",
        "{answers:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_of_partitions_and_triggers_that_change_keys_are_noticed() {
    let fresh = Fresh::with(&[
        "CREATE TABLE parts(id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (1000)",
        "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.name = 'out' THEN RETURN NULL; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER keep_out BEFORE INSERT ON low FOR EACH ROW EXECUTE FUNCTION keep_out()",
        "CREATE TABLE mails(id text PRIMARY KEY, name text)",
        "CREATE FUNCTION lower_key() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := lower(NEW.id); RETURN NEW; END $$",
        "CREATE TRIGGER lower_key BEFORE INSERT ON mails FOR EACH ROW EXECUTE FUNCTION lower_key()",
    ])
    .await;
    let ids: Vec<String> = (0..300).map(|id| id.to_string()).collect();
    let rows: Vec<[Option<&str>; 2]> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| [Some(id.as_str()), Some(if n == 7 { "out" } else { "in" })])
        .collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    for operation in [Insert, Upsert] {
        let answers = words(&fresh.write("parts", operation, &["id"], COLUMNS, &rows).await);
        let expected = if operation == Insert { "Inserted" } else { "Updated" };
        assert!(answers[7] == "Unchanged" && answers[8] == expected, "{operation}: {:?}", &answers[..9]);
    }
    let rows: [&[Option<&str>]; 2] = [&[Some("A@x"), Some("1")], &[Some("B@x"), Some("2")]];
    let columns = [("id", Utf8), ("name", Utf8)];
    assert_eq!(words(&fresh.write("mails", Upsert, &["id"], &columns, &rows).await), ["Inserted"; 2]);
    assert_eq!(words(&fresh.write("mails", Upsert, &["id"], &columns, &rows).await), ["Updated"; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_raises_and_a_policy_refuses_is_one_rows() {
    let fresh = Fresh::with(&[
        "CREATE TABLE guarded(id bigint PRIMARY KEY, name text)",
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.name = 'bad' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'MY001'; END IF;
            IF NEW.name = 'none' THEN SELECT 1 / 0 INTO STRICT NEW.id; END IF;
            RETURN NEW; END $$",
        "CREATE TRIGGER guard BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION guard()",
    ])
    .await;
    for count in [5, 100] {
        fresh.run("DELETE FROM guarded").await;
        let ids: Vec<String> = (0..count).map(|id| id.to_string()).collect();
        let name = |n: usize| {
            if n == 2 {
                "bad"
            } else if n == 3 {
                "none"
            } else {
                "fine"
            }
        };
        let rows: Vec<[Option<&str>; 2]> =
            ids.iter().enumerate().map(|(n, id)| [Some(id.as_str()), Some(name(n))]).collect();
        let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
        let answers = words(&fresh.write("guarded", Insert, &[], COLUMNS, &rows).await);
        assert_eq!(answers[..5], ["Inserted", "Inserted", "CheckViolation", "InvalidValue", "Inserted"]);
        assert!(answers[5..].iter().all(|word| word == "Inserted"));
    }
}

/// A user who may insert and no more: bad rows are found all the same.
#[tokio::test(flavor = "multi_thread")]
async fn few_privileges_are_enough() {
    let fresh = Fresh::with(&[
        "CREATE TABLE parents(id bigint PRIMARY KEY, name text)",
        "CREATE TABLE children(id bigint PRIMARY KEY, parent bigint REFERENCES parents, CHECK (id >= 0))",
        "CREATE TABLE private(id bigint PRIMARY KEY, name text)",
        "INSERT INTO parents VALUES (1, 'p'), (5, 'hidden')",
        "ALTER TABLE parents ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY most ON parents FOR SELECT USING (id <> 5)",
        "ALTER TABLE private ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY positive ON private FOR INSERT WITH CHECK (id > 0)",
        "CREATE TABLE barge_flushes(writer uuid, lane bigint, sequence bigint, PRIMARY KEY (writer, lane))",
    ])
    .await;
    let role = format!("inserter_{}", std::process::id());
    for sql in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT INSERT ON children, private TO {role}"),
        format!("GRANT SELECT ON parents TO {role}"),
        format!("GRANT SELECT, INSERT, UPDATE ON barge_flushes TO {role}"),
    ] {
        fresh.run(&sql).await;
    }
    let restricted = fresh.as_role(&role).await;
    let columns = [("id", Int64), ("parent", Int64)];
    let ids: Vec<String> =
        (0..100).map(|id| if id == 50 { "-1".to_owned() } else { id.to_string() }).collect();
    let parent = |n: usize| ["1", "5", "77"][usize::from(n == 10) + 2 * usize::from(n == 20)];
    let rows: Vec<[Option<&str>; 2]> =
        ids.iter().enumerate().map(|(n, id)| [Some(id.as_str()), Some(parent(n))]).collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let answers = words(&write(&restricted, "children", Insert, &[], &columns, &rows).await);
    assert_eq!(
        [&answers[9], &answers[10], &answers[20], &answers[50]],
        ["Inserted", "Inserted", "ForeignKeyViolation", "CheckViolation"]
    );
    assert_eq!(answers.iter().filter(|word| *word == "Inserted").count(), 98);
    let rows: [&[Option<&str>]; 3] = [&[Some("1"), None], &[Some("-2"), None], &[Some("3"), None]];
    let answers = write(&restricted, "private", Insert, &[], COLUMNS, &rows).await;
    assert_eq!(words(&answers), ["Inserted", "CheckViolation", "Inserted"], "{answers:?}");
    drop(restricted);
    fresh.run(&format!("DROP OWNED BY {role}")).await;
    fresh.run(&format!("DROP ROLE {role}")).await;
}

/// A transaction that failed unseen is not reported as committed: COMMIT itself would say nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_nobody_saw_is_not_a_commit() {
    let fresh = Fresh::with(&[
        "CREATE TABLE t(id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))",
        "CREATE FUNCTION no_drops() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no drops'; END $$",
        "CREATE EVENT TRIGGER no_drops ON sql_drop EXECUTE FUNCTION no_drops()",
    ])
    .await;
    let ids: Vec<String> = (0..200).map(|id| id.to_string()).collect();
    let rows: Vec<[Option<&str>; 2]> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| [Some(id.as_str()), Some(if n == 100 { "bad" } else { "fine" })])
        .collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let answers = fresh.write("t", Insert, &[], COLUMNS, &rows).await;
    let inserted = words(&answers).iter().filter(|word| *word == "Inserted").count();
    assert_eq!(fresh.rows("SELECT count(*) FROM t").await, [inserted.to_string()]);
    assert_eq!(inserted, 199, "{:?}", answers[0]);
}
