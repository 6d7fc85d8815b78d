//! The types of PostgreSQL's columns, as Barge knows them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, TimeUnit};
use barge_core::store::DescribedColumn;
use postgres_types::Type;

/// A column's type: how values travel, and what a cast to it is called.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PgType {
    /// How values are encoded.
    pub(crate) kind: Kind,
    /// The type's name as SQL, with its modifiers: `numeric(10,2)`, `"Mood"`.
    pub(crate) sql: String,
    /// The collation as SQL, where it isn't the type's own: by it values compare.
    pub(crate) collation: Option<String>,
}

/// How values of a type are encoded.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// With precision and scale, where the type says them.
    Numeric(Option<(u32, i32)>),
    /// `text`, `xml`, `name`, `citext`: text without a bound.
    Text,
    /// At most so many characters, where the type says it.
    Varchar(Option<u32>),
    /// Padded with blanks to so many characters; `bpchar` has no bound, and blanks at its end mean nothing either.
    Char(u32),
    Bytea,
    Date,
    /// With so many digits of a second, at most 6.
    Time(u32),
    Timestamp(u32),
    Timestamptz(u32),
    Uuid,
    Json,
    Jsonb,
    /// A label among the type's own.
    Enum,
    /// One dimension of another type.
    Array(Box<PgType>),
    /// A type that travels as text, with a cast: inet, interval, ranges and whatever else there is.
    Other,
}

/// The digits of a second where the type doesn't say them.
const SECOND_DIGITS: u32 = 6;

impl PgType {
    /// The type of a described column: by the type beneath where that is told (domains, enums), else by the declared one.
    pub(crate) fn of(column: &DescribedColumn) -> PgType {
        let kind = Kind::parse(column.base_type.as_deref().unwrap_or(&column.declared_type));
        PgType { kind, sql: column.declared_type.clone(), collation: column.collation.clone() }
    }

    /// What follows a value so that it compares as the column does.
    pub(crate) fn collate(&self) -> String {
        self.collation.as_ref().map(|collation| format!(" COLLATE {collation}")).unwrap_or_default()
    }

    /// The type of a name as `format_type` writes it.
    pub(crate) fn parse(type_name: &str) -> PgType {
        PgType { kind: Kind::parse(type_name), sql: type_name.to_owned(), collation: None }
    }

    /// The type in which a column is best read. A numeric that no Decimal128 holds is read as text.
    pub(crate) fn arrow_type(&self) -> DataType {
        match &self.kind {
            Kind::Bool => DataType::Boolean,
            Kind::Int2 => DataType::Int16,
            Kind::Int4 => DataType::Int32,
            Kind::Int8 => DataType::Int64,
            Kind::Float4 => DataType::Float32,
            Kind::Float8 => DataType::Float64,
            &Kind::Numeric(Some((precision, scale)))
                if (1..=u32::from(DECIMAL128_MAX_PRECISION)).contains(&precision)
                    && (0..=precision as i32).contains(&scale) =>
            {
                DataType::Decimal128(precision as u8, scale as i8)
            }
            Kind::Bytea => DataType::Binary,
            Kind::Date => DataType::Date32,
            Kind::Time(_) => DataType::Time64(TimeUnit::Microsecond),
            Kind::Timestamp(_) => DataType::Timestamp(TimeUnit::Microsecond, None),
            Kind::Timestamptz(_) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Kind::Uuid => DataType::FixedSizeBinary(16),
            Kind::Array(item) => DataType::List(Arc::new(item.field(Field::LIST_FIELD_DEFAULT_NAME))),
            Kind::Numeric(_)
            | Kind::Text
            | Kind::Varchar(_)
            | Kind::Char(_)
            | Kind::Json
            | Kind::Jsonb
            | Kind::Enum
            | Kind::Other => DataType::Utf8,
        }
    }

    /// The nullable field in which a column is best read, with the extension type of UUIDs and JSON.
    pub(crate) fn field(&self, name: &str) -> Field {
        let field = Field::new(name, self.arrow_type(), true);
        let extension = match self.kind {
            Kind::Uuid => "arrow.uuid",
            Kind::Json | Kind::Jsonb => "arrow.json",
            _ => return field,
        };
        field.with_metadata(HashMap::from([("ARROW:extension:name".to_owned(), extension.to_owned())]))
    }

    /// The type a value has in a parameter; a cast to the column's own follows. A list travels as the text of an array
    /// literal: UNNEST would take an array of arrays apart down to the elements.
    pub(crate) fn parameter_type(&self) -> Type {
        match self.kind {
            Kind::Bool => Type::BOOL,
            Kind::Int2 => Type::INT2,
            Kind::Int4 => Type::INT4,
            Kind::Int8 => Type::INT8,
            Kind::Float4 => Type::FLOAT4,
            Kind::Float8 => Type::FLOAT8,
            Kind::Numeric(_) => Type::NUMERIC,
            Kind::Bytea => Type::BYTEA,
            Kind::Date => Type::DATE,
            Kind::Time(_) => Type::TIME,
            Kind::Timestamp(_) => Type::TIMESTAMP,
            Kind::Timestamptz(_) => Type::TIMESTAMPTZ,
            Kind::Uuid => Type::UUID,
            Kind::Json => Type::JSON,
            Kind::Jsonb => Type::JSONB,
            Kind::Text | Kind::Varchar(_) | Kind::Char(_) | Kind::Enum | Kind::Array(_) | Kind::Other => {
                Type::TEXT
            }
        }
    }

    /// The array type of [`parameter_type`](Self::parameter_type).
    pub(crate) fn parameter_array_type(&self) -> Type {
        match self.kind {
            Kind::Bool => Type::BOOL_ARRAY,
            Kind::Int2 => Type::INT2_ARRAY,
            Kind::Int4 => Type::INT4_ARRAY,
            Kind::Int8 => Type::INT8_ARRAY,
            Kind::Float4 => Type::FLOAT4_ARRAY,
            Kind::Float8 => Type::FLOAT8_ARRAY,
            Kind::Numeric(_) => Type::NUMERIC_ARRAY,
            Kind::Bytea => Type::BYTEA_ARRAY,
            Kind::Date => Type::DATE_ARRAY,
            Kind::Time(_) => Type::TIME_ARRAY,
            Kind::Timestamp(_) => Type::TIMESTAMP_ARRAY,
            Kind::Timestamptz(_) => Type::TIMESTAMPTZ_ARRAY,
            Kind::Uuid => Type::UUID_ARRAY,
            Kind::Json => Type::JSON_ARRAY,
            Kind::Jsonb => Type::JSONB_ARRAY,
            Kind::Text | Kind::Varchar(_) | Kind::Char(_) | Kind::Enum | Kind::Array(_) | Kind::Other => {
                Type::TEXT_ARRAY
            }
        }
    }

    /// Whether binary COPY can carry it. What travels as text with a cast can't, and an array names the number of its
    /// elements' type, which is known for built-in types only.
    pub(crate) fn copies(&self) -> bool {
        match &self.kind {
            Kind::Other => false,
            Kind::Array(item) => item.element_type().is_some(),
            _ => true,
        }
    }

    /// The type that a binary array names for elements of this type, where it is a built-in one.
    pub(crate) fn element_type(&self) -> Option<Type> {
        Some(match &self.kind {
            Kind::Text => match self.sql.as_str() {
                "text" => Type::TEXT,
                "name" => Type::NAME,
                "xml" => Type::XML,
                _ => return None,
            },
            Kind::Varchar(_) => Type::VARCHAR,
            Kind::Char(_) => Type::BPCHAR,
            Kind::Enum | Kind::Array(_) | Kind::Other => return None,
            _ => self.parameter_type(),
        })
    }
}

impl PgType {
    /// The type itself, where it is one of PostgreSQL's own with a binary form known here, and no domain or enum.
    pub(crate) fn built_in(&self) -> Option<Type> {
        if Kind::parse(&self.sql) != self.kind {
            return None;
        }
        let Kind::Array(item) = &self.kind else { return self.element_type() };
        Some(match item.element_type()? {
            Type::NAME => Type::NAME_ARRAY,
            Type::XML => Type::XML_ARRAY,
            Type::VARCHAR => Type::VARCHAR_ARRAY,
            Type::BPCHAR => Type::BPCHAR_ARRAY,
            _ => item.parameter_array_type(),
        })
    }
}

impl Kind {
    /// The kind of a type's name as `format_type` writes it, or of the word `enum`.
    pub(crate) fn parse(type_name: &str) -> Kind {
        let type_name = type_name.trim();
        if let Some(item) = type_name.strip_suffix("[]") {
            return Kind::Array(Box::new(PgType::parse(item)));
        }
        let Some((name, modifiers)) = split_modifiers(type_name) else { return Kind::Other };
        let first = modifiers.first().copied();
        let digits = || first.map_or(SECOND_DIGITS, |digits| digits.clamp(0, 6) as u32);
        let length = || first.and_then(|length| u32::try_from(length).ok());
        match name.as_str() {
            "boolean" | "bool" => Kind::Bool,
            "smallint" | "int2" => Kind::Int2,
            "integer" | "int" | "int4" => Kind::Int4,
            "bigint" | "int8" => Kind::Int8,
            "real" | "float4" => Kind::Float4,
            "double precision" | "float8" => Kind::Float8,
            "numeric" | "decimal" => Kind::Numeric(first.and_then(|precision| {
                let scale = modifiers.get(1).copied().unwrap_or(0);
                Some((u32::try_from(precision).ok()?, scale))
            })),
            "text" | "name" | "xml" => Kind::Text,
            "bpchar" => Kind::Char(length().unwrap_or(u32::MAX)),
            "character varying" | "varchar" => Kind::Varchar(length()),
            "character" | "char" => Kind::Char(length().unwrap_or(1)),
            "bytea" => Kind::Bytea,
            "date" => Kind::Date,
            "time" | "time without time zone" => Kind::Time(digits()),
            "timestamp" | "timestamp without time zone" => Kind::Timestamp(digits()),
            "timestamptz" | "timestamp with time zone" => Kind::Timestamptz(digits()),
            "uuid" => Kind::Uuid,
            "json" => Kind::Json,
            "jsonb" => Kind::Jsonb,
            "enum" => Kind::Enum,
            // An extension's type is written with its schema where the search path doesn't have it.
            name if name == "citext" || name.ends_with(".citext") => Kind::Text,
            _ => Kind::Other,
        }
    }
}

/// A type's name without its modifiers, which stand at the end (`numeric(10,2)`) or in the middle (`timestamp(3) with time
/// zone`), and the modifiers. Nothing where what stands in the brackets is no list of numbers.
fn split_modifiers(type_name: &str) -> Option<(String, Vec<i32>)> {
    if type_name.starts_with('"') {
        return Some((type_name.to_owned(), Vec::new()));
    }
    let Some((before, rest)) = type_name.split_once('(') else {
        return Some((type_name.to_owned(), Vec::new()));
    };
    let (inside, after) = rest.split_once(')')?;
    let modifiers = inside.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>()?;
    Some((format!("{}{after}", before.trim_end()), modifiers))
}

#[cfg(test)]
mod tests {
    use barge_core::record::{is_json, is_uuid};

    use super::*;

    #[test]
    fn kinds_are_read_from_the_names_that_the_server_writes() {
        let cases = [
            ("boolean", Kind::Bool),
            ("smallint", Kind::Int2),
            ("double precision", Kind::Float8),
            ("numeric", Kind::Numeric(None)),
            ("numeric(10,2)", Kind::Numeric(Some((10, 2)))),
            ("numeric(5,0)", Kind::Numeric(Some((5, 0)))),
            ("numeric(3,-2)", Kind::Numeric(Some((3, -2)))),
            ("character varying", Kind::Varchar(None)),
            ("character varying(20)", Kind::Varchar(Some(20))),
            ("character(3)", Kind::Char(3)),
            ("character", Kind::Char(1)),
            ("bpchar", Kind::Char(u32::MAX)),
            ("citext", Kind::Text),
            ("public.citext", Kind::Text),
            ("time without time zone", Kind::Time(6)),
            ("time(0) without time zone", Kind::Time(0)),
            ("time with time zone", Kind::Other),
            ("timestamp(3) with time zone", Kind::Timestamptz(3)),
            ("timestamp without time zone", Kind::Timestamp(6)),
            ("interval day to second(3)", Kind::Other),
            ("bit varying(5)", Kind::Other),
            ("geometry(Point,4326)", Kind::Other),
            ("\"char\"", Kind::Other),
            ("\"numeric(3)\"", Kind::Other),
            ("other.integer", Kind::Other),
            ("oid", Kind::Other),
            ("enum", Kind::Enum),
            ("", Kind::Other),
        ];
        for (name, kind) in cases {
            assert_eq!(Kind::parse(name), kind, "{name}");
        }
        let Kind::Array(item) = Kind::parse("numeric(10,2)[]") else { panic!("no array") };
        assert_eq!((item.sql.as_str(), &item.kind), ("numeric(10,2)", &Kind::Numeric(Some((10, 2)))));
    }

    #[test]
    fn columns_are_read_in_types_that_hold_every_value() {
        let read = |name: &str| PgType::parse(name).arrow_type();
        assert_eq!(read("numeric(38,10)"), DataType::Decimal128(38, 10));
        for text in
            ["numeric", "numeric(39,2)", "numeric(3,-2)", "numeric(3,5)", "inet", "enum", "character(3)"]
        {
            assert_eq!(read(text), DataType::Utf8, "{text}");
        }
        assert!(is_uuid(&PgType::parse("uuid").field("x")));
        assert!(is_json(&PgType::parse("jsonb").field("x")));
        let DataType::List(item) = read("uuid[]") else { panic!("no list") };
        assert!(is_uuid(&item) && item.is_nullable());
    }

    #[test]
    fn copy_carries_what_has_a_binary_form_known_here() {
        for name in ["integer", "citext", "enum", "numeric[]", "character varying(3)[]", "xml[]"] {
            assert!(PgType::parse(name).copies(), "{name}");
        }
        for name in ["inet", "inet[]", "citext[]", "enum[]", "\"char\""] {
            assert!(!PgType::parse(name).copies(), "{name}");
        }
    }
}
