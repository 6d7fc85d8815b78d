//! What a record says about its table, and how its rows are appended.

use barge::arrow::array::{Array, AsArray};
use barge::arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use barge::record::{Columns, Role, Table, batch_of};
use barge::{ErrorKind, FromRow, Record};
use chrono::{DateTime, NaiveDateTime, TimeZone, Utc};

#[derive(Record, FromRow, Debug, Clone, PartialEq)]
#[record(table = "tasks")]
struct Task {
    #[record(key)]
    id: i64,
    task_type: String,
    data: serde_json::Value,
    #[record(created_at)]
    created_at: Option<DateTime<Utc>>,
}

#[derive(Record)]
#[record(table = "tasks")]
struct TaskDone<'a> {
    #[record(key)]
    id: i64,
    status: &'a str,
    #[record(updated_at)]
    updated_at: Option<NaiveDateTime>,
}

fn columns(table: &Table) -> Vec<(&str, DataType, bool, Role)> {
    let columns = table.columns().iter();
    columns
        .map(|column| {
            (column.name(), column.field.data_type().clone(), column.field.is_nullable(), column.role)
        })
        .collect()
}

#[test]
fn a_record_says_its_table() {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    assert_eq!(Task::table().name().to_string(), "tasks");
    assert_eq!(
        columns(Task::table()),
        [
            ("id", DataType::Int64, false, Role::Key),
            ("task_type", DataType::Utf8, false, Role::Plain),
            ("data", DataType::Utf8, false, Role::Plain),
            ("created_at", utc, true, Role::CreatedAt),
        ]
    );
    assert!(barge::record::is_json(&Task::table().columns()[2].field));
    assert!(std::ptr::eq(Task::table(), <&Task as Record>::table()));
}

#[test]
fn a_partial_update_has_only_its_own_columns() {
    let naive = DataType::Timestamp(TimeUnit::Microsecond, None);
    assert_eq!(
        columns(TaskDone::table()),
        [
            ("id", DataType::Int64, false, Role::Key),
            ("status", DataType::Utf8, false, Role::Plain),
            ("updated_at", naive, true, Role::UpdatedAt),
        ]
    );
    // Records of any lifetime share one set of builders, as the writer finds them by their type.
    fn columns_of<R: Record>(_: &R) -> std::any::TypeId {
        std::any::TypeId::of::<R::Columns>()
    }
    let text = String::from("COMPLETED");
    let borrowed = TaskDone { id: 1, status: &text, updated_at: None };
    let literal = TaskDone { id: 1, status: "COMPLETED", updated_at: None };
    assert_eq!(columns_of(&borrowed), columns_of(&literal));
    assert_eq!(columns_of(&borrowed), columns_of(&&literal));
}

#[test]
fn a_table_may_live_in_a_schema_and_a_dot_belongs_to_the_name() {
    #[derive(Record)]
    #[record(schema = "app", table = "a.b \"c\"")]
    struct Row {
        value: i32,
    }

    let name = Row::table().name();
    assert_eq!((name.schema(), name.name()), (Some("app"), "a.b \"c\""));
    assert_eq!(name.quoted(), r#""app"."a.b ""c""""#);
    assert!(Row::table().key().is_empty());
    assert_eq!(batch_of(&[Row { value: 7 }]).unwrap().num_rows(), 1);
}

#[test]
fn keys_may_span_columns_or_be_drawn_by_the_database() {
    #[derive(Record)]
    #[record(table = "prices")]
    struct Price<'a> {
        close: f64,
        #[record(key)]
        symbol: &'a str,
        #[record(key)]
        date: chrono::NaiveDate,
    }
    assert_eq!(Price::table().key(), [1, 2]);

    #[derive(Record)]
    #[record(table = "events")]
    struct Event {
        #[record(key, generated)]
        id: Option<i64>,
        name: String,
    }
    let id = &Event::table().columns()[0];
    assert_eq!((id.role, id.field.is_nullable()), (Role::GeneratedKey, true));
    let rows = [Event { id: None, name: "a".into() }, Event { id: Some(5), name: "b".into() }];
    let batch = batch_of(&rows).unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [None, Some(5)]);
    let price = Price { close: 1.5, symbol: "A", date: chrono::NaiveDate::MIN };
    assert_eq!(batch_of(&[price]).unwrap_err().column(), Some("date"));
}

#[test]
fn an_alias_of_an_option_is_seen_for_what_it_is() {
    type Id = Option<i64>;
    type Time = Option<DateTime<Utc>>;

    #[derive(Record)]
    #[record(table = "events")]
    struct Event {
        #[record(key, generated)]
        id: Id,
        #[record(updated_at)]
        at: Time,
    }
    assert_eq!(Event::table().columns()[0].role, Role::GeneratedKey);
    let batch = batch_of(&[Event { id: None, at: None }]).unwrap();
    assert_eq!((batch.column(0).null_count(), batch.column(1).null_count()), (1, 0));
}

#[test]
fn names_are_renamed_one_by_one_or_all() {
    #[derive(Record, FromRow, Debug, PartialEq)]
    #[record(table = "t", rename_all = "camelCase")]
    struct Row {
        first_name: i32,
        #[record(rename = "Straße \"x\" from")]
        other: i32,
        r#type: i32,
        #[record(skip)]
        skipped: Option<std::rc::Rc<str>>,
    }

    let row = Row { first_name: 1, other: 2, r#type: 3, skipped: Some("kept out".into()) };
    let names: Vec<&str> = Row::table().columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["firstName", "Straße \"x\" from", "type"]);
    let back = Row::from_batch(&batch_of(&[row]).unwrap()).unwrap();
    assert_eq!(back, [Row { first_name: 1, other: 2, r#type: 3, skipped: None }]);
}

#[test]
fn times_are_filled_in_where_the_row_has_none_and_kept_where_it_has_one() {
    let given = Utc.with_ymd_and_hms(2001, 2, 3, 4, 5, 6).unwrap();
    let task = |created_at| Task { id: 1, task_type: "a".into(), data: serde_json::json!(null), created_at };
    let before = Utc::now().timestamp_micros();
    let batch = batch_of(&[task(None), task(Some(given)), task(None)]).unwrap();
    let after = Utc::now().timestamp_micros();
    let times = batch.column(3).as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.null_count(), 0);
    assert_eq!(times.value(1), given.timestamp_micros());
    assert!((before..=after).contains(&times.value(0)));
    assert_eq!(times.value(0), times.value(2), "one time for a whole batch");
    assert_eq!(batch.schema(), *Task::table().schema());

    let done = TaskDone { id: 1, status: "s", updated_at: None };
    let batch = batch_of(&[done]).unwrap();
    let filled = batch.column(2).as_primitive::<TimestampMicrosecondType>().value(0);
    assert!((before..=Utc::now().timestamp_micros()).contains(&filled));
}

#[test]
fn a_row_whose_last_field_is_invalid_leaves_the_builders_untouched() {
    #[derive(Record)]
    #[record(table = "entries")]
    struct Entry<'a> {
        id: i64,
        tags: &'a [&'a str],
        #[record(decimal(4, 2))]
        amount: rust_decimal::Decimal,
    }

    let entry = |id, amount: &str| Entry { id, tags: &["a", "b"], amount: amount.parse().unwrap() };
    let mut columns = <Entry as Record>::Columns::with_capacity(4);
    entry(1, "99.99").append(&mut columns).unwrap();
    let error = entry(2, "100.00").append(&mut columns).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    assert_eq!((error.table(), error.column(), error.row()), (Some("entries"), Some("amount"), None));
    assert!(error.message().contains("100"), "{error}");
    entry(3, "-0.01").append(&mut columns).unwrap();
    let arrays = columns.finish();
    assert_eq!(arrays.iter().map(|array| array.len()).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(arrays[0].as_primitive::<Int64Type>().values(), &[1, 3]);
    assert_eq!(arrays[1].as_list::<i32>().value_offsets(), [0, 2, 4]);

    // The builders are empty now and can be used again.
    entry(4, "1").append(&mut columns).unwrap();
    let arrays = columns.finish();
    assert_eq!(arrays.iter().map(|array| array.len()).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(arrays[1].as_list::<i32>().value_offsets(), [0, 2]);

    let error = batch_of(&[entry(1, "1"), entry(2, "0.001")]).unwrap_err();
    assert_eq!((error.row(), error.column()), (Some(1), Some("amount")));
}

#[test]
fn append_says_the_rows_size() {
    #[derive(Record)]
    #[record(table = "t")]
    struct Row<'a> {
        number: i64,
        text: &'a str,
        none: Option<&'a [u8]>,
    }

    let mut columns = <Row as Record>::Columns::with_capacity(1);
    let row = Row { number: 1, text: "twelve bytes", none: None };
    assert_eq!(row.append(&mut columns).unwrap(), 8 + (12 + 4) + 1);
    let row = Row { number: 1, text: "", none: Some(&[0; 100]) };
    assert_eq!(row.append(&mut columns).unwrap(), 8 + 4 + (100 + 4));
}
