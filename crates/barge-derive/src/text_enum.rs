//! `#[derive(TextEnum)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitStr, Result, Variant};

use crate::input::{Errors, local, set_text};
use crate::names::RenameAll;

pub(crate) fn derive(input: DeriveInput) -> Result<TokenStream> {
    let ident = &input.ident;
    let visibility = &input.vis;
    let (variants, texts) = variants(&input)?;
    let names = texts.join(", ");
    let (builder, array, row, other) = (local("builder"), local("array"), local("row"), local("other"));
    Ok(quote! {
        #[automatically_derived]
        impl #ident {
            /// The text that stands for the value in a column.
            #visibility const fn as_text(&self) -> &'static ::core::primitive::str {
                match self {
                    #(Self::#variants => #texts,)*
                }
            }
        }

        const _: () = {
            #[automatically_derived]
            impl ::barge::derive_support::ColumnType for #ident {
                fn data_type(
                    _: ::barge::derive_support::ColumnOptions,
                ) -> ::barge::derive_support::arrow::datatypes::DataType {
                    ::barge::derive_support::arrow::datatypes::DataType::Utf8
                }
            }

            #[automatically_derived]
            impl ::barge::derive_support::ToColumn for #ident {
                type Builder = ::barge::derive_support::TextBuilder;

                #[inline]
                fn check(&self, #builder: &Self::Builder) -> ::barge::derive_support::Result<()> {
                    ::barge::derive_support::ToColumn::check(#ident::as_text(self), #builder)
                }

                #[inline]
                fn append(&self, #builder: &mut Self::Builder) -> ::core::primitive::usize {
                    ::barge::derive_support::ToColumn::append(#ident::as_text(self), #builder)
                }
            }

            #[automatically_derived]
            impl ::barge::derive_support::FromColumn for #ident {
                type Array = ::barge::derive_support::arrow::array::StringArray;

                fn bind(
                    #array: &::barge::derive_support::arrow::array::ArrayRef,
                ) -> ::barge::derive_support::Result<Self::Array> {
                    <::std::string::String as ::barge::derive_support::FromColumn>::bind(#array)
                }

                #[inline]
                fn get(
                    #array: &Self::Array,
                    #row: ::core::primitive::usize,
                ) -> ::barge::derive_support::Result<Self> {
                    match #array.value(#row) {
                        #(#texts => ::core::result::Result::Ok(Self::#variants),)*
                        #other => ::core::result::Result::Err(
                            ::barge::derive_support::unknown_text(#other, #names),
                        ),
                    }
                }
            }

            #[automatically_derived]
            impl ::barge::derive_support::ListElement for #ident {}
        };
    })
}

/// The variants and the text of each.
fn variants(input: &DeriveInput) -> Result<(Vec<&Ident>, Vec<String>)> {
    let ident = &input.ident;
    let refuse = |problem: &str| {
        Err(Error::new(ident.span(), format!("`TextEnum` can't be derived, as `{ident}` {problem}")))
    };
    let Data::Enum(data) = &input.data else {
        return refuse("is no enum: only enums without fields are stored as text");
    };
    if data.variants.is_empty() {
        return refuse("has no variants: give it one for each text");
    }
    if !input.generics.params.is_empty() {
        return refuse("has parameters: take them away, its variants hold nothing");
    }
    let mut errors = Errors::default();
    let rename_all = errors.take(text_attribute(&input.attrs, "rename_all", "the enum")).flatten();
    let rename_all = rename_all.and_then(|literal| errors.take(RenameAll::parse(&literal)));
    let mut texts: Vec<String> = Vec::new();
    for variant in &data.variants {
        let text = errors.take(variant_text(variant, rename_all)).unwrap_or_default();
        if let Some(first) = texts.iter().position(|other| *other == text && !text.is_empty()) {
            let message = format!(
                "variant `{}` has the text \"{text}\", which variant `{}` has already: give one of them another with \
                 `#[text(rename = \"…\")]`",
                variant.ident, data.variants[first].ident
            );
            errors.say(variant.ident.span(), message);
        }
        texts.push(text);
    }
    errors.finish()?;
    Ok((data.variants.iter().map(|variant| &variant.ident).collect(), texts))
}

fn variant_text(variant: &Variant, rename_all: Option<RenameAll>) -> Result<String> {
    if !matches!(variant.fields, Fields::Unit) {
        let message = format!(
            "variant `{}` has fields, which a text can't hold: take them away, or keep the value in a column of type \
             serde_json::Value",
            variant.ident
        );
        return Err(Error::new(variant.ident.span(), message));
    }
    let renamed = text_attribute(&variant.attrs, "rename", "a variant")?;
    if let Some(literal) = renamed {
        if literal.value().is_empty() {
            let message =
                format!("variant `{}` has an empty text: say a text that stands for it", variant.ident);
            return Err(Error::new(literal.span(), message));
        }
        return Ok(literal.value());
    }
    let name = variant.ident.unraw().to_string();
    Ok(rename_all.map_or(name.clone(), |rule| rule.variant(&name)))
}

/// The value of the one attribute that `#[text(…)]` knows on this item.
fn text_attribute(attributes: &[Attribute], known: &str, item: &str) -> Result<Option<LitStr>> {
    let mut value = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("text")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident(known) {
                set_text(&mut value, &meta)
            } else {
                Err(meta.error(format!("unknown attribute: {item} takes `{known} = \"…\"`")))
            }
        })?;
    }
    Ok(value)
}
