//! The SQL of each operation over a batch. `batch` is the name of the batch's table; its columns are called `c0`, `c1`, … in the
//! target's order.
//!
//! The target's column stands on the left of every comparison, so that its collation and affinity decide.

use barge_core::record::quote;
use barge_core::store::{Operation, Target};

/// The statement that writes a step. `rowid` is the name by which the table's row ids can be reached, where it has them.
///
/// There is none for updates: SQLite gathers the rows of `UPDATE … FROM` in a table of its own first, and one prepared `UPDATE` run for
/// each row takes half the time.
///
/// `OR ABORT` overrules conflict clauses of the table's own, which might drop rows or end the transaction. It would overrule
/// those in its triggers as well: see [`Plan`](crate::plan::Plan).
pub(crate) fn write(target: &Target, batch: &str, or_abort: bool, rowid: Option<&str>) -> Option<String> {
    let or_abort = if or_abort { " OR ABORT" } else { "" };
    let table = target.table().quoted();
    Some(match target.operation {
        Operation::Insert | Operation::InsertIfAbsent | Operation::Upsert => {
            format!("{}{}", insert(target, batch, or_abort), on_conflict(target))
        }
        Operation::Update => return None,
        Operation::Delete => match (target.key.as_slice(), rowid) {
            (&[only], _) => {
                let key = name(target, only);
                format!("DELETE FROM {table} WHERE {key} IN (SELECT c{only} FROM {batch}(?1))")
            }
            // With statistics, SQLite may search (a, b) IN (…) by a alone and go through all rows of an a.
            (_, Some(rowid)) => {
                let found = format!("{batch}(?1) AS b CROSS JOIN {table} AS t ON {}", key_equal(target));
                format!("DELETE FROM {table} WHERE {rowid} IN (SELECT t.{rowid} FROM {found})")
            }
            (key, None) => {
                let cells = list(key.iter().copied(), |index| format!("c{index}"));
                let key = key_list(target);
                format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {cells} FROM {batch}(?1))")
            }
        },
    })
}

/// The statement that writes one row, and the places of the columns that are bound to `?1`, `?2`, …
pub(crate) fn write_row(target: &Target, or_abort: bool) -> (String, Vec<usize>) {
    let or_abort = if or_abort { " OR ABORT" } else { "" };
    let table = target.table().quoted();
    match target.operation {
        Operation::Insert | Operation::InsertIfAbsent | Operation::Upsert => {
            let all = 0..target.columns.len();
            let columns = list(all.clone(), |index| name(target, index));
            let cells = list(all.clone(), |index| format!("?{}", index + 1));
            let conflict = on_conflict(target);
            let sql = format!("INSERT{or_abort} INTO {table}({columns}) VALUES ({cells}){conflict}");
            (sql, all.collect())
        }
        Operation::Update => {
            let assigned: Vec<usize> = target.assigned().collect();
            let assignments = bound(target, &assigned, 1, ", ");
            let key = bound(target, &target.key, assigned.len() + 1, " AND ");
            let places = assigned.iter().chain(&target.key).copied().collect();
            (format!("UPDATE{or_abort} {table} SET {assignments} WHERE {key}"), places)
        }
        Operation::Delete => {
            let key = bound(target, &target.key, 1, " AND ");
            (format!("DELETE FROM {table} WHERE {key}"), target.key.clone())
        }
    }
}

/// The statement that finds whether one row's key is there; the key's columns are bound in the key's order.
pub(crate) fn match_row(target: &Target) -> String {
    format!("SELECT 1 FROM {} WHERE {}", target.table().quoted(), bound(target, &target.key, 1, " AND "))
}

/// `"a" = ?1, "b" = ?2`, counted from a number.
fn bound(target: &Target, places: &[usize], first: usize, separator: &str) -> String {
    let equal =
        places.iter().zip(first..).map(|(place, number)| format!("{} = ?{number}", name(target, *place)));
    equal.collect::<Vec<_>>().join(separator)
}

/// What becomes of a row whose key is there; nothing for a plain insert.
fn on_conflict(target: &Target) -> String {
    let assignments = list(target.assigned(), |index| {
        let column = name(target, index);
        format!("{column} = excluded.{column}")
    });
    let action = match target.operation {
        Operation::InsertIfAbsent => "DO NOTHING".to_owned(),
        Operation::Upsert if assignments.is_empty() => "DO NOTHING".to_owned(),
        Operation::Upsert => format!("DO UPDATE SET {assignments}"),
        _ => return String::new(),
    };
    format!(" ON CONFLICT({}) {action}", key_list(target))
}

fn insert(target: &Target, batch: &str, or_abort: &str) -> String {
    let columns = list(0..target.columns.len(), |index| name(target, index));
    let cells = list(0..target.columns.len(), |index| format!("c{index}"));
    let table = target.table().quoted();
    // Without WHERE, `ON CONFLICT` would be read as a join's.
    let end = if target.operation == Operation::Insert { "" } else { "WHERE true " };
    format!("INSERT{or_abort} INTO {table}({columns}) SELECT {cells} FROM {batch}(?1) {end}ORDER BY _ordinal")
}

/// The statement that inserts a batch without the column of one place.
pub(crate) fn append(target: &Target, left_out: usize, batch: &str) -> String {
    let places = || (0..target.columns.len()).filter(|place| *place != left_out);
    let columns = list(places(), |index| name(target, index));
    let cells = list(places(), |index| format!("c{index}"));
    let table = target.table().quoted();
    format!("INSERT OR ABORT INTO {table}({columns}) SELECT {cells} FROM {batch}(?1) ORDER BY _ordinal")
}

/// The statement that finds the rows whose key is there: their ordinals.
pub(crate) fn matching(target: &Target, batch: &str) -> String {
    let (table, equal) = (target.table().quoted(), key_equal(target));
    // CROSS JOIN keeps the batch outside and the search by key inside.
    format!("SELECT b._ordinal FROM {batch}(?1) AS b CROSS JOIN {table} AS t ON {equal}")
}

/// The statement that finds rows whose foreign key names no parent: their ordinals. `columns` are places in the batch.
pub(crate) fn orphans(parent: &str, parent_columns: &[String], columns: &[usize], batch: &str) -> String {
    let given = columns.iter().map(|index| format!("b.c{index} IS NOT NULL")).collect::<Vec<_>>();
    let pairs = parent_columns.iter().zip(columns);
    let equal = pairs.map(|(name, index)| format!("p.{} = b.c{index}", quote(name))).collect::<Vec<_>>();
    format!(
        "SELECT b._ordinal FROM {batch}(?1) AS b WHERE {} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {}) LIMIT 1",
        given.join(" AND "),
        equal.join(" AND ")
    )
}

fn key_equal(target: &Target) -> String {
    let equal = target.key.iter().map(|&index| format!("t.{} = b.c{index}", name(target, index)));
    equal.collect::<Vec<_>>().join(" AND ")
}

fn key_list(target: &Target) -> String {
    list(target.key.iter().copied(), |index| name(target, index))
}

fn name(target: &Target, index: usize) -> String {
    quote(target.columns[index].name())
}

fn list(indexes: impl Iterator<Item = usize>, text: impl Fn(usize) -> String) -> String {
    indexes.map(text).collect::<Vec<_>>().join(", ")
}
