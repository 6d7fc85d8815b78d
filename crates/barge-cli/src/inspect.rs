//! `barge tables` and `barge describe`.

use barge::Database;
use barge::TableName;
use barge::store::{Action, DescribedColumn, Description, ForeignKey, Reference, TableKind, UniqueKey};
use serde_json::{Value, json};

use crate::output::{aligned, print, shown};
use crate::table::{Named, described};
use crate::url::Url;
use crate::{Status, Stop, is_missing_table};

/// Lists tables and views.
pub(crate) async fn tables(url: &str, as_json: bool) -> Result<Status, Stop> {
    let database = Url::parse(url)?.open_to_look().await?;
    let mut found = Vec::new();
    for name in database.tables().await? {
        // A table may go between the two questions.
        match database.describe(&name).await {
            Ok(description) => found.push(description),
            Err(error) if is_missing_table(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let text = if as_json {
        let tables: Vec<Value> = found.iter().map(|table| table_json(table)).collect();
        format!("{:#}\n", Value::from(tables))
    } else {
        let rows: Vec<Vec<String>> = found
            .iter()
            .map(|table| {
                let key =
                    if table.key.is_empty() { String::new() } else { format!("key {}", list(&table.key)) };
                let columns = crate::output::counted(table.columns.len() as u64, "column");
                vec![shown(&table.name.to_string()), kind(table.kind).into(), columns, key]
            })
            .collect();
        aligned("", &rows)
    };
    print(&text)?;
    close(database).await
}

/// Describes one table.
pub(crate) async fn describe(url: &str, table: Named, as_json: bool) -> Result<Status, Stop> {
    let database = Url::parse(url)?.open_to_look().await?;
    let table = table.find(&database).await?;
    let description = described(&database, &table).await?;
    let text = if as_json {
        format!("{:#}\n", description_json(&description))
    } else {
        description_text(&description)
    };
    print(&text)?;
    close(database).await
}

async fn close(database: Database) -> Result<Status, Stop> {
    database.store().close().await?;
    Ok(Status::Done)
}

fn description_text(description: &Description) -> String {
    let mut text = format!("{} {}\n\n", kind(description.kind), shown(&description.name.to_string()));
    let header = ["column", "type", "null", "default", "notes"].map(str::to_owned).to_vec();
    let rows = description.columns.iter().map(|column| {
        vec![
            shown(&column.name),
            shown(&column.declared_type),
            if column.nullable { "yes" } else { "no" }.into(),
            shown(column.default.as_deref().unwrap_or_default()),
            notes(description, column),
        ]
    });
    text.push_str(&aligned("  ", &std::iter::once(header).chain(rows).collect::<Vec<_>>()));
    section(&mut text, "unique", description.unique.iter().map(unique_row));
    section(&mut text, "foreign keys", description.foreign_keys.iter().map(foreign_key_row));
    section(&mut text, "referenced by", description.referenced_by.iter().map(reference_row));
    section(&mut text, "triggers", description.triggers.iter().map(|name| vec![shown(name)]));
    text
}

fn section(text: &mut String, title: &str, rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        text.push_str(&format!("\n{title}\n{}", aligned("  ", &rows)));
    }
}

fn notes(description: &Description, column: &DescribedColumn) -> String {
    let mut notes = Vec::new();
    if let Some(place) = description.key.iter().position(|name| *name == column.name) {
        notes.push(match description.key.len() {
            1 => "key".to_owned(),
            _ => format!("key, {} of {}", place + 1, description.key.len()),
        });
    }
    if column.identity {
        notes.push("drawn by the database where it is not given".into());
    }
    if column.computed {
        notes.push("computed".into());
    }
    if let Some(collation) = &column.collation {
        notes.push(format!("collation {}", shown(collation)));
    }
    notes.join("; ")
}

fn unique_row(unique: &UniqueKey) -> Vec<String> {
    let columns: Vec<String> = unique
        .columns
        .iter()
        .map(|column| column.clone().unwrap_or_else(|| "an expression".into()))
        .collect();
    let partial = if unique.partial { "some rows only" } else { "" };
    vec![shown(&unique.name), list(&columns), partial.into()]
}

fn foreign_key_row(key: &ForeignKey) -> Vec<String> {
    let target = format!("{} {}", shown(&key.parent.to_string()), list(&key.parent_columns));
    vec![list(&key.columns), "→".into(), target, actions(key.on_delete, key.on_update)]
}

fn reference_row(reference: &Reference) -> Vec<String> {
    let child = shown(&reference.child.to_string());
    vec![child, "→".into(), list(&reference.columns), actions(reference.on_delete, reference.on_update)]
}

fn actions(on_delete: Action, on_update: Action) -> String {
    let named =
        |what: &str, done: Action| (done != Action::Refuse).then(|| format!("on {what} {}", action(done)));
    [named("delete", on_delete), named("update", on_update)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

fn list(columns: &[String]) -> String {
    format!("({})", columns.iter().map(|column| shown(column)).collect::<Vec<_>>().join(", "))
}

fn kind(kind: TableKind) -> &'static str {
    match kind {
        TableKind::View => "view",
        TableKind::Foreign => "foreign table",
        _ => "table",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Refuse => "refuse",
        Action::Cascade => "cascade",
        Action::Set => "set null or default",
    }
}

fn name_json(name: &TableName) -> Value {
    json!({"schema": name.schema(), "name": name.name()})
}

fn table_json(table: &Description) -> Value {
    json!({
        "schema": table.name.schema(),
        "name": table.name.name(),
        "kind": kind(table.kind),
        "columns": table.columns.len(),
        "key": table.key,
    })
}

fn description_json(description: &Description) -> Value {
    let column = |column: &DescribedColumn| {
        json!({
            "name": column.name,
            "type": column.declared_type,
            "arrow_type": column.data_type.to_string(),
            "nullable": column.nullable,
            "default": column.default,
            "key": description.key.contains(&column.name),
            "identity": column.identity,
            "computed": column.computed,
            "collation": column.collation,
        })
    };
    let unique = |unique: &UniqueKey| json!({"name": unique.name, "columns": unique.columns, "partial": unique.partial});
    let foreign_key = |key: &ForeignKey| {
        json!({
            "name": key.name,
            "columns": key.columns,
            "parent": name_json(&key.parent),
            "parent_columns": key.parent_columns,
            "on_delete": action(key.on_delete),
            "on_update": action(key.on_update),
        })
    };
    let reference = |reference: &Reference| {
        json!({
            "child": name_json(&reference.child),
            "columns": reference.columns,
            "on_delete": action(reference.on_delete),
            "on_update": action(reference.on_update),
        })
    };
    json!({
        "schema": description.name.schema(),
        "name": description.name.name(),
        "kind": kind(description.kind),
        "key": description.key,
        "columns": description.columns.iter().map(column).collect::<Vec<_>>(),
        "unique": description.unique.iter().map(unique).collect::<Vec<_>>(),
        "foreign_keys": description.foreign_keys.iter().map(foreign_key).collect::<Vec<_>>(),
        "referenced_by": description.referenced_by.iter().map(reference).collect::<Vec<_>>(),
        "triggers": description.triggers,
    })
}
