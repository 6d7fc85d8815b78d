//! The queries that hold a batch against a table's constraints.
//!
//! They run over the batch `b` and the table `t`, and give for each row that breaks something its ordinal, the constraint's number and a
//! code of `findings`.

use std::sync::Arc;

use barge_core::TableName;
use barge_core::record::quote;
use barge_core::store::{DescribedColumn, Operation};

use crate::constraints::{Constraint, Rule};
use crate::findings::{CANNOT, DEPENDS, FAILS, MALFORMED, RAISES};
use crate::plan::{Plan, exact};
use crate::sql::qualified;
use crate::types::{DuckType, Kind};

/// The image's column of ordinals.
const ROW: &str = "\"barge row\"";
/// The image's column that says whether the row's key isn't there yet, where only such rows are written.
const NEW: &str = "\"barge new\"";

/// The query that holds fitted rows, with ordinals, against constraints. `None` where there is nothing to ask.
pub(crate) fn query(plan: &Plan, constraints: &[Arc<Constraint>]) -> Option<String> {
    let image = Image { plan };
    let mut parts = Vec::new();
    for (number, constraint) in constraints.iter().enumerate() {
        parts.extend(image.parts(number, constraint));
    }
    // Rows of one key come one after the other.
    if plan.target.operation.is_keyed() {
        let keys = plan.target.key.iter().map(|&index| exact(&format!("c{index}"), &plan.types[index]));
        let keys: Vec<String> = keys.collect();
        // A key that is no value of its type names no row.
        let values: Vec<String> =
            plan.target.key.iter().map(|&index| format!("c{index} IS NOT NULL")).collect();
        parts.push(format!(
            "SELECT _ordinal, -1, {DEPENDS} FROM (SELECT _ordinal, row_number() OVER (PARTITION BY {} ORDER BY _ordinal) AS n \
             FROM {} WHERE {}) WHERE n > 1",
            keys.join(", "),
            plan.relation,
            values.join(" AND ")
        ));
    }
    parts.extend(malformed(plan));
    if parts.is_empty() {
        return None;
    }
    let union = parts.join("\nUNION ALL ");
    Some(match plan.target.operation {
        Operation::Delete => union,
        // A check holds for every row that is sent, also where it is there already; all else for those that are written.
        Operation::InsertIfAbsent => {
            format!(
                "WITH every AS MATERIALIZED ({}), image AS (FROM every WHERE {NEW})\n{union}",
                image.select()
            )
        }
        _ => format!("WITH every AS MATERIALIZED ({}), image AS (FROM every)\n{union}", image.select()),
    })
}

/// The rows with text that is no value of its column's type, as only DuckDB can tell: no malformed INTERVAL takes others with it.
fn malformed(plan: &Plan) -> impl Iterator<Item = String> {
    let columns = plan.types.iter().enumerate().filter(|(_, own)| own.kind == Kind::Other);
    columns.map(|(place, own)| {
        format!(
            "SELECT _ordinal, {place}, {MALFORMED} FROM {} WHERE c{place} IS NOT NULL AND TRY_CAST(c{place} AS {}) IS NULL",
            plan.batch, own.sql
        )
    })
}

/// The query that finds the rows that others named when the transaction began, for another connection, which sees those still.
pub(crate) fn committed_references(
    plan: &Plan,
    constraints: &[Arc<Constraint>],
    batch: &str,
) -> Option<String> {
    let columns: Vec<(usize, &DuckType)> = plan.types.iter().enumerate().collect();
    let relation = crate::plan::relation(batch, &columns);
    let table = &plan.table;
    let mut parts = Vec::new();
    for (number, constraint) in constraints.iter().enumerate() {
        let Rule::Child { table: child, columns, replaced, .. } = &constraint.rule else { continue };
        let concerns = match plan.target.operation {
            Operation::Delete => true,
            Operation::Update | Operation::Upsert => *replaced,
            Operation::Insert | Operation::InsertIfAbsent => false,
        };
        if concerns {
            parts.push(format!(
                "SELECT b._ordinal, {number}, {CANNOT} FROM {relation} AS b JOIN {table} AS t ON {} SEMI JOIN {} AS c ON {}",
                plan.key_equal("t", "b"),
                qualified(&plan.catalog, child),
                pairs(plan, &constraint.columns, ("c", columns), ("t", &constraint.columns)),
            ));
        }
    }
    (!parts.is_empty()).then(|| parts.join("\nUNION ALL "))
}

/// The rows as they would be in the table.
struct Image<'a> {
    plan: &'a Plan,
}

impl Image<'_> {
    fn select(&self) -> String {
        let plan = self.plan;
        let columns = plan.target.description.columns.iter().filter(|column| !column.computed);
        let columns: Vec<String> =
            columns.map(|column| format!("{} AS {}", self.cell(column), quote(&column.name))).collect();
        let join = match plan.target.operation {
            Operation::Insert | Operation::Delete => String::new(),
            Operation::Update => format!(" JOIN {} AS t ON {}", plan.table, plan.key_equal("t", "b")),
            Operation::Upsert | Operation::InsertIfAbsent => {
                format!(" LEFT JOIN {} AS t ON {}", plan.table, plan.key_equal("t", "b"))
            }
        };
        let new = match plan.target.operation {
            Operation::InsertIfAbsent => format!(", NOT ({}) AS {NEW}", self.is_there()),
            _ => String::new(),
        };
        format!("SELECT b._ordinal AS {ROW}{new}, {} FROM {} AS b{join}", columns.join(", "), plan.relation)
    }

    /// What a column of the row would hold.
    fn cell(&self, column: &DescribedColumn) -> String {
        let plan = self.plan;
        let name = quote(&column.name);
        let place = plan.target.columns.iter().position(|own| own.name().eq_ignore_ascii_case(&column.name));
        let assigned = place.is_some_and(|place| plan.target.assigned().any(|index| index == place));
        let given = match place {
            Some(place) => format!("b.c{place}"),
            None => default_of(column),
        };
        match plan.target.operation {
            _ if assigned => given,
            Operation::Update => format!("t.{name}"),
            Operation::Upsert => format!("CASE WHEN {} THEN t.{name} ELSE {given} END", self.is_there()),
            _ => given,
        }
    }

    /// That the row's key is in the table.
    fn is_there(&self) -> String {
        format!("t.{} IS NOT NULL", self.plan.name(self.plan.target.key[0]))
    }

    fn changes(&self) -> bool {
        matches!(self.plan.target.operation, Operation::Update | Operation::Upsert)
    }

    /// Whether rows may break a check or lack a parent by what is written: an update leaves the columns that it doesn't set as they are.
    fn may_break(&self, constraint: &Constraint) -> bool {
        let target = &self.plan.target;
        let is_set = |column: &String| {
            target.assigned().any(|index| target.columns[index].name().eq_ignore_ascii_case(column))
        };
        target.operation != Operation::Update
            || !matches!(constraint.rule, Rule::Check(_) | Rule::Parent { .. })
            || constraint.columns.is_empty()
            || constraint.columns.iter().any(is_set)
    }

    fn parts(&self, number: usize, constraint: &Constraint) -> Vec<String> {
        let deletes = self.plan.target.operation == Operation::Delete;
        let columns = &constraint.columns;
        match &constraint.rule {
            Rule::Child { .. } => self.child(number, constraint).into_iter().collect(),
            _ if deletes || !self.may_break(constraint) => Vec::new(),
            Rule::Check(expression) => {
                // A check that itself fails gives no value; one that holds may give NULL.
                vec![format!(
                    "SELECT {ROW}, {number}, CASE WHEN v IS NULL THEN {RAISES} ELSE {FAILS} END \
                     FROM (SELECT {ROW}, {} AS v FROM every AS {}) WHERE v IS NULL OR NOT v.v",
                    tried(expression),
                    // Which a check may name its columns by.
                    quote(self.plan.target.table().name())
                )]
            }
            Rule::Unique => self.unique(number, columns),
            Rule::UniqueExpressions(expressions) => self.unique_expressions(number, expressions),
            Rule::Parent { table, columns: parent_columns, own } => {
                let mut parts = vec![self.parent(number, columns, table, parent_columns, *own)];
                if *own {
                    let itself = pairs(self.plan, columns, ("i", parent_columns), ("i", columns));
                    parts.push(format!("SELECT i.{ROW}, {number}, {CANNOT} FROM image AS i WHERE {itself}"));
                }
                parts
            }
        }
    }

    fn unique(&self, number: usize, columns: &[String]) -> Vec<String> {
        let target = &self.plan.target;
        let is_key = columns.len() == target.key.len()
            && target.key.iter().all(|&index| {
                columns.iter().any(|column| column.eq_ignore_ascii_case(target.columns[index].name()))
            });
        if is_key && target.operation.is_keyed() {
            return Vec::new();
        }
        let term = |column: &String| (self.exact("t", column), self.exact("i", column));
        self.unique_terms(number, (&self.plan.table, "image"), columns.iter().map(term).collect())
    }

    /// The same for what expressions give of the rows; and the rows of which they give nothing.
    fn unique_expressions(&self, number: usize, expressions: &[String]) -> Vec<String> {
        let name = |place: usize| quote(&format!("barge expression {place}"));
        let computed = |by: &dyn Fn(&String) -> String| {
            let columns = expressions.iter().enumerate();
            columns
                .map(|(place, own)| format!("{} AS {}", by(own), name(place)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        // What is in the table has been computed before.
        let table = format!("(SELECT *, {} FROM {})", computed(&|own| format!("({own})")), self.plan.table);
        let image = format!("(SELECT *, {} FROM image)", computed(&|own| format!("TRY({own})")));
        let term = |place| (format!("t.{}", name(place)), format!("i.{}", name(place)));
        let mut parts =
            self.unique_terms(number, (&table, &image), (0..expressions.len()).map(term).collect());
        let raises: Vec<String> = expressions.iter().map(|own| format!("{} IS NULL", tried(own))).collect();
        parts.push(format!("SELECT {ROW}, {number}, {RAISES} FROM image WHERE {}", raises.join(" OR ")));
        parts
    }

    /// Rows that have the same as another, of the table or the image: terms that are equal, over the one and the other.
    fn unique_terms(
        &self,
        number: usize,
        (table, image): (&str, &str),
        terms: Vec<(String, String)>,
    ) -> Vec<String> {
        let target = &self.plan.target;
        let values: Vec<String> = terms.iter().map(|(_, own)| format!("{own} IS NOT NULL")).collect();
        let equal: Vec<String> = terms.iter().map(|(there, own)| format!("{there} = {own}")).collect();
        let cells: Vec<String> = terms.into_iter().map(|(_, own)| own).collect();
        let equal = equal.join(" AND ");
        let holder = if self.changes() {
            // The row that holds the value may be the row itself, or one that an earlier row of the batch changes.
            let own_key = target.key.iter().map(|&index| {
                let name = target.columns[index].name();
                format!("{} = {}", self.exact("t", name), self.exact("i", name))
            });
            format!(
                "SELECT i.{ROW}, {number}, CASE WHEN b._ordinal < i.{ROW} THEN {DEPENDS} ELSE {FAILS} END FROM {image} AS i \
                 JOIN {table} AS t ON {equal} LEFT JOIN {} AS b ON {} WHERE NOT ({})",
                self.plan.relation,
                self.plan.key_equal("t", "b"),
                own_key.collect::<Vec<_>>().join(" AND ")
            )
        } else {
            format!("SELECT i.{ROW}, {number}, {FAILS} FROM {image} AS i SEMI JOIN {table} AS t ON {equal}")
        };
        let twice = format!(
            "SELECT {ROW}, {number}, {DEPENDS} FROM (SELECT i.{ROW}, row_number() OVER (PARTITION BY {} ORDER BY i.{ROW}) AS n \
             FROM {image} AS i WHERE {}) WHERE n > 1",
            cells.join(", "),
            values.join(" AND ")
        );
        vec![holder, twice]
    }

    fn parent(
        &self,
        number: usize,
        columns: &[String],
        parent: &TableName,
        parent_columns: &[String],
        own: bool,
    ) -> String {
        let given: Vec<String> =
            columns.iter().map(|column| format!("i.{} IS NOT NULL", quote(column))).collect();
        let missing = format!(
            "ANTI JOIN {} AS p ON {}",
            qualified(&self.plan.catalog, parent),
            pairs(self.plan, columns, ("p", parent_columns), ("i", columns))
        );
        let given = given.join(" AND ");
        if !own {
            return format!("SELECT i.{ROW}, {number}, {FAILS} FROM image AS i {missing} WHERE {given}");
        }
        // The parent may be a row of the batch.
        format!(
            "SELECT i.{ROW}, {number}, CASE WHEN j.{ROW} < i.{ROW} THEN {DEPENDS} ELSE {FAILS} END \
             FROM image AS i {missing} LEFT JOIN image AS j ON {} WHERE {given}",
            pairs(self.plan, columns, ("j", parent_columns), ("i", columns))
        )
    }

    /// Rows that others name: they can't be removed, nor replaced.
    fn child(&self, number: usize, constraint: &Constraint) -> Option<String> {
        let Rule::Child { table: child, columns, own, replaced } = &constraint.rule else { return None };
        let plan = self.plan;
        let from = format!(
            "FROM {} AS b JOIN {} AS t ON {} JOIN {} AS c ON {}",
            plan.relation,
            plan.table,
            plan.key_equal("t", "b"),
            qualified(&plan.catalog, child),
            pairs(plan, &constraint.columns, ("c", columns), ("t", &constraint.columns)),
        );
        match plan.target.operation {
            Operation::Delete if *own => Some(format!(
                "SELECT b._ordinal, {number}, CASE WHEN d._ordinal < b._ordinal THEN {DEPENDS} ELSE {FAILS} END {from} \
                 LEFT JOIN {} AS d ON {}",
                plan.relation,
                plan.key_equal("c", "d"),
            )),
            Operation::Delete => Some(format!("SELECT b._ordinal, {number}, {FAILS} {from}")),
            Operation::Update | Operation::Upsert if *replaced => {
                let changed = constraint.columns.iter().filter_map(|column| {
                    let place =
                        plan.target.columns.iter().position(|own| own.name().eq_ignore_ascii_case(column))?;
                    let assigned = plan.target.assigned().any(|index| index == place);
                    assigned.then(|| format!("t.{} IS DISTINCT FROM b.c{place}", quote(column)))
                });
                let changed: Vec<String> = changed.chain(["FALSE".to_owned()]).collect();
                Some(format!(
                    "SELECT b._ordinal, {number}, CASE WHEN {} THEN {FAILS} ELSE {CANNOT} END {from}",
                    changed.join(" OR ")
                ))
            }
            _ => None,
        }
    }

    /// A column of a relation as unique indexes compare it.
    fn exact(&self, relation: &str, column: &str) -> String {
        exact_column(self.plan, relation, column, column)
    }
}

/// An expression in a struct, so that NULL, which is no struct, says that it fails over the row.
fn tried(expression: &str) -> String {
    format!("TRY({{'v': {expression}}})")
}

/// A column of a relation as unique indexes and foreign keys compare it: by the type of a column of the target's table.
fn exact_column(plan: &Plan, relation: &str, column: &str, own: &str) -> String {
    let name = format!("{relation}.{}", quote(column));
    match plan.target.description.column(own) {
        Some(described) => exact(&name, &DuckType::parse(&described.declared_type)),
        None => name,
    }
}

/// The value of a column that the batch doesn't give. What a sequence would give is not drawn for a look.
fn default_of(column: &DescribedColumn) -> String {
    let default = column.default.as_deref().filter(|default| !default.contains("nextval("));
    format!("CAST(({}) AS {})", default.unwrap_or("NULL"), column.declared_type)
}

/// That columns of two relations are equal, each with the other's of its place, and of the type of the target's column of that place.
fn pairs(plan: &Plan, own: &[String], left: (&str, &[String]), right: (&str, &[String])) -> String {
    let pairs = own.iter().zip(left.1.iter().zip(right.1)).map(|(own, (left_column, right_column))| {
        let exact = |relation: &str, column: &str| exact_column(plan, relation, column, own);
        format!("{} = {}", exact(left.0, left_column), exact(right.0, right_column))
    });
    pairs.collect::<Vec<_>>().join(" AND ")
}
