//! What can be told of a statement of a user's by its words, in any dialect.

/// What a statement may do to the tables themselves, and not to their rows alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alters {
    /// Nothing: it reads or changes rows.
    Nothing,
    /// Nothing for good, as far as is known: it calls functions of which nobody says what they do, or changes what this transaction sees.
    ByFunctions,
    /// It changes tables, or may.
    Tables,
}

impl Alters {
    /// What a statement may do, told by its first word. Triggers of the rows that it changes are taken to change rows.
    pub fn of(sql: &str) -> Self {
        let (_, behind) =
            sql.trim_end_matches([';', ' ', '\t', '\r', '\n']).split_once(';').unwrap_or_default();
        match first_word(sql).as_str() {
            // Maybe another statement behind the first.
            _ if !behind.is_empty() => Alters::Tables,
            "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "VALUES" => Alters::Nothing,
            "SELECT" | "WITH" if selects_into(sql) => Alters::Tables,
            "SELECT" | "WITH" if !sql.contains('(') => Alters::Nothing,
            "SELECT" | "WITH" => Alters::ByFunctions,
            "SHOW" | "TABLE" | "LOCK" | "SAVEPOINT" | "RELEASE" => Alters::Nothing,
            "EXPLAIN" if !runs_what_it_explains(sql) => Alters::Nothing,
            // Names may mean other tables in this transaction now, and no table has changed.
            "SET" | "RESET" | "ROLLBACK" => Alters::ByFunctions,
            _ => Alters::Tables,
        }
    }
}

/// Whether a statement leaves something behind in its session, by its words: settings, prepared statements, temporary tables and the like, which are not for
/// whoever gets the connection next. What functions do, such as `set_config`, can't be told.
pub fn changes_session(sql: &str) -> bool {
    let (first, rest) = split_word(sql);
    match first.as_str() {
        "SET" => !["LOCAL", "TRANSACTION", "CONSTRAINTS"].contains(&first_word(rest).as_str()),
        // A block of code or a procedure may do any of these.
        "DO" | "CALL" => true,
        "RESET" | "DISCARD" | "LISTEN" | "UNLISTEN" | "PREPARE" | "DEALLOCATE" | "DECLARE" | "LOAD" => true,
        "CREATE" | "SELECT" | "WITH" | "EXPLAIN" => {
            let temporary = ["TEMP", "TEMPORARY", "PG_TEMP"];
            Alters::of(sql) == Alters::Tables && temporary.iter().any(|word| has_word(sql, word))
        }
        _ => false,
    }
}

/// Whether a statement changes no row, by its words. A function that it calls may still write: who observes commits hears of that as little as of
/// triggers.
pub(crate) fn changes_no_rows(sql: &str) -> bool {
    let changes = ["INSERT", "UPDATE", "DELETE", "MERGE"];
    Alters::of(sql) != Alters::Tables
        && match first_word(sql).as_str() {
            "WITH" => !changes.iter().any(|word| has_word(sql, word)),
            first => !changes.contains(&first),
        }
}

/// Whether an EXPLAIN carries its statement out.
fn runs_what_it_explains(sql: &str) -> bool {
    has_word(sql, "ANALYZE") || has_word(sql, "ANALYSE")
}

/// Whether a statement begins or ends a transaction, which is not for statements to do.
pub(crate) fn ends_transaction(sql: &str) -> bool {
    let (word, rest) = split_word(sql);
    let (begins, ends) = (["BEGIN", "START"], ["COMMIT", "END", "ABORT"]);
    match word.as_str() {
        "ROLLBACK" => match split_word(rest) {
            (word, rest) if word == "WORK" || word == "TRANSACTION" => first_word(rest) != "TO",
            (word, _) => word != "TO",
        },
        "PREPARE" => first_word(rest) == "TRANSACTION",
        word => begins.contains(&word) || ends.contains(&word),
    }
}

fn words(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

fn has_word(sql: &str, wanted: &str) -> bool {
    words(sql).any(|word| word.eq_ignore_ascii_case(wanted))
}

/// Whether a query may put its rows into a new table: an INTO that is no INSERT's or MERGE's.
fn selects_into(sql: &str) -> bool {
    let mut before = "";
    words(sql).any(|word| {
        let writes = ["INSERT", "MERGE"].iter().any(|verb| before.eq_ignore_ascii_case(verb));
        before = word;
        word.eq_ignore_ascii_case("INTO") && !writes
    })
}

/// The first word in capitals, behind comments and opening parentheses.
fn first_word(sql: &str) -> String {
    split_word(sql).0
}

/// The same, and what follows it.
fn split_word(sql: &str) -> (String, &str) {
    let mut rest = sql;
    loop {
        rest =
            rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '(' || letter == ';');
        rest = match rest {
            line if line.starts_with("--") => line.split_once('\n').map_or("", |(_, behind)| behind),
            block if block.starts_with("/*") => behind_comment(block),
            _ => break,
        };
    }
    let end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
    (rest[..end].to_ascii_uppercase(), &rest[end..])
}

/// What follows a comment, which may hold others.
fn behind_comment(sql: &str) -> &str {
    let (mut depth, mut place) = (0, 0);
    let bytes = sql.as_bytes();
    while place + 1 < bytes.len() {
        match &bytes[place..place + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                place += 1;
                continue;
            }
        }
        place += 2;
        if depth == 0 {
            return &sql[place..];
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_may_change_is_told_by_its_first_word() {
        for (sql, alters) in [
            ("INSERT INTO t SELECT f(1)", Alters::Nothing),
            ("  -- why\n/* a /* nested */ comment */ update t SET n = 1;\n", Alters::Nothing),
            ("VALUES (1)", Alters::Nothing),
            ("SELECT b.* FROM {batch} AS b JOIN t USING (id)", Alters::ByFunctions),
            ("SELECT * FROM t", Alters::Nothing),
            ("(WITH a AS (SELECT 1) SELECT * FROM a)", Alters::ByFunctions),
            ("SELECT * INTO made FROM t", Alters::Tables),
            ("WITH a AS (SELECT 1) SELECT * INTO made FROM a", Alters::Tables),
            ("WITH a AS (DELETE FROM t) INSERT INTO u SELECT f(1)", Alters::ByFunctions),
            ("ALTER TABLE t ADD COLUMN n int", Alters::Tables),
            ("CREATE TABLE made AS SELECT * FROM {batch} AS b", Alters::Tables),
            ("DELETE FROM t; DROP TABLE t", Alters::Tables),
            ("SET LOCAL search_path TO a", Alters::ByFunctions),
            ("SAVEPOINT a", Alters::Nothing),
            ("ROLLBACK TO a", Alters::ByFunctions),
            ("EXPLAIN CREATE TABLE t AS SELECT 1", Alters::Nothing),
            ("EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1", Alters::Tables),
            ("", Alters::Tables),
        ] {
            assert_eq!(Alters::of(sql), alters, "{sql}");
        }
    }

    #[test]
    fn what_stays_in_a_session_is_told_by_words() {
        for sql in [
            "SET search_path TO a",
            "set SESSION x = 1",
            "LISTEN a",
            "CREATE TEMP TABLE t (id int)",
            "SELECT 1 INTO TEMPORARY t",
            "WITH a AS (SELECT 1) SELECT * INTO TEMP t FROM a",
            "CREATE TABLE pg_temp.t (id int)",
            "-- transaction settings\nSET search_path TO a",
            "/* LOCAL */ SET x = 1",
            "DO $$ BEGIN SET x = 1; END $$",
            "CALL p()",
            "EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1",
        ] {
            assert!(changes_session(sql), "{sql}");
        }
        for sql in [
            "SET LOCAL x = 1",
            "SET /* here */ LOCAL x = 1",
            "WITH a AS (DELETE FROM temp RETURNING *) INSERT INTO t SELECT * FROM a",
            "SET TRANSACTION READ ONLY",
            "CREATE TABLE t (id int)",
            "SELECT temp FROM t",
            "UPDATE t SET temp = 1",
        ] {
            assert!(!changes_session(sql), "{sql}");
        }
    }

    #[test]
    fn what_may_write_is_not_taken_to_read() {
        for sql in [
            "-- all\n(SELECT * FROM t)",
            "VALUES (1)",
            "WITH a AS (SELECT * FROM t) SELECT * FROM a",
            "TABLE t",
            "SET LOCAL lock_timeout = '1s'",
            "RESET ALL",
            "SHOW search_path",
            "SAVEPOINT a",
            "RELEASE SAVEPOINT a",
            "ROLLBACK TO SAVEPOINT a",
            "LOCK TABLE t IN SHARE MODE",
            "EXPLAIN DELETE FROM t",
        ] {
            assert!(changes_no_rows(sql), "{sql}");
        }
        for sql in [
            "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a",
            "WITH a AS (SELECT 1) MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE",
            "SELECT 1; DELETE FROM t",
            "SET LOCAL x = 1; DELETE FROM t",
            "UPDATE t SET n = 1",
            "EXPLAIN (ANALYZE) DELETE FROM t",
            "TRUNCATE t",
            "CALL p()",
            "PRAGMA user_version = 1",
            "",
        ] {
            assert!(!changes_no_rows(sql), "{sql}");
        }
    }

    #[test]
    fn statements_that_end_a_transaction_are_known() {
        for sql in [
            "COMMIT",
            " rollback;",
            "ROLLBACK -- to where it began",
            "rollback work",
            "/* now */ END",
            "ABORT",
            "PREPARE TRANSACTION 'a'",
            "START TRANSACTION",
        ] {
            assert!(ends_transaction(sql), "{sql}");
        }
        for sql in [
            "ROLLBACK TO SAVEPOINT a",
            "ROLLBACK TRANSACTION /* again */ TO a",
            "SAVEPOINT a",
            "PREPARE a AS SELECT 1",
            "COMMENT ON TABLE t IS 'commit'",
        ] {
            assert!(!ends_transaction(sql), "{sql}");
        }
    }
}
