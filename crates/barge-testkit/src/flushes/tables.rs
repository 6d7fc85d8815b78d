//! The tables that random flushes write, and the shapes in which rows come: all of a table's columns, or some.

use std::sync::Arc;

use arrow::datatypes::DataType::{self, Int64, Utf8};
use barge_core::Table;
use barge_core::record::Column;
use barge_core::store::Action;

use super::Write;
use super::model::fold;
use crate::Value;
use crate::conformance::{Constraints, Feature, Harness, Support, fixture};

/// What foreign keys do when their parent goes or changes.
#[derive(Clone, Copy, Debug)]
pub struct Actions {
    /// Orders, when their account is deleted.
    pub orders: Action,
    /// Letters, when their recipient is deleted or gets another address.
    pub letters: Action,
    /// Lines, when their order is deleted: as the key's part their column holds no NULL.
    pub lines: Action,
    /// Nodes, when the node above is deleted.
    pub nodes: Action,
}

/// Rows of a table, with all of its columns or some.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The table's place among the definitions.
    pub table: usize,
    /// The columns, as a record type would have them.
    pub view: Arc<Table>,
}

/// The tables and shapes of a case.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Parents before children.
    pub definitions: Vec<(Arc<Table>, Constraints)>,
    /// The shapes of rows.
    pub shapes: Vec<Shape>,
}

/// The names of the shapes' tables and columns. The first shape of a table has all of its columns.
pub(super) const SHAPES: [(&str, &[&str]); 18] = [
    ("accounts", &["id", "email"]),
    ("accounts", &["id"]),
    ("orders", &["id", "account", "amount"]),
    ("orders", &["id", "amount"]),
    ("letters", &["id", "recipient"]),
    ("lines", &["order_id", "line", "note"]),
    ("words", &["word", "n"]),
    ("words", &["word"]),
    ("counters", &["kind", "id", "n", "m"]),
    ("counters", &["kind", "id", "m"]),
    ("nodes", &["id", "above", "label"]),
    ("nodes", &["id", "label"]),
    ("nodes", &["id"]),
    ("gauges", &["id", "level"]),
    ("gauges", &["id"]),
    ("seats", &["id", "seat"]),
    ("seats", &["id"]),
    ("marks", &["id", "m"]),
];

/// The table whose keys may repeat: it takes no upserts.
pub(super) const KEYLESS: &str = "marks";

impl Tables {
    /// The tables, with foreign keys that do this.
    pub fn new(actions: Actions) -> Self {
        let none = Constraints::none;
        let refuse = Action::Refuse;
        let definitions = vec![
            define("accounts", &["id"], none().unique(&["email"])),
            define(
                "orders",
                &["id"],
                none().at_least("amount", 0).default_value("amount", 1).foreign_key_with(
                    &["account"],
                    "accounts",
                    &["id"],
                    actions.orders,
                    refuse,
                ),
            ),
            define(
                "letters",
                &["id"],
                none().foreign_key_with(
                    &["recipient"],
                    "accounts",
                    &["email"],
                    actions.letters,
                    actions.letters,
                ),
            ),
            define(
                "lines",
                &["order_id", "line"],
                none().foreign_key_with(&["order_id"], "orders", &["id"], actions.lines, refuse),
            ),
            define("words", &["word"], none().ignore_case("word").default_value("n", 7)),
            define("counters", &["kind", "id"], none().default_value("n", 7)),
            define(
                "nodes",
                &["id"],
                none().unique(&["label"]).foreign_key_with(
                    &["above"],
                    "nodes",
                    &["id"],
                    actions.nodes,
                    refuse,
                ),
            ),
            define("gauges", &["id"], none().keep_out_below("level", 0)),
            define("seats", &["id"], none().unique(&["seat"]).default_value("seat", 3)),
            define(KEYLESS, &["id"], none().keyless()),
        ];
        let shapes = SHAPES.map(|(name, columns)| {
            let table = definitions.iter().position(|(table, _)| table.name().name() == name).unwrap();
            let all = &definitions[table].0;
            let columns = columns.iter().map(|name| all.columns()[all.column(name).unwrap()].clone());
            Shape { table, view: fixture::table(name, columns) }
        });
        Tables { definitions, shapes: shapes.into() }
    }

    /// The same tables in a store that may lack some of what they have.
    pub(super) fn in_store(mut self, harness: &dyn Harness) -> Self {
        let lacks = |feature| harness.supports(feature) == Support::Absent;
        for (_, constraints) in &mut self.definitions {
            if lacks(Feature::Triggers) {
                constraints.keep_out_below.clear();
            }
            if lacks(Feature::IgnoreCase) {
                constraints.ignore_case.clear();
            }
            if lacks(Feature::ForeignKeyActions) {
                for key in &mut constraints.foreign_keys {
                    (key.on_delete, key.on_update) = (Action::Refuse, Action::Refuse);
                }
            }
        }
        self
    }

    /// The key that a write names, as the database compares keys.
    pub fn key_of(&self, write: &Write) -> Vec<Value> {
        let shape = &self.shapes[write.shape];
        let (_, constraints) = &self.definitions[shape.table];
        let cells = shape.view.columns().iter().zip(&write.row).filter(|(column, _)| column.is_key());
        cells.map(|(column, value)| fold(constraints, column.name(), value)).collect()
    }

    /// The key of a table's row, as the database compares keys.
    pub(super) fn key_in(&self, table: usize, row: &[Value]) -> Vec<Value> {
        let (table, constraints) = &self.definitions[table];
        let cells = table.columns().iter().zip(row).filter(|(column, _)| column.is_key());
        cells.map(|(column, value)| fold(constraints, column.name(), value)).collect()
    }

    /// Every key that a table's rows can have, once each as the database compares them.
    pub(super) fn keys(&self, table: usize) -> Vec<Vec<Value>> {
        let (table, constraints) = &self.definitions[table];
        let mut keys = vec![Vec::new()];
        for index in table.key() {
            let column = table.columns()[index].name();
            let mut values: Vec<Value> = (0..10).map(|number| value(column, number, &[])).collect();
            values = values.iter().map(|value| fold(constraints, column, value)).collect();
            values.sort();
            values.dedup();
            let longer = |key: &Vec<Value>| -> Vec<Vec<Value>> {
                values.iter().map(|value| [key.as_slice(), std::slice::from_ref(value)].concat()).collect()
            };
            keys = keys.iter().flat_map(longer).collect();
        }
        keys
    }
}

fn define(name: &str, key: &[&str], constraints: Constraints) -> (Arc<Table>, Constraints) {
    let (_, columns) = SHAPES.iter().find(|(table, _)| *table == name).unwrap();
    let columns = columns.iter().map(|column| -> Column {
        let data_type = data_type(column);
        match *column {
            column if key.contains(&column) => fixture::key(column, data_type),
            "amount" | "n" => fixture::column(column, data_type),
            column => fixture::nullable(column, data_type),
        }
    });
    (fixture::table(name, columns), constraints)
}

fn data_type(column: &str) -> DataType {
    if matches!(column, "email" | "recipient" | "word" | "kind" | "label") { Utf8 } else { Int64 }
}

/// A column's value for a number below ten, after the row's first values. Few values, so that rows meet.
pub(super) fn value(column: &str, number: u8, before: &[Value]) -> Value {
    let number = i64::from(number);
    let or_null = |value: i64| if number == 9 { Value::Null } else { value.into() };
    let text = |texts: &[&str]| texts[number as usize % texts.len()].into();
    match column {
        "id" | "order_id" => (number % 5).into(),
        "line" => (number % 2).into(),
        "account" => or_null(number % 6),
        "email" | "recipient" | "label" if number == 9 => Value::Null,
        "email" | "recipient" | "label" => text(&["a", "b", "c", "d"]),
        "word" => text(&["x", "X", "yes", "Yes", "YES"]),
        "kind" => text(&["in", "out"]),
        // Never above a node with a smaller number: rows that need each other are the guarantees' exception.
        "above" => match before[0].as_int() {
            Some(id) if number != 9 => (number % (id as i64 + 1)).into(),
            _ => Value::Null,
        },
        "amount" | "level" if number == 9 => (-1).into(),
        "n" if number == 9 => Value::Null,
        _ => or_null(number),
    }
}
