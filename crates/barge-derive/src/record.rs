//! `#[derive(Record)]`.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{DeriveInput, Ident, Index, Result, Type};

use crate::input::{Column, Errors, Row, assumed_bounds, local};
use crate::names::RenameAll;

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let row = Row::parse(input, "Record")?;
    let mut errors = Errors::default();
    check_table(&row, &mut errors);
    check_roles(&row, &mut errors);
    errors.finish()?;

    let columns = format_ident!("__BargeColumns");
    let assertions = row.columns.iter().map(|column| {
        let (decimal, role) = (column.decimal_assertion(), role_assertion(column));
        quote!(#decimal #role)
    });
    let columns_type = columns_type(&row, &columns);
    let implementation = implementation(&row, &columns);
    Ok(quote! {
        const _: () = {
            #(#assertions)*
            #columns_type
            #implementation
        };
    })
}

fn check_table(row: &Row, errors: &mut Errors) {
    if row.table.is_some() {
        return;
    }
    let name = row.ident.unraw().to_string();
    let (span, what) = match &row.schema {
        Some(schema) => (schema.span(), "a schema but no table"),
        None => (row.ident.span(), "no table"),
    };
    let example = RenameAll::Snake.variant(&name);
    errors.say(
        span,
        format!("`{name}` has {what}: add `#[record(table = \"{example}\")]` with the table's name"),
    );
}

fn check_roles(row: &Row, errors: &mut Errors) {
    for column in &row.columns {
        check_column(row, column, errors);
    }
    for (role, place) in [
        ("created_at", (|column| column.attributes.created_at) as fn(&Column) -> Option<Span>),
        ("updated_at", |column| column.attributes.updated_at),
    ] {
        let mut with_role = row.columns.iter().filter_map(|column| Some((column, place(column)?)));
        let Some((first, _)) = with_role.next() else { continue };
        for (column, span) in with_role {
            let message = format!(
                "field `{}` is `{role}`, but field `{}` is already: keep one of them",
                column.ident, first.ident
            );
            errors.say(span, message);
        }
    }
}

fn check_column(row: &Row, column: &Column, errors: &mut Errors) {
    let (name, attributes) = (&column.ident, &column.attributes);
    let times = [("created_at", attributes.created_at), ("updated_at", attributes.updated_at)];
    if let (Some(_), Some(span)) = (attributes.created_at, attributes.updated_at) {
        errors.say(span, format!("field `{name}` is `created_at` and `updated_at`: keep one of the two"));
    }
    for (role, span) in times {
        if let (Some(span), true) = (span, attributes.key.is_some()) {
            let message = format!(
                "field `{name}` is `key` and `{role}`: a key is never filled in, so keep one of the two"
            );
            errors.say(span, message);
        }
        if span.is_some() && !column.is_option() && is_timestamp(column) {
            let message = format!(
                "field `{name}` is `{role}`, which is filled in where the row holds None: make its type an Option"
            );
            errors.say(column.ty.span(), message);
        }
    }
    if let (Some(span), None) = (attributes.generated, attributes.key) {
        let message = format!(
            "field `{name}` is `generated`, which only a key can be: write `#[record(key, generated)]`, or take it away"
        );
        errors.say(span, message);
    }
    if attributes.key.is_some() && attributes.generated.is_none() && column.is_option() {
        let message = format!(
            "the key `{name}` can't be an Option, because a key is never NULL: take the Option away, or write \
             `#[record(key, generated)]` to let the database draw the key where it is None"
        );
        errors.say(column.ty.span(), message);
    }
    if let (Some(span), Some(_)) = (attributes.generated, attributes.key) {
        let other = row.columns.iter().find(|other| other.attributes.key.is_some() && other.ident != *name);
        if let Some(other) = other {
            let message = format!(
                "the generated key `{name}` must be the only key, but field `{}` is one too: take `generated` away here, or \
                 `key` there",
                other.ident
            );
            errors.say(span, message);
        }
    }
}

/// Whether the type is written as one of the timestamps; of any other type the trait bound speaks.
fn is_timestamp(column: &Column) -> bool {
    match &column.ty {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "DateTime" || segment.ident == "NaiveDateTime"),
        _ => false,
    }
}

fn role_assertion(column: &Column) -> TokenStream {
    let (ty, attributes) = (&column.ty, &column.attributes);
    let span = ty.span();
    if attributes.generated.is_some() {
        let assert = quote_spanned!(span => ::barge::derive_support::assert_generated_key::<#ty>);
        quote!(const _: fn() = #assert;)
    } else if attributes.key.is_some() {
        let message = format!(
            "the key `{}` can't be an Option, because a key is never NULL: take the Option away, or write \
             #[record(key, generated)] to let the database draw the key where it is None",
            column.ident
        );
        quote_spanned! { span =>
            const _: () = ::core::assert!(!<#ty as ::barge::derive_support::ColumnType>::NULLABLE, #message);
        }
    } else if attributes.created_at.is_some() || attributes.updated_at.is_some() {
        let assert = quote_spanned!(span => ::barge::derive_support::assert_filled_time::<#ty>);
        quote!(const _: fn() = #assert;)
    } else {
        TokenStream::new()
    }
}

/// The builders, one a column, in the order of the fields.
fn columns_type(row: &Row, columns: &Ident) -> TokenStream {
    let visibility = &row.visibility;
    let (rows, formatter) = (local("rows"), local("formatter"));
    let name = format!("columns of {}", row.ident.unraw());
    let bounds = assumed_bounds(&row.columns, "ToColumn");
    // Here, and only here, the compiler says which field's type can't be a column.
    let builders = row.columns.iter().map(|column| {
        let ty = &column.ty;
        quote_spanned!(ty.span() => <#ty as ::barge::derive_support::ToColumn>::Builder)
    });
    let empty = row.columns.iter().map(|column| {
        let (ty, options) = (&column.ty, column.options());
        quote!(::barge::derive_support::builder::<#ty>(#options, #rows))
    });
    let index = (0..row.columns.len()).map(Index::from);
    quote! {
        // As visible as the record: the builders are part of what its `Record` says.
        #visibility struct #columns(#(#builders),*);

        #[automatically_derived]
        impl ::core::fmt::Debug for #columns {
            fn fmt(&self, #formatter: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                #formatter.write_str(#name)
            }
        }

        #[automatically_derived]
        impl ::barge::derive_support::Columns for #columns where #bounds {
            fn with_capacity(#rows: ::core::primitive::usize) -> Self {
                Self(#(#empty),*)
            }

            fn finish(&mut self) -> ::std::vec::Vec<::barge::derive_support::arrow::array::ArrayRef> {
                ::std::vec::Vec::from([
                    #(::barge::derive_support::ColumnBuilder::finish(&mut self.#index)),*
                ])
            }
        }
    }
}

/// The method that makes the table, once.
fn table(row: &Row) -> TokenStream {
    let name = match (&row.schema, &row.table) {
        (Some(schema), Some(name)) => quote!(::barge::derive_support::TableName::in_schema(#schema, #name)),
        (_, name) => quote!(::barge::derive_support::TableName::new(#name)),
    };
    let columns = row.columns.iter().map(|column| {
        let (ty, name, options, role) = (&column.ty, &column.name, column.options(), role(column));
        quote! {
            ::barge::derive_support::Column::new(::barge::derive_support::field::<#ty>(#name, #options))
                .with_role(::barge::derive_support::Role::#role)
        }
    });
    quote! {
        fn table() -> &'static ::barge::derive_support::Table {
            static __BARGE_TABLE: ::std::sync::OnceLock<::barge::derive_support::Table> =
                ::std::sync::OnceLock::new();
            __BARGE_TABLE.get_or_init(|| {
                ::barge::derive_support::table(#name, ::std::vec::Vec::from([#(#columns),*]))
            })
        }
    }
}

fn role(column: &Column) -> Ident {
    let attributes = &column.attributes;
    let role = if attributes.generated.is_some() {
        "GeneratedKey"
    } else if attributes.key.is_some() {
        "Key"
    } else if attributes.created_at.is_some() {
        "CreatedAt"
    } else if attributes.updated_at.is_some() {
        "UpdatedAt"
    } else {
        "Plain"
    };
    Ident::new(role, Span::call_site())
}

fn implementation(row: &Row, columns: &Ident) -> TokenStream {
    let ident = &row.ident;
    let bounds = assumed_bounds(&row.columns, "ToColumn");
    let mut generics = row.generics.clone();
    generics.make_where_clause();
    let (parameters, arguments, where_clause) = generics.split_for_impl();
    let own_bounds = where_clause.map(|clause| clause.predicates.iter());
    let own_bounds = own_bounds.into_iter().flatten();
    let table = table(row);
    let (builders, error) = (local("columns"), local("error"));
    let index: Vec<Index> = (0..row.columns.len()).map(Index::from).collect();
    let types: Vec<&Type> = row.columns.iter().map(|column| &column.own).collect();
    let fields: Vec<&Ident> = row.columns.iter().map(|column| &column.ident).collect();
    let names = row.columns.iter().map(|column| &column.name);
    quote! {
        #[automatically_derived]
        impl #parameters ::barge::derive_support::Record for #ident #arguments where #(#own_bounds,)* #bounds {
            type Columns = #columns;

            #table

            #[inline]
            fn append(
                &self,
                #builders: &mut Self::Columns,
            ) -> ::barge::derive_support::Result<::core::primitive::usize> {
                // All fields are checked before any is appended: a row is appended whole or not at all.
                #(
                    if let ::core::result::Result::Err(#error) =
                        <#types as ::barge::derive_support::ToColumn>::check(&self.#fields, &#builders.#index)
                    {
                        return ::core::result::Result::Err(
                            ::barge::derive_support::refused::<Self>(#error, #names),
                        );
                    }
                )*
                ::core::result::Result::Ok(
                    0 #(+ <#types as ::barge::derive_support::ToColumn>::append(
                        &self.#fields,
                        &mut #builders.#index,
                    ))*
                )
            }
        }
    }
}
