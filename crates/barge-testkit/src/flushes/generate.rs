//! Random cases.

use std::fmt;

use barge_core::Operation;
use barge_core::store::Action;
use proptest::prelude::*;

use super::tables::{self, KEYLESS, SHAPES};
use super::{Act, Actions, Case, Write};

/// Shapes that meet: a case stays within one of these, so that its rows meet often.
const SCENES: [&[&str]; 9] = [
    &["accounts"],
    &["accounts", "orders"],
    &["accounts", "letters"],
    &["accounts", "orders", "lines", "letters"],
    &["nodes"],
    &["words", "counters"],
    &["gauges", "counters"],
    &["seats", "marks"],
    &["accounts", "orders", "letters", "lines", "words", "counters", "nodes", "gauges", "seats", "marks"],
];

pub(super) fn case() -> impl Strategy<Value = Case> {
    let max_rows = prop_oneof![1 => Just(1usize), 2 => 2..8usize, 3 => Just(1_000usize)];
    let atomic = prop::bool::weighted(0.2);
    let receipts = prop::bool::weighted(0.7);
    (acts(), actions(), max_rows, atomic, receipts).prop_map(|(acts, actions, max_rows, atomic, receipts)| {
        Case { actions, acts, max_rows, atomic, receipts, unordered_flushes: 1 }
    })
}

fn actions() -> impl Strategy<Value = Actions> {
    let any = || prop_oneof![2 => Just(Action::Refuse), 1 => Just(Action::Cascade), 1 => Just(Action::Set)];
    let of_keys = prop_oneof![Just(Action::Refuse), Just(Action::Cascade)];
    (any(), any(), of_keys, any()).prop_map(|(orders, letters, lines, nodes)| Actions {
        orders,
        letters,
        lines,
        nodes,
    })
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    (0..SCENES.len()).prop_flat_map(|scene| {
        let shapes: Vec<usize> =
            (0..SHAPES.len()).filter(|shape| SCENES[scene].contains(&SHAPES[*shape].0)).collect();
        // Few operations in some cases: what goes as one step needs runs of one.
        let operations = prop::collection::vec(operation(), 1..6);
        operations.prop_flat_map(move |operations| {
            let add = add(shapes.clone(), operations);
            prop::collection::vec(prop_oneof![12 => add, 1 => Just(Act::Flush)], 1..40)
        })
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![3 => Just(Insert), 1 => Just(InsertIfAbsent), 3 => Just(Upsert), 2 => Just(Update), 2 => Just(Delete)]
}

fn add(shapes: Vec<usize>, operations: Vec<Operation>) -> impl Strategy<Value = Act> {
    let numbers = prop::array::uniform4(0..10u8);
    let rows = prop_oneof![3 => Just(1..2usize), 1 => Just(2..6usize)];
    let rows = rows.prop_flat_map(move |rows| prop::collection::vec(numbers.clone(), rows));
    (prop::sample::select(shapes), prop::sample::select(operations), rows).prop_map(
        |(shape, operation, rows)| {
            let operation = possible(operation, shape);
            Act::Add(rows.into_iter().map(|numbers| write(operation, shape, numbers)).collect())
        },
    )
}

/// The operation, or another where the shape doesn't take it.
fn possible(operation: Operation, shape: usize) -> Operation {
    let (table, columns) = SHAPES[shape];
    match operation {
        Operation::Upsert | Operation::InsertIfAbsent if table == KEYLESS => Operation::Insert,
        // An update needs something to set.
        Operation::Update if matches!(columns, ["id"] | ["word"]) => Operation::Upsert,
        operation => operation,
    }
}

fn write(operation: Operation, shape: usize, numbers: [u8; 4]) -> Write {
    let mut row = Vec::new();
    for (column, number) in SHAPES[shape].1.iter().zip(numbers) {
        // Amounts alone may coalesce: then values in between are not checked.
        let number = if SHAPES[shape].1 == ["id", "amount"] && number == 9 { 8 } else { number };
        row.push(tables::value(column, number, &row));
    }
    Write { operation, shape, row }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { actions, acts, max_rows, atomic, receipts, unordered_flushes } = self;
        writeln!(f, "max_rows {max_rows}, atomic {atomic}, receipts {receipts}, {actions:?}")?;
        writeln!(f, "{unordered_flushes} unordered flushes")?;
        for act in acts {
            let Act::Add(writes) = act else {
                writeln!(f, "flush")?;
                continue;
            };
            let (table, columns) = SHAPES[writes[0].shape];
            let rows: Vec<_> = writes.iter().map(|write| &write.row).collect();
            writeln!(f, "{} {table}{columns:?} {rows:?}", writes[0].operation)?;
        }
        Ok(())
    }
}
