//! The schema as PostgreSQL's catalog tells it.
//!
//! A table is described by one statement, so that its parts fit together; it gives one JSON document.

use arrow::datatypes::DataType;
use barge_core::record::TableName;
use barge_core::store::{
    Action, DescribedColumn, Description, ForeignKey, KeyEquality, Reference, TableKind, UniqueKey,
};
use barge_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use tokio_postgres::types::Type;

use crate::claim::FLUSHES;
use crate::connection::Connection;
use crate::types::{Kind, PgType};

/// What stands for row level security among the triggers: it keeps rows out, too. COPY refuses it.
pub(crate) const ROW_SECURITY: &str = "row level security";

/// A relation's name as others name it: with its schema only where that is not on the search path.
const NAME: &str = "json_build_object(
    'schema', CASE WHEN pg_catalog.pg_table_is_visible(c.oid) THEN NULL ELSE n.nspname END, 'name', c.relname)";

#[derive(Deserialize)]
struct Relation {
    name: Name,
    kind: char,
    inherited: bool,
    row_security: bool,
    columns: Vec<Column>,
    unique: Vec<Unique>,
    foreign_keys: Vec<Key>,
    referenced_by: Vec<Key>,
    triggers: Vec<String>,
    reacts_to_inserts: bool,
}

#[derive(Deserialize)]
struct Name {
    schema: Option<String>,
    name: String,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    declared_type: String,
    base_type: Option<String>,
    not_null: bool,
    default: Option<String>,
    generated: String,
    identity: String,
    collation: Option<String>,
    deterministic: bool,
}

#[derive(Deserialize)]
struct Unique {
    name: String,
    columns: Vec<Option<String>>,
    partial: bool,
    primary: bool,
}

#[derive(Deserialize)]
struct Key {
    name: String,
    table: Name,
    columns: Vec<String>,
    other_columns: Vec<String>,
    on_delete: char,
    on_update: char,
}

impl Connection {
    /// Describes a table or view.
    pub(crate) async fn describe(&self, table: &TableName) -> Result<Description> {
        let name = table.quoted();
        let rows = self.query(&describe_sql(), &[(&name, Type::TEXT)]).await?;
        let document: Option<String> = match rows.first() {
            Some(row) => row.try_get(0).map_err(crate::error::error_of)?,
            None => None,
        };
        let document = document.ok_or_else(|| {
            Error::new(ErrorKind::MissingTable, "there is no table or view of this name")
                .with_table(table.to_string())
        })?;
        let relation: Relation = serde_json::from_str(&document)
            .map_err(|error| Error::new(ErrorKind::Statement, format!("reading the catalog: {error}")))?;
        Ok(relation.into_description())
    }

    /// The tables and views that users made, sorted by name.
    pub(crate) async fn tables(&self) -> Result<Vec<TableName>> {
        let sql = format!(
            "SELECT ({NAME})::text FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition AND c.relname <> '{FLUSHES}' \
             AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
        );
        let mut names = Vec::new();
        for row in self.query(&sql, &[]).await? {
            let document: String = row.try_get(0).map_err(crate::error::error_of)?;
            let name: Name = serde_json::from_str(&document)
                .map_err(|error| Error::new(ErrorKind::Statement, format!("reading the catalog: {error}")))?;
            names.push(name.into_table_name());
        }
        names.sort();
        Ok(names)
    }
}

/// One row with one document, or none where the name stands for nothing. The parameter is the name, quoted.
fn describe_sql() -> String {
    let columns = "SELECT coalesce(json_agg(json_build_object(
        'name', a.attname,
        'declared_type', pg_catalog.format_type(a.atttypid, a.atttypmod),
        'base_type', CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN (
            WITH RECURSIVE beneath(type, modifier, kind) AS (
                SELECT t.typbasetype, t.typtypmod, 'd'::\"char\"
                UNION ALL
                SELECT d.typbasetype, d.typtypmod, d.typtype FROM beneath
                JOIN pg_catalog.pg_type d ON d.oid = beneath.type AND d.typtype = 'd'
            )
            SELECT CASE WHEN e.typtype = 'e' THEN 'enum' ELSE pg_catalog.format_type(beneath.type, beneath.modifier) END
            FROM beneath JOIN pg_catalog.pg_type e ON e.oid = beneath.type AND e.typtype <> 'd') END,
        'not_null', a.attnotnull OR (t.typtype = 'd' AND t.typnotnull),
        'default', CASE WHEN a.attgenerated = '' THEN coalesce(
            pg_catalog.pg_get_expr(d.adbin, d.adrelid), t.typdefault) END,
        'generated', a.attgenerated,
        'identity', a.attidentity,
        'collation', CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(ln.nspname) || '.' || quote_ident(l.collname) END,
        'deterministic', coalesce(l.collisdeterministic, true)) ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
        LEFT JOIN pg_catalog.pg_namespace ln ON ln.oid = l.collnamespace
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped";
    // An index that is deferrable or not yet valid can't decide an upsert, no more than one over some rows.
    let unique = "SELECT coalesce(json_agg(json_build_object(
        'name', ic.relname,
        'columns', (SELECT json_agg(a.attname ORDER BY k.place)
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
            LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number AND k.number > 0
            WHERE k.place <= i.indnkeyatts),
        'partial', i.indpred IS NOT NULL OR NOT i.indimmediate OR NOT i.indisvalid OR EXISTS (
            SELECT FROM unnest(i.indcollation::oid[], i.indkey::int2[]) AS k(collated, number)
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
            WHERE k.collated <> 0 AND k.collated <> a.attcollation),
        'primary', i.indisprimary) ORDER BY NOT i.indisprimary, ic.relname), '[]')
        FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
        WHERE i.indrelid = c.oid AND i.indisunique";
    let foreign_keys = keys_sql("conrelid", "confrelid", "conkey", "confkey");
    let referenced_by = keys_sql("confrelid", "conrelid", "confkey", "conkey");
    let triggers = "SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM (
        SELECT tg.tgname AS name FROM pg_catalog.pg_trigger tg
        WHERE (tg.tgrelid = c.oid OR tg.tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)))
        AND NOT tg.tgisinternal AND tg.tgenabled <> 'D'
        UNION
        SELECT 'rule ' || r.rulename FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN'
    ) AS reactions";
    // Bit 2 of a trigger's type stands for INSERT. A rule is taken to react to everything.
    let reacts = "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger tg
        WHERE (tg.tgrelid = c.oid OR tg.tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)))
        AND NOT tg.tgisinternal AND tg.tgenabled <> 'D' AND tg.tgtype & 4 <> 0)
        OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN')";
    format!(
        "SELECT json_build_object('name', {NAME}, 'kind', c.relkind,
        'inherited', c.relhassubclass AND c.relkind <> 'p',
        'row_security', pg_catalog.row_security_active(c.oid),
        'columns', ({columns}), 'unique', ({unique}), 'foreign_keys', ({foreign_keys}),
        'referenced_by', ({referenced_by}), 'triggers', ({triggers}), 'reacts_to_inserts', ({reacts}))::text
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = pg_catalog.to_regclass($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
    )
}

/// Foreign keys between this table and others; `own` and `other` are sides of a constraint. One that a partition inherits is the partition's own,
/// too; left out are those that stand for another of this table's, to or from a single partition.
fn keys_sql(own: &str, other: &str, own_columns: &str, other_columns: &str) -> String {
    let names = |columns: &str, table: &str| {
        format!(
            "(SELECT json_agg(a.attname ORDER BY k.place) \
             FROM unnest(fk.{columns}) WITH ORDINALITY AS k(number, place) \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = fk.{table} AND a.attnum = k.number)"
        )
    };
    format!(
        "SELECT coalesce(json_agg(json_build_object('name', fk.conname,
        'table', (SELECT json_build_object(
            'schema', CASE WHEN pg_catalog.pg_table_is_visible(oc.oid) THEN NULL ELSE os.nspname END,
            'name', oc.relname)
            FROM pg_catalog.pg_class oc JOIN pg_catalog.pg_namespace os ON os.oid = oc.relnamespace
            WHERE oc.oid = fk.{other}),
        'columns', {}, 'other_columns', {},
        'on_delete', fk.confdeltype, 'on_update', fk.confupdtype) ORDER BY fk.conname), '[]')
        FROM pg_catalog.pg_constraint fk
        WHERE fk.{own} = c.oid AND fk.contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_constraint up WHERE up.oid = fk.conparentid AND up.{own} = fk.{own})",
        names(own_columns, own),
        names(other_columns, other),
    )
}

/// Whether a table has rules or policies, which COPY passes over or refuses. A trigger that is called like one is taken for it.
pub(crate) fn rewrites(description: &Description) -> bool {
    description.triggers.iter().any(|name| name == ROW_SECURITY || name.starts_with("rule "))
}

impl Relation {
    fn into_description(self) -> Description {
        let key = self.unique.iter().find(|unique| unique.primary);
        let key = key.map(|key| key.columns.iter().flatten().cloned().collect()).unwrap_or_default();
        let mut triggers = self.triggers;
        if self.row_security {
            triggers.push(ROW_SECURITY.to_owned());
        }
        Description {
            name: self.name.into_table_name(),
            kind: match self.kind {
                'v' | 'm' => TableKind::View,
                'f' => TableKind::Foreign,
                _ => TableKind::Table,
            },
            partitioned: self.kind == 'p',
            inherited: self.inherited,
            columns: self.columns.into_iter().map(Column::into_described).collect(),
            key,
            unique: self.unique.into_iter().map(Unique::into_unique_key).collect(),
            foreign_keys: self.foreign_keys.into_iter().map(Key::into_foreign_key).collect(),
            referenced_by: self.referenced_by.into_iter().map(Key::into_reference).collect(),
            triggers,
            reacts_to_inserts: self.reacts_to_inserts || self.row_security,
        }
    }
}

impl Name {
    fn into_table_name(self) -> TableName {
        match self.schema {
            Some(schema) => TableName::in_schema(schema, self.name),
            None => TableName::new(self.name),
        }
    }
}

impl Column {
    fn into_described(self) -> DescribedColumn {
        let mut column = DescribedColumn::new(self.name, self.declared_type, DataType::Null);
        column.base_type = self.base_type;
        column.nullable = !self.not_null;
        column.default = self.default;
        column.computed = !self.generated.is_empty();
        column.identity = !self.identity.is_empty();
        column.collation = self.collation;
        let pg_type = PgType::of(&column);
        column.data_type = pg_type.arrow_type();
        column.extension = match pg_type.kind {
            Kind::Uuid => Some("arrow.uuid"),
            Kind::Json | Kind::Jsonb => Some("arrow.json"),
            _ => None,
        };
        if !self.deterministic || compares_otherwise(&pg_type) {
            column.equality = KeyEquality::Database;
        }
        column
    }
}

/// Whether values that differ may be equal to the database: 0.0 and −0.0, `a` and `A` as citext, `1 day` and `24 hours`.
fn compares_otherwise(pg_type: &PgType) -> bool {
    match &pg_type.kind {
        Kind::Float4 | Kind::Float8 | Kind::Char(_) | Kind::Other | Kind::Jsonb | Kind::Numeric(None) => true,
        Kind::Text => !matches!(pg_type.sql.as_str(), "text" | "name"),
        Kind::Array(item) => compares_otherwise(item),
        _ => false,
    }
}

impl Unique {
    fn into_unique_key(self) -> UniqueKey {
        UniqueKey { name: self.name, columns: self.columns, partial: self.partial }
    }
}

impl Key {
    fn into_foreign_key(self) -> ForeignKey {
        ForeignKey {
            name: Some(self.name),
            columns: self.columns,
            parent: self.table.into_table_name(),
            parent_columns: self.other_columns,
            on_delete: action(self.on_delete),
            on_update: action(self.on_update),
        }
    }

    fn into_reference(self) -> Reference {
        Reference {
            child: self.table.into_table_name(),
            columns: self.columns,
            on_delete: action(self.on_delete),
            on_update: action(self.on_update),
        }
    }
}

fn action(code: char) -> Action {
    match code {
        'c' => Action::Cascade,
        'n' | 'd' => Action::Set,
        _ => Action::Refuse,
    }
}
