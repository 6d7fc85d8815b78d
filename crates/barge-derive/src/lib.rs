//! Derives of Barge. See the facade `barge` for the documentation.

use proc_macro::TokenStream;

/// Placeholder.
#[proc_macro_derive(Record, attributes(record))]
pub fn record(_: TokenStream) -> TokenStream {
    TokenStream::new()
}

/// Placeholder.
#[proc_macro_derive(FromRow, attributes(record))]
pub fn from_row(_: TokenStream) -> TokenStream {
    TokenStream::new()
}

/// Placeholder.
#[proc_macro_derive(TextEnum, attributes(text))]
pub fn text_enum(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
