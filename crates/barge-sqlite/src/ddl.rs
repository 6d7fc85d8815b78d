//! The statement that creates a table.

use std::borrow::Cow;

use arrow::datatypes::DataType;
use barge_core::record::{Role, quote};
use barge_core::{Error, ErrorKind, Result, Table};

use crate::batch::cells::is_supported;

/// `CREATE TABLE IF NOT EXISTS …` for a record type. A single integer key becomes the row id; SQLite draws it where none is given.
pub(crate) fn create_table_sql(table: &Table) -> Result<String> {
    let key = table.key();
    let rowid = match key.as_slice() {
        [only] if table.columns()[*only].field.data_type().is_integer() => Some(*only),
        _ => None,
    };
    let mut lines = Vec::with_capacity(table.columns().len() + 1);
    for (index, column) in table.columns().iter().enumerate() {
        let fail = |message: String| {
            Error::new(ErrorKind::Unsupported, message)
                .with_table(table.name().to_string())
                .with_column(column.name())
        };
        if column.role == Role::GeneratedKey && rowid != Some(index) {
            return Err(fail("SQLite draws keys for integer columns only".into()));
        }
        let declared = declared_type(column.field.data_type())
            .ok_or_else(|| fail(format!("SQLite can't hold values of type {}", column.field.data_type())))?;
        let mut line = format!("{} {declared}", quote(column.name()));
        if column.is_key() || !column.field.is_nullable() {
            line.push_str(" NOT NULL");
        }
        if rowid == Some(index) {
            line.push_str(" PRIMARY KEY");
        }
        lines.push(line);
    }
    if rowid.is_none() && !key.is_empty() {
        let columns: Vec<String> = key.iter().map(|&index| quote(table.columns()[index].name())).collect();
        lines.push(format!("PRIMARY KEY ({})", columns.join(", ")));
    }
    Ok(format!("CREATE TABLE IF NOT EXISTS {} (\n  {}\n)", table.name().quoted(), lines.join(",\n  ")))
}

/// The declared type, chosen so that its affinity changes nothing that Barge writes, and that `describe` knows the type by it: what is
/// held as text says which text.
fn declared_type(data_type: &DataType) -> Option<Cow<'static, str>> {
    if !is_supported(data_type) {
        return None;
    }
    Some(Cow::Borrowed(match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Date32 | DataType::Date64 => "DATE_TEXT",
        DataType::Time32(_) | DataType::Time64(_) => "TIME_TEXT",
        DataType::Timestamp(_, None) => "TIMESTAMP_TEXT",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ_TEXT",
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => {
            return Some(format!("DECIMAL_TEXT({precision},{scale})").into());
        }
        DataType::Dictionary(_, value) => return declared_type(value),
        data_type if data_type.is_integer() => "INTEGER",
        data_type if data_type.is_floating() => "REAL",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BLOB",
        // A UUID is text; which fixed binaries are UUIDs the field says, and text affinity leaves blobs alone.
        DataType::FixedSizeBinary(16) => "TEXT",
        DataType::FixedSizeBinary(_) => "BLOB",
        DataType::List(item) | DataType::FixedSizeList(item, _) if item.data_type() == &DataType::Float32 => {
            "BLOB"
        }
        _ => "TEXT",
    }))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};

    use super::*;

    #[test]
    fn one_integer_key_is_the_row_id_and_others_are_a_constraint() {
        let schema = Schema::new(vec![
            Field::new("i\"d", DataType::Int32, false),
            Field::new("name", DataType::Utf8, true),
        ]);
        let table = Table::of_schema("t", &schema, &["i\"d"]).unwrap();
        assert_eq!(
            create_table_sql(&table).unwrap(),
            "CREATE TABLE IF NOT EXISTS \"t\" (\n  \"i\"\"d\" INTEGER NOT NULL PRIMARY KEY,\n  \"name\" TEXT\n)"
        );
        let table = Table::of_schema("t", &schema, &["name", "i\"d"]).unwrap();
        assert!(create_table_sql(&table).unwrap().ends_with("PRIMARY KEY (\"i\"\"d\", \"name\")\n)"));
    }

    #[test]
    fn a_type_that_sqlite_cannot_hold_is_unsupported() {
        let field = Field::new("x", DataType::Interval(arrow::datatypes::IntervalUnit::DayTime), true);
        let table = Table::of_schema("t", &Schema::new(vec![field]), &[]).unwrap();
        let error = create_table_sql(&table).unwrap_err();
        assert_eq!((error.kind(), error.column()), (ErrorKind::Unsupported, Some("x")));
    }
}
