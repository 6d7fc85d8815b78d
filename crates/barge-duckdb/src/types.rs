//! The types of DuckDB's columns, as Barge knows them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use barge_core::record::{is_json, is_uuid};
use barge_core::{Error, ErrorKind, Result};

use crate::sql::holds_lists;

/// A column's type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DuckType {
    pub(crate) kind: Kind,
    /// The type as DuckDB writes it: `DECIMAL(10,2)`, `FLOAT[3]`.
    pub(crate) sql: String,
}

/// How values of a type are handed over and read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// In an Arrow type of the same values.
    Plain(DataType),
    Uuid,
    Json,
    /// 128 bits, with a sign or without: handed over as a decimal of 38 digits.
    Huge {
        signed: bool,
    },
    /// One of these labels: handed over as text.
    Enum(Vec<String>),
    /// Any number of another type, or exactly so many.
    List(Box<DuckType>, Option<i32>),
    /// What has no Rust type of its own (STRUCT, MAP, INTERVAL, BIT, …): handed over and read as DuckDB writes it.
    Other,
}

/// The digits of a decimal that stands for 128 bits.
const HUGE: DataType = DataType::Decimal128(38, 0);

impl DuckType {
    /// The type of a name as DuckDB writes it.
    pub(crate) fn parse(sql: &str) -> DuckType {
        DuckType { kind: Kind::parse(sql), sql: sql.to_owned() }
    }

    /// The type of a column for a field's values.
    ///
    /// # Errors
    /// `Unsupported` where there is none.
    pub(crate) fn for_field(field: &Field) -> Result<DuckType> {
        let sql = type_name(field).ok_or_else(|| {
            let message = format!("DuckDB has no type for values of type {}", field.data_type());
            Error::new(ErrorKind::Unsupported, message)
        })?;
        Ok(DuckType::parse(&sql))
    }

    /// The type in which values are handed over, and best read.
    pub(crate) fn arrow_type(&self) -> DataType {
        match &self.kind {
            Kind::Plain(data_type) => data_type.clone(),
            Kind::Uuid => DataType::FixedSizeBinary(16),
            Kind::Huge { .. } => HUGE,
            Kind::Json | Kind::Enum(_) | Kind::Other => DataType::Utf8,
            Kind::List(item, length) => {
                let item = Arc::new(item.field(Field::LIST_FIELD_DEFAULT_NAME));
                match length {
                    Some(length) => DataType::FixedSizeList(item, *length),
                    None => DataType::List(item),
                }
            }
        }
    }

    /// The extension type of what is read.
    pub(crate) fn extension(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Uuid => Some("arrow.uuid"),
            Kind::Json => Some("arrow.json"),
            _ => None,
        }
    }

    /// The nullable field in which values are handed over, and best read.
    pub(crate) fn field(&self, name: &str) -> Field {
        let field = Field::new(name, self.arrow_type(), true);
        match self.extension() {
            Some(extension) => {
                let name = ("ARROW:extension:name".to_owned(), extension.to_owned());
                field.with_metadata(HashMap::from([name]))
            }
            None => field,
        }
    }

    /// Whether what is handed over has the column's own type, so that it needs no cast to compare as the column does.
    pub(crate) fn is_handed_over(&self) -> bool {
        match &self.kind {
            Kind::Plain(_) | Kind::Uuid | Kind::Json => true,
            Kind::Huge { .. } | Kind::Enum(_) | Kind::Other => false,
            Kind::List(item, _) => item.is_handed_over(),
        }
    }

    /// Whether values are text that a collation may compare.
    pub(crate) fn is_text(&self) -> bool {
        self.kind == Kind::Plain(DataType::Utf8)
    }

    /// Whether equal keys may differ in their bytes: 0.0 and −0.0 are one key, and so are one month and 30 days.
    pub(crate) fn is_loosely_equal(&self) -> bool {
        match &self.kind {
            Kind::Plain(data_type) => data_type.is_floating(),
            Kind::List(item, _) => item.is_loosely_equal(),
            Kind::Other => true,
            _ => false,
        }
    }

    /// Whether DuckDB changes such a column by deleting the row and inserting it again.
    pub(crate) fn is_updated_by_replacing(&self) -> bool {
        match self.kind {
            Kind::List(..) => true,
            Kind::Other => holds_lists(&self.sql),
            _ => false,
        }
    }
}

impl Kind {
    fn parse(sql: &str) -> Kind {
        let plain = |data_type| Kind::Plain(data_type);
        if let Some((item, length)) = list_parts(sql) {
            let item = DuckType::parse(item);
            // Lists of what has no Arrow type here are read as DuckDB writes them.
            return match item.kind {
                Kind::Other | Kind::List(..) => Kind::Other,
                _ => Kind::List(Box::new(item), length),
            };
        }
        if let Some(labels) = sql.strip_prefix("ENUM(").and_then(|rest| rest.strip_suffix(')')) {
            return Kind::Enum(enum_labels(labels));
        }
        if let Some(digits) = sql.strip_prefix("DECIMAL(").and_then(|rest| rest.strip_suffix(')')) {
            let digits = digits.split_once(',');
            let digits = digits.and_then(|(precision, scale)| {
                Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))
            });
            return digits
                .map_or(Kind::Other, |(precision, scale)| plain(DataType::Decimal128(precision, scale)));
        }
        let timestamp = |unit| plain(DataType::Timestamp(unit, None));
        match sql {
            "BOOLEAN" => plain(DataType::Boolean),
            "TINYINT" => plain(DataType::Int8),
            "SMALLINT" => plain(DataType::Int16),
            "INTEGER" => plain(DataType::Int32),
            "BIGINT" => plain(DataType::Int64),
            "UTINYINT" => plain(DataType::UInt8),
            "USMALLINT" => plain(DataType::UInt16),
            "UINTEGER" => plain(DataType::UInt32),
            "UBIGINT" => plain(DataType::UInt64),
            "HUGEINT" => Kind::Huge { signed: true },
            "UHUGEINT" => Kind::Huge { signed: false },
            "FLOAT" => plain(DataType::Float32),
            "DOUBLE" => plain(DataType::Float64),
            "VARCHAR" => plain(DataType::Utf8),
            "BLOB" => plain(DataType::Binary),
            "DATE" => plain(DataType::Date32),
            "TIME" => plain(DataType::Time64(TimeUnit::Microsecond)),
            "TIMESTAMP" => timestamp(TimeUnit::Microsecond),
            "TIMESTAMP_S" => timestamp(TimeUnit::Second),
            "TIMESTAMP_MS" => timestamp(TimeUnit::Millisecond),
            "TIMESTAMP_NS" => timestamp(TimeUnit::Nanosecond),
            "TIMESTAMP WITH TIME ZONE" => {
                plain(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
            }
            "UUID" => Kind::Uuid,
            "JSON" => Kind::Json,
            _ => Kind::Other,
        }
    }
}

/// `T[]` and `T[3]` as `T` and the length.
fn list_parts(sql: &str) -> Option<(&str, Option<i32>)> {
    let (item, length) = sql.strip_suffix(']')?.rsplit_once('[')?;
    match length {
        "" => Some((item, None)),
        length => Some((item, Some(length.parse().ok()?))),
    }
}

/// `'a', 'it''s'` as its labels.
fn enum_labels(list: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut rest = list;
    while let Some(begin) = rest.find('\'') {
        let mut label = String::new();
        rest = &rest[begin + 1..];
        while let Some(end) = rest.find('\'') {
            label.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('\'') {
                Some(after) => {
                    label.push('\'');
                    rest = after;
                }
                None => break,
            }
        }
        labels.push(label);
    }
    labels
}

/// The name of the type that `create_table` gives a field's column.
fn type_name(field: &Field) -> Option<String> {
    use DataType::*;
    let name = match field.data_type() {
        _ if is_uuid(field) => "UUID",
        _ if is_json(field) => "JSON",
        Boolean => "BOOLEAN",
        Int8 => "TINYINT",
        Int16 => "SMALLINT",
        Int32 => "INTEGER",
        Int64 => "BIGINT",
        UInt8 => "UTINYINT",
        UInt16 => "USMALLINT",
        UInt32 => "UINTEGER",
        UInt64 => "UBIGINT",
        Float16 | Float32 => "FLOAT",
        Float64 => "DOUBLE",
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale)
            if (0..=*precision as i8).contains(scale) =>
        {
            return Some(format!("DECIMAL({precision},{scale})"));
        }
        Utf8 | LargeUtf8 | Utf8View | Null => "VARCHAR",
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => "BLOB",
        Date32 | Date64 => "DATE",
        Time64(TimeUnit::Nanosecond) => "TIME_NS",
        Time32(_) | Time64(_) => "TIME",
        Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP_NS",
        Timestamp(_, None) => "TIMESTAMP",
        Dictionary(_, value) => return type_name(&field.clone().with_data_type(value.as_ref().clone())),
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) => {
            return Some(format!("{}[]", item_name(item)?));
        }
        FixedSizeList(item, length) => return Some(format!("{}[{length}]", item_name(item)?)),
        _ => return None,
    };
    Some(name.to_owned())
}

/// The same for the items of a list, which are no lists.
fn item_name(item: &Field) -> Option<String> {
    if item.data_type().is_nested() { None } else { type_name(item) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_from_the_names_that_duckdb_writes() {
        let kind = |sql: &str| DuckType::parse(sql).kind;
        assert_eq!(kind("DECIMAL(10,2)"), Kind::Plain(DataType::Decimal128(10, 2)));
        assert_eq!(kind("UHUGEINT"), Kind::Huge { signed: false });
        assert_eq!(
            kind("ENUM('a', 'it''s', '', 'x,y)')"),
            Kind::Enum(["a", "it's", "", "x,y)"].map(String::from).into())
        );
        assert!(matches!(kind("FLOAT[3]"), Kind::List(item, Some(3)) if item.sql == "FLOAT"));
        assert!(matches!(kind("DECIMAL(4,1)[]"), Kind::List(item, None) if item.sql == "DECIMAL(4,1)"));
        for other in
            ["STRUCT(a INTEGER)", "INTEGER[][]", "MAP(INTEGER, VARCHAR)", "STRUCT(a INTEGER)[]", "BIT"]
        {
            assert_eq!(kind(other), Kind::Other, "{other}");
        }
    }

    #[test]
    fn a_fields_own_type_holds_its_values() {
        let fields = [
            DataType::UInt64,
            DataType::Int8,
            DataType::Decimal128(38, 10),
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), 4),
            DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        ];
        for data_type in fields {
            let field = Field::new("x", data_type.clone(), true);
            assert_eq!(DuckType::for_field(&field).unwrap().arrow_type(), data_type);
        }
        let lists = DataType::new_list(DataType::new_list(DataType::Int8, true), true);
        assert_eq!(
            DuckType::for_field(&Field::new("x", lists, true)).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }
}
