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

/// Derives `Record`.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), record::derive)
}

/// Derives `FromRow`.
#[proc_macro_derive(FromRow, attributes(record))]
pub fn derive_from_row(input: TokenStream) -> TokenStream {
    expand(parse_macro_input!(input), from_row::derive)
}

/// Derives `TextEnum`.
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
