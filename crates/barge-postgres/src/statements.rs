//! The statements of the operations, each over a whole batch.
//!
//! In them `t` is the table, `b` the batch with its cells `c0`, `c1` … in the order of the target's columns, and `w` what was written,
//! with the key in `k0`, `k1` …

use std::sync::Arc;

use barge_core::record::quote;
use barge_core::store::{ForeignKey, ORDINAL, Operation, Target};
use barge_core::{Error, ErrorKind, Result};
use tokio_postgres::Statement;
use tokio_postgres::types::Type;

use crate::batch::{cells, relation};
use crate::connection::{Connection, answered, pipeline};
use crate::options::Without;
use crate::transaction::RESHAPED;
use crate::types::PgType;

/// A target with its columns' types: what statements are made of.
#[derive(Clone)]
pub(crate) struct Plan<'a> {
    pub(crate) target: &'a Target,
    pub(crate) types: Arc<[PgType]>,
    /// What stands for the batch.
    pub(crate) source: Source,
    pub(crate) without: Without,
}

/// Where a statement finds its batch.
#[derive(Clone, PartialEq)]
pub(crate) enum Source {
    /// In its parameters.
    Arrays,
    /// In a temporary table that COPY filled.
    Table(String),
}

/// How the rows of a batch reach the table.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Rows {
    /// In the batch's order, each told to a sequence, so that after a failure the sequence says which row it was.
    Traced,
    /// There is one: it is known again whatever a trigger made of its key.
    Alone,
    /// Sorted by key, so that writers of the same keys wait for each other instead of locking each other out.
    Sorted,
}

/// The sequence that remembers the last row.
pub(crate) const TRACE: &str = "barge_row";

impl<'a> Plan<'a> {
    pub(crate) fn new(target: &'a Target, without: Without) -> Self {
        let types = (0..target.columns.len()).filter_map(|index| target.described(index)).map(PgType::of);
        Plan { target, types: types.collect(), source: Source::Arrays, without }
    }

    /// The same with some of the batch's columns, for statements that look only at these.
    pub(crate) fn narrow(&self, places: &[usize]) -> Self {
        let types = places.iter().map(|&place| self.types[place].clone()).collect();
        Plan { types, ..self.clone() }
    }

    /// The batch as a relation.
    fn batch(&self) -> String {
        match &self.source {
            Source::Arrays => relation(&self.types, 1),
            Source::Table(name) => quote(name),
        }
    }

    /// The same for statements that don't ask which row is which.
    fn cells(&self) -> String {
        match &self.source {
            Source::Arrays => cells(&self.types),
            Source::Table(name) => quote(name),
        }
    }

    fn name(&self, index: usize) -> String {
        quote(self.target.columns[index].name())
    }

    fn table(&self) -> String {
        self.target.table().quoted()
    }

    fn columns(&self) -> impl Iterator<Item = usize> + Clone {
        0..self.target.columns.len()
    }

    fn keys(&self) -> impl Iterator<Item = usize> + Clone + '_ {
        self.target.key.iter().copied()
    }

    /// Prepares `COPY t(…) FROM STDIN`, without the column at this place, in a transaction, and sees to it that the columns are of the types that
    /// they were described with, until its end: binary rows say nothing of their types, and the 8 bytes of a bigint are a double, too.
    pub(crate) async fn prepare_copy(
        &self,
        connection: &Connection,
        left_out: Option<usize>,
    ) -> Result<Statement> {
        let columns = self.columns().filter(|index| Some(*index) != left_out);
        let names = list(columns.clone(), |index| self.name(index));
        let copy = format!("COPY {} ({names}) FROM STDIN (FORMAT binary)", self.table());
        let insert = self.insert_of_parameters(columns.clone(), &names);
        let (mut statement, mut inserted) = (None, None);
        pipeline(vec![
            // Prepared and never run, it locks the table as an insert does.
            Box::pin(async { inserted = Some(connection.named(&insert, &[]).await) }),
            Box::pin(async { statement = Some(connection.named(&copy, &[]).await) }),
        ])
        .await;
        let reshaped = |message: String| {
            let message = format!("the table's columns have other types than before: {message}");
            Error::new(ErrorKind::Statement, message).with_code(RESHAPED)
        };
        match answered(inserted) {
            Ok(inserted) => {
                for (index, found) in columns.clone().zip(inserted.params()) {
                    if let Some(own) = self.types[index].built_in().filter(|own| own != found) {
                        let name = self.name(index);
                        return Err(reshaped(format!("{name} is {found}, and was {own}")));
                    }
                }
                // What a domain stands upon the server tells of the rows that would come back.
                for (index, found) in self.domains(columns).zip(inserted.columns()) {
                    let own = self.types[index].parameter_type();
                    if own != *found.type_() {
                        let name = self.name(index);
                        return Err(reshaped(format!("{name} is {}, and was {own}", found.type_())));
                    }
                }
            }
            // No assignment, or no such type.
            Err(error) if matches!(error.code(), Some("42804" | "42704" | "42846")) => {
                return Err(reshaped(error.message().to_owned()));
            }
            Err(error) => return Err(error),
        }
        answered(statement)
    }

    /// An insert of one parameter a column, which takes the column's own type; where that is none of PostgreSQL's own, of which the driver would ask
    /// what it is, a text that becomes one.
    fn insert_of_parameters(&self, columns: impl Iterator<Item = usize> + Clone, names: &str) -> String {
        let domains = list(self.domains(columns.clone()), |index| self.name(index));
        let returning = if domains.is_empty() { domains } else { format!(" RETURNING {domains}") };
        let parameters = list(columns.enumerate(), |(place, index)| {
            let own = &self.types[index];
            match own.built_in() {
                Some(_) => format!("${}", place + 1),
                None => format!("${}::text::{}", place + 1, own.sql),
            }
        });
        format!(
            "INSERT INTO {} ({names}){} VALUES ({parameters}){returning}",
            self.table(),
            self.overriding()
        )
    }

    /// Those of the columns that are domains over a type whose bytes could be another's.
    fn domains(&self, columns: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
        columns.filter(|&index| {
            let own = &self.types[index];
            own.built_in().is_none() && own.parameter_type() != Type::TEXT
        })
    }

    fn overriding(&self) -> &'static str {
        let identity =
            self.columns().any(|index| self.target.described(index).is_some_and(|column| column.identity));
        if identity { " OVERRIDING SYSTEM VALUE" } else { "" }
    }

    /// The operation without its rows' outcomes.
    pub(crate) fn write(&self, rows: Rows) -> String {
        let batch = match rows {
            Rows::Traced => self.batch(),
            Rows::Alone | Rows::Sorted => self.cells(),
        };
        let insert = || self.insert_from(&format!("{batch} AS b"), rows);
        match self.target.operation {
            Operation::Insert => insert(),
            Operation::InsertIfAbsent => format!("{} {}", insert(), self.unless_there()),
            Operation::Upsert => format!("{} {}", insert(), self.or_set()),
            Operation::Update => self.update(&batch, rows),
            Operation::Delete => self.delete(&batch),
        }
    }

    /// The operation with a row for each row it wrote: its ordinal, and whether it is new. The ordinal is NULL where a trigger changed the key
    /// to one that is not in the batch.
    pub(crate) fn write_with_outcomes(&self, rows: Rows) -> String {
        self.write_as(self.target.operation, rows)
    }

    /// The same as if the target's operation were another.
    pub(crate) fn write_as(&self, operation: Operation, rows: Rows) -> String {
        let keys =
            list(self.keys().enumerate(), |(place, index)| format!("t.{} AS k{place}", self.name(index)));
        let written = match operation {
            Operation::Insert => {
                format!("{} RETURNING {keys}, true AS inserted", self.insert_from("b", rows))
            }
            Operation::InsertIfAbsent => {
                format!(
                    "{} {} RETURNING {keys}, true AS inserted",
                    self.insert_from("b", rows),
                    self.unless_there()
                )
            }
            Operation::Upsert => {
                let inserted = if self.assigns() { "(t.xmax = 0)" } else { "true" };
                format!(
                    "{} {} RETURNING {keys}, {inserted} AS inserted",
                    self.insert_from("b", rows),
                    self.or_set()
                )
            }
            Operation::Update => {
                return format!("{} RETURNING b.{ORDINAL}, false", self.update(&self.batch(), rows));
            }
            Operation::Delete => {
                return format!("{} RETURNING b.{ORDINAL}, false", self.delete(&self.batch()));
            }
        };
        let equal = match rows {
            Rows::Alone => "true".to_owned(),
            _ => and(self.keys().enumerate(), |(place, index)| format!("w.k{place} = b.c{index}")),
        };
        format!(
            "WITH b AS MATERIALIZED (SELECT * FROM {} AS b), w AS ({written}) \
             SELECT b.{ORDINAL}, w.inserted FROM w LEFT JOIN b ON {equal}",
            self.batch()
        )
    }

    /// An insert that draws the keys that are missing and gives a row for each row: its ordinal, its key, whether it is there now.
    pub(crate) fn insert_drawn(&self, drawn: usize, rows: Rows) -> String {
        let key = self.name(drawn);
        let draw = self.draw(drawn);
        let batch = format!(
            "SELECT {}, b.{ORDINAL} FROM {} AS b ORDER BY b.{ORDINAL}",
            list(self.columns(), |index| match index == drawn {
                true => format!("coalesce(b.c{index}, {draw}) AS c{index}"),
                false => format!("b.c{index}"),
            }),
            self.batch()
        );
        let equal = if rows == Rows::Alone { "true".to_owned() } else { format!("w.k = b.c{drawn}") };
        format!(
            "WITH b AS MATERIALIZED ({batch}), w AS ({} RETURNING t.{key} AS k) \
             SELECT b.{ORDINAL}, coalesce(w.k, b.c{drawn})::int8, w.k IS NOT NULL FROM b LEFT JOIN w ON {equal}",
            self.insert_from("b", rows)
        )
    }

    /// What draws the next key: the column's own default, or its identity's sequence.
    fn draw(&self, index: usize) -> String {
        if let Some(default) = self.target.described(index).and_then(|column| column.default.as_deref()) {
            return format!("({default})");
        }
        format!(
            "nextval((SELECT pg_get_serial_sequence({}, {})::regclass))",
            text(&self.table()),
            text(self.target.columns[index].name())
        )
    }

    /// The ordinals of rows whose key is there.
    pub(crate) fn matching(&self) -> String {
        format!(
            "SELECT b.{ORDINAL} FROM {} AS b JOIN {} AS t ON {}",
            self.batch(),
            self.table(),
            self.key_equal()
        )
    }

    /// The ordinals of rows which this transaction, which has no savepoints, wrote.
    pub(crate) fn written_here(&self) -> String {
        // A row version's xmin is the transaction's number without its epoch.
        format!("{} WHERE t.xmin::text::int8 = txid_current() & 4294967295", self.matching())
    }

    /// The ordinals of rows whose values in some columns are in the table.
    pub(crate) fn matching_on(&self, names: &[&str], places: &[usize]) -> String {
        let equal = and(names.iter().zip(places), |(name, index)| format!("t.{} = b.c{index}", quote(name)));
        format!("SELECT b.{ORDINAL} FROM {} AS b JOIN {} AS t ON {equal}", self.batch(), self.rows_of_table())
    }

    /// The table without those that inherit from it, whose rows its unique keys don't see.
    pub(crate) fn rows_of_table(&self) -> String {
        match self.target.description.partitioned {
            true => self.table(),
            false => format!("ONLY {}", self.table()),
        }
    }

    /// The ordinals of rows over which a condition is false. `names` are what the condition calls the columns.
    pub(crate) fn failing(&self, names: &[&str], condition: &str) -> String {
        let columns =
            list(names.iter().enumerate(), |(index, name)| format!("b.c{index} AS {}", quote(name)));
        format!(
            "SELECT {ORDINAL} FROM (SELECT {columns}, b.{ORDINAL} FROM {} AS b) AS {} WHERE NOT ({condition})",
            self.batch(),
            quote(self.target.table().name())
        )
    }

    /// The ordinals of rows whose foreign key names no parent. The batch holds the key's columns alone.
    pub(crate) fn orphans(&self, foreign_key: &ForeignKey) -> String {
        let places = 0..foreign_key.parent_columns.len();
        let given = and(places.clone(), |index| format!("b.c{index} IS NOT NULL"));
        let equal = and(foreign_key.parent_columns.iter().zip(places), |(name, index)| {
            format!("p.{} = b.c{index}", quote(name))
        });
        format!(
            "SELECT b.{ORDINAL} FROM {} AS b WHERE {given} AND NOT EXISTS (SELECT 1 FROM {} AS p WHERE {equal}) \
             AND NOT pg_catalog.row_security_active({})",
            self.batch(),
            foreign_key.parent.quoted(),
            text(&foreign_key.parent.quoted())
        )
    }

    /// The same of a foreign key of the table to itself, where a row's parent may be the row itself or one before it. The batch holds the key's
    /// columns, and then those it points at.
    pub(crate) fn orphans_among_themselves(&self, foreign_key: &ForeignKey) -> String {
        let width = foreign_key.parent_columns.len();
        let equal = and(0..width, |index| format!("e.c{} = b.c{index}", width + index));
        format!(
            "{} AND NOT EXISTS (SELECT 1 FROM {} AS e WHERE {equal} AND e.{ORDINAL} <= b.{ORDINAL})",
            self.orphans(foreign_key),
            self.batch(),
        )
    }

    fn insert_from(&self, batch: &str, rows: Rows) -> String {
        // A key that is to be drawn is NULL in the batch where nobody asked for what was drawn.
        let drawn = self.target.generated();
        let cells = list(self.columns(), |index| {
            let cell = match drawn {
                Some(drawn) if drawn == index && !batch.eq("b") => {
                    format!("coalesce(b.c{index}, {})", self.draw(index))
                }
                _ => format!("b.c{index}"),
            };
            traced(rows, index == 0, cell)
        });
        let order = match rows {
            Rows::Sorted if self.target.operation.is_keyed() => {
                format!(" ORDER BY {}", list(self.keys(), |index| format!("b.c{index}")))
            }
            _ => String::new(),
        };
        format!(
            "INSERT INTO {} AS t ({}){} SELECT {cells} FROM {batch}{order}",
            self.table(),
            list(self.columns(), |index| self.name(index)),
            self.overriding()
        )
    }

    fn unless_there(&self) -> String {
        format!("ON CONFLICT ({}) DO NOTHING", list(self.keys(), |index| self.name(index)))
    }

    /// An insert that leaves out rows which break any unique key, with the ordinals of the others. `key` are the places of the columns
    /// by which a row is known again.
    pub(crate) fn tolerant_insert(&self, key: &[usize]) -> String {
        let keys =
            list(key.iter().enumerate(), |(place, &index)| format!("t.{} AS k{place}", self.name(index)));
        let equal = and(key.iter().enumerate(), |(place, index)| format!("w.k{place} = b.c{index}"));
        format!(
            "WITH b AS MATERIALIZED (SELECT * FROM {} AS b), \
             w AS ({} ON CONFLICT DO NOTHING RETURNING {keys}) \
             SELECT b.{ORDINAL} FROM w JOIN b ON {equal}",
            self.batch(),
            self.insert_from("b", Rows::Traced),
        )
    }

    fn assigns(&self) -> bool {
        self.target.assigned().next().is_some()
    }

    fn or_set(&self) -> String {
        if !self.assigns() {
            return self.unless_there();
        }
        let set = list(self.target.assigned(), |index| format!("{0} = excluded.{0}", self.name(index)));
        format!("ON CONFLICT ({}) DO UPDATE SET {set}", list(self.keys(), |index| self.name(index)))
    }

    fn update(&self, batch: &str, rows: Rows) -> String {
        let set = list(self.target.assigned().enumerate(), |(place, index)| {
            format!("{} = {}", self.name(index), traced(rows, place == 0, format!("b.c{index}")))
        });
        format!(
            "UPDATE {} AS t SET {set} FROM {} AS b WHERE {}",
            self.table(),
            self.sorted(batch, rows),
            self.key_equal()
        )
    }

    fn delete(&self, batch: &str) -> String {
        format!(
            "DELETE FROM {} AS t USING {} AS b WHERE {}",
            self.table(),
            self.sorted(batch, Rows::Sorted),
            self.key_equal()
        )
    }

    fn sorted(&self, batch: &str, rows: Rows) -> String {
        match rows {
            Rows::Traced | Rows::Alone => batch.to_owned(),
            Rows::Sorted => {
                let keys = list(self.keys(), |index| format!("b.c{index}"));
                format!("(SELECT * FROM {batch} AS b ORDER BY {keys})")
            }
        }
    }

    fn key_equal(&self) -> String {
        and(self.keys(), |index| format!("t.{} = b.c{index}", self.name(index)))
    }
}

/// A cell that first tells the sequence which row it belongs to.
fn traced(rows: Rows, first: bool, cell: String) -> String {
    match rows {
        Rows::Traced if first => {
            format!("CASE WHEN setval('pg_temp.{TRACE}', b.{ORDINAL} + 1) > 0 THEN {cell} END")
        }
        _ => cell,
    }
}

/// A string literal. Backslashes, if any, are taken as they are whatever `standard_conforming_strings` says.
fn text(text: &str) -> String {
    let text = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", text.replace('\\', "\\\\")),
        false => format!("'{text}'"),
    }
}

fn list<T>(items: impl Iterator<Item = T>, name: impl Fn(T) -> String) -> String {
    items.map(name).collect::<Vec<_>>().join(", ")
}

fn and<T>(items: impl Iterator<Item = T>, name: impl Fn(T) -> String) -> String {
    items.map(name).collect::<Vec<_>>().join(" AND ")
}
