//! The derives of Barge: [`Record`], [`FromRow`] and [`TextEnum`]. Use them through the facade, `barge`.
//!
//! Their code names nothing but `::barge::…`, `::core::…` and `::std::…`, so it works beside whatever the application calls its own.

mod from_row;
mod input;
mod names;
mod record;
mod text_enum;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, parse_macro_input};

/// Makes a struct with named fields a `Record`: a row that can be written to one table.
///
/// Each field is a column of the field's name; docs/types.md lists the types a field can have. Fields may be borrowed (`&str`,
/// `Cow<'a, [u8]>`, `&[f32]`), so the struct may have lifetimes; type and constant parameters it can't have. A
/// struct with fewer columns than the table is a partial row: inserted, the database's defaults fill the rest;
/// updated, the rest stays.
///
/// A field whose value its column can't hold (a decimal with too many digits, a leap second) is refused when the row is added,
/// before any of the row's fields was taken.
///
/// # Attributes of the struct
///
/// | `#[record(…)]` | meaning |
/// |---|---|
/// | `table = "name"` | the table; required. The name is taken as it is: a dot is part of it |
/// | `schema = "name"` | the schema the table lives in (on SQLite: the attached database) |
/// | `rename_all = "rule"` | the columns' names, made from the fields' by a rule: `camelCase`, `snake_case`, `SCREAMING_SNAKE_CASE`, `PascalCase`, `kebab-case`, `lowercase`, `UPPERCASE` |
///
/// # Attributes of a field
///
/// | `#[record(…)]` | meaning |
/// |---|---|
/// | `key` | part of the key, by which update, upsert, delete and look-up find the row; never updated, never NULL. Several fields may be keys, in the order of the struct |
/// | `key, generated` | the database draws the key where the field is `None`; the field is an `Option` and the only key |
/// | `created_at` | filled with the time at which the row's batch is sealed where it is `None`; an upsert or update never overwrites it. An `Option<DateTime<Utc>>` or `Option<NaiveDateTime>` |
/// | `updated_at` | filled likewise, by every operation that writes the row |
/// | `rename = "name"` | the column's name; it wins over `rename_all` |
/// | `decimal(p, s)` | a `Decimal`'s digits: `p` in all, 1 to 38, of them `s` after the point. Without it, 28 and 10 |
/// | `skip` | the field is no column |
///
/// # Example
///
/// ```
/// use barge::Record;
/// use barge::record::{Role, batch_of};
/// use chrono::{DateTime, Utc};
/// use rust_decimal::Decimal;
///
/// #[derive(Record)]
/// #[record(schema = "shop", table = "orders")]
/// struct Order<'a> {
///     #[record(key, generated)]
///     id: Option<i64>,
///     customer: &'a str,
///     #[record(decimal(12, 2))]
///     total: Decimal,
///     #[record(rename = "type")]
///     kind: Option<&'a str>,
///     #[record(created_at)]
///     created_at: Option<DateTime<Utc>>,
///     #[record(skip)]
///     line_count: usize,
/// }
///
/// let table = Order::table();
/// assert_eq!(table.name().to_string(), "shop.orders");
/// assert_eq!(table.columns()[0].role, Role::GeneratedKey);
/// assert_eq!(table.columns()[3].name(), "type");
///
/// let mut order = Order {
///     id: None,
///     customer: "Ada",
///     total: "19.90".parse()?,
///     kind: None,
///     created_at: None,
///     line_count: 2,
/// };
/// assert_eq!(batch_of(std::slice::from_ref(&order))?.num_columns(), 5);
///
/// order.total = "0.001".parse()?; // three digits after the point, where the column has two
/// let error = batch_of(&[order]).unwrap_err();
/// assert_eq!((error.column(), error.row()), (Some("total"), Some(0)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), record::derive)
}

/// Makes a struct with named fields a `FromRow`: a row that can be read from a result.
///
/// Each field is read from the column of its name, wherever it stands; columns that no field names are left alone. A row that
/// is read owns its values, so the struct has no lifetimes. A column that may be NULL needs an `Option`.
///
/// A column of another type than the field's is cast where every value survives: an `i64` column reads as `i32` until a value
/// doesn't fit, which is an error that names column and row.
///
/// The attributes are those of [`Record`](macro@Record), so that one struct can derive both. Here `rename`, `rename_all`, `decimal` and
/// `skip` count (a skipped field is its type's `Default`); `table` isn't needed, and the others say nothing.
///
/// ```
/// use barge::record::batch_of;
/// use barge::{FromRow, Record};
///
/// #[derive(Record, FromRow, Debug, PartialEq)]
/// #[record(table = "tasks", rename_all = "camelCase")]
/// struct Task {
///     #[record(key)]
///     id: i64,
///     task_type: String,
///     data: Option<serde_json::Value>,
/// }
///
/// /// What one query wants to see of it.
/// #[derive(FromRow)]
/// struct Kind {
///     #[record(rename = "taskType")]
///     name: String,
/// }
///
/// let batch = batch_of(&[Task { id: 1, task_type: "email".into(), data: None }])?;
/// assert_eq!(Task::from_batch(&batch)?, [Task { id: 1, task_type: "email".into(), data: None }]);
/// assert_eq!(Kind::from_batch(&batch)?[0].name, "email");
/// # Ok::<(), barge::Error>(())
/// ```
#[proc_macro_derive(FromRow, attributes(record))]
pub fn derive_from_row(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), from_row::derive)
}

/// Makes an enum without fields a column type that is stored as text.
///
/// A variant's text is its name as written, unless the enum or the variant says otherwise. Reading a text that stands for no
/// variant is an `InvalidValue` error that lists the known ones. The values may stand in an `Option` and in a
/// `Vec`, and be a key. The derive adds a method `as_text(&self) -> &'static str`, as visible as the enum.
///
/// | `#[text(…)]` | on | meaning |
/// |---|---|---|
/// | `rename_all = "rule"` | the enum | makes the texts from the names: `camelCase`, `snake_case`, `SCREAMING_SNAKE_CASE`, `PascalCase`, `kebab-case`, `lowercase`, `UPPERCASE`; every capital letter of a name starts a word |
/// | `rename = "text"` | a variant | its text; it wins over `rename_all` |
///
/// ```
/// use barge::record::batch_of;
/// use barge::{FromRow, Record, TextEnum};
///
/// #[derive(TextEnum, Debug, Clone, Copy, PartialEq)]
/// #[text(rename_all = "SCREAMING_SNAKE_CASE")]
/// enum Status {
///     Pending,
///     InReview,
///     #[text(rename = "COMPLETED")]
///     Done,
/// }
///
/// #[derive(Record, FromRow)]
/// #[record(table = "tasks")]
/// struct Task {
///     status: Status,
/// }
///
/// assert_eq!(Status::InReview.as_text(), "IN_REVIEW");
/// let batch = batch_of(&[Task { status: Status::Done }])?;
/// assert_eq!(Task::from_batch(&batch)?[0].status, Status::Done);
/// # Ok::<(), barge::Error>(())
/// ```
#[proc_macro_derive(TextEnum, attributes(text))]
pub fn derive_text_enum(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), text_enum::derive)
}

fn expand(
    input: DeriveInput,
    derive: impl FnOnce(DeriveInput) -> syn::Result<proc_macro2::TokenStream>,
) -> TokenStream {
    derive(input).unwrap_or_else(Error::into_compile_error).into()
}
