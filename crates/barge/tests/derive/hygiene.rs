//! The derives' code works beside whatever the application calls its own.

#![allow(dead_code, non_camel_case_types, non_upper_case_globals, clippy::upper_case_acronyms)]

mod shadowed {
    #![allow(unreachable_pub)]

    // Named like what the derives' code uses.
    pub struct Result;
    pub struct Option;
    pub struct String;
    pub struct Vec;
    pub struct Ok;
    pub struct Err;
    pub struct Some;
    pub struct None;
    pub struct usize;
    pub struct bool;
    pub struct str;
    pub struct Record;
    pub struct Columns;
    pub struct Table;
    pub const columns: () = ();
    pub const row: () = ();
    pub const rows: () = ();
    pub const batch: () = ();
    pub const error: () = ();
    pub const value: () = ();
    pub const builder: () = ();
    pub const array: () = ();
    pub const other: () = ();
    pub static TABLE: () = ();

    mod core {}
    mod std {}
    mod arrow {}

    #[derive(::barge::Record, ::barge::FromRow, ::core::fmt::Debug, ::core::cmp::PartialEq)]
    #[record(table = "t")]
    pub struct Row {
        #[record(key)]
        pub columns: i64,
        pub self_: ::std::string::String,
        pub row: f64,
        pub rows: ::core::option::Option<i32>,
        pub batch: i8,
        pub error: u8,
        pub value: ::std::vec::Vec<i16>,
        pub r#type: Kind,
        pub r#match: u16,
    }

    #[derive(::barge::TextEnum, ::core::fmt::Debug, ::core::cmp::PartialEq, ::core::clone::Clone)]
    pub enum Kind {
        Ok,
        Err,
        Self_,
        r#Box,
    }
}

#[test]
fn nothing_the_user_names_is_in_the_way() {
    let row = || shadowed::Row {
        columns: 1,
        self_: "self".into(),
        row: 1.5,
        rows: Some(2),
        batch: 3,
        error: 4,
        value: vec![5, 6],
        r#type: shadowed::Kind::r#Box,
        r#match: 7,
    };
    let batch = barge::record::batch_of(&[row()]).unwrap();
    assert_eq!(<shadowed::Row as barge::FromRow>::from_batch(&batch).unwrap(), [row()]);
    let names = batch.schema();
    let names: Vec<&str> = names.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["columns", "self_", "row", "rows", "batch", "error", "value", "type", "match"]);
}

/// Types that come through a macro's `ty` fragment are wrapped in invisible delimiters.
macro_rules! row_of {
    ($name:ident { $($field:ident: $ty:ty),* }) => {
        #[derive(barge::Record)]
        #[record(table = "t")]
        struct $name<'a> {
            #[record(key, generated)]
            id: Option<i64>,
            marker: &'a str,
            $($field: $ty),*
        }
    };
}

row_of!(Wrapped { name: Option<&'a str>, count: i64 });

#[test]
fn types_may_come_from_a_macro() {
    use barge::Record;
    let names: Vec<&str> = Wrapped::table().columns().iter().map(|column| column.name()).collect();
    assert_eq!(names, ["id", "marker", "name", "count"]);
}

/// What the derives write keeps the lints that a strict library turns on.
mod strict {
    #![deny(warnings, missing_docs, missing_debug_implementations, unused_qualifications)]
    #![deny(clippy::all, clippy::pedantic)]

    /// A row.
    #[derive(barge::Record, Debug)]
    #[record(table = "t")]
    pub(crate) struct Public<'a, 'b: 'a> {
        /// One.
        pub one: &'a str,
        /// Two.
        pub two: Option<std::borrow::Cow<'b, [u8]>>,
    }

    #[derive(barge::Record, barge::FromRow, Debug)]
    #[record(table = "t")]
    pub(crate) struct Inner {
        one: Kind,
        #[record(skip)]
        two: Vec<Kind>,
    }

    #[derive(barge::TextEnum, Debug, Clone, Copy)]
    enum Kind {
        One,
    }
}

#[test]
fn a_private_enum_may_be_a_field_of_a_visible_record() {
    use barge::Record;
    assert_eq!(strict::Inner::table().columns().len(), 1);
    let public = strict::Public { one: "1", two: None };
    assert_eq!(barge::record::batch_of(&[public]).unwrap().num_columns(), 2);
}
