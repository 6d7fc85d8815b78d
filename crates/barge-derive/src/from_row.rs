//! `#[derive(FromRow)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Ident, Result};

use crate::input::{Row, assumed_bounds, local};

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let row = Row::parse(input, "FromRow")?;
    let ident = &row.ident;
    let decimals = row.columns.iter().map(|column| column.decimal_assertion());
    // Here, and only here, the compiler says which field's type can't be read.
    let arrays = row.columns.iter().map(|column| {
        let ty = &column.ty;
        quote_spanned!(ty.span() => <#ty as ::barge::derive_support::FromColumn>::Array)
    });
    let bounds = assumed_bounds(&row.columns, "FromColumn");
    let schema = schema(&row);
    let from_batch = from_batch(&row);
    Ok(quote! {
        const _: () = {
            #(#decimals)*

            struct __BargeArrays(#(#arrays),*);

            #[automatically_derived]
            impl ::barge::derive_support::FromRow for #ident where #bounds {
                #schema
                #from_batch
            }
        };
    })
}

fn schema(row: &Row) -> TokenStream {
    let fields = row.columns.iter().map(|column| {
        let (ty, name, options) = (&column.ty, &column.name, column.options());
        quote!(::barge::derive_support::field::<#ty>(#name, #options))
    });
    quote! {
        fn schema() -> ::barge::derive_support::arrow::datatypes::SchemaRef {
            static __BARGE_SCHEMA: ::std::sync::OnceLock<
                ::barge::derive_support::arrow::datatypes::SchemaRef
            > = ::std::sync::OnceLock::new();
            ::std::sync::Arc::clone(__BARGE_SCHEMA.get_or_init(|| {
                ::barge::derive_support::schema(::std::vec::Vec::from([#(#fields),*]))
            }))
        }
    }
}

fn from_batch(row: &Row) -> TokenStream {
    let (batch, ordinal, rows) = (local("batch"), local("row"), local("rows"));
    let (value, error) = (local("value"), local("error"));
    let arrays: Vec<Ident> = (0..row.columns.len()).map(|index| local(&format!("column_{index}"))).collect();
    let bound = row.columns.iter().map(|column| {
        let (ty, name) = (&column.ty, &column.name);
        quote!(::barge::derive_support::bind::<#ty>(#batch, #name)?)
    });
    let read = row.columns.iter().zip(&arrays).map(|(column, array)| {
        let (ty, name, field) = (&column.ty, &column.name, &column.ident);
        quote! {
            #field: match <#ty as ::barge::derive_support::FromColumn>::get(&#array, #ordinal) {
                ::core::result::Result::Ok(#value) => #value,
                ::core::result::Result::Err(#error) => {
                    return ::core::result::Result::Err(
                        ::barge::derive_support::unreadable(#error, #name, #ordinal),
                    );
                }
            }
        }
    });
    let skipped = row.skipped.iter().map(|field| quote!(#field: ::core::default::Default::default()));
    quote! {
        fn from_batch(
            #batch: &::barge::derive_support::arrow::array::RecordBatch,
        ) -> ::barge::derive_support::Result<::std::vec::Vec<Self>> {
            #(let #arrays = #bound;)*
            let mut #rows = ::std::vec::Vec::with_capacity(#batch.num_rows());
            for #ordinal in 0..#batch.num_rows() {
                #rows.push(Self { #(#read,)* #(#skipped,)* });
            }
            ::core::result::Result::Ok(#rows)
        }
    }
}
