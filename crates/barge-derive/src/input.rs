//! What a struct with `#[record(…)]` attributes says, checked as far as tokens allow: the one reading that `Record` and
//! `FromRow` share.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::visit_mut::VisitMut;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, GenericArgument, GenericParam, Generics, Ident,
    Lifetime, LitInt, LitStr, PathArguments, PathSegment, Result, Token, Type, TypeBareFn, Visibility,
    parenthesized,
};

use crate::names::{RenameAll, sql_name};

/// A struct whose fields are columns.
pub(crate) struct Row {
    pub(crate) visibility: Visibility,
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) table: Option<LitStr>,
    pub(crate) schema: Option<LitStr>,
    /// The fields that are columns, in the order of the struct.
    pub(crate) columns: Vec<Column>,
    /// The fields that aren't.
    pub(crate) skipped: Vec<Ident>,
}

/// A field that is a column.
pub(crate) struct Column {
    pub(crate) ident: Ident,
    /// The field's type as written, with the struct's lifetimes.
    pub(crate) own: Type,
    /// The field's type with every lifetime replaced by `'static`, so that it can be named outside the struct.
    pub(crate) ty: Type,
    pub(crate) name: String,
    pub(crate) attributes: FieldAttributes,
}

/// A field's attributes, each with the place where it was written.
#[derive(Default)]
pub(crate) struct FieldAttributes {
    pub(crate) key: Option<Span>,
    pub(crate) generated: Option<Span>,
    pub(crate) created_at: Option<Span>,
    pub(crate) updated_at: Option<Span>,
    pub(crate) decimal: Option<(Span, u8, i8)>,
    skip: Option<Span>,
    rename: Option<LitStr>,
}

const STRUCT_ATTRIBUTES: &str = "`table`, `schema` and `rename_all`";
const FIELD_ATTRIBUTES: &str =
    "`key`, `generated`, `created_at`, `updated_at`, `rename`, `skip` and `decimal(p, s)`";

/// Several errors shown at once, so that a user doesn't meet them one by one.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    pub(crate) fn say(&mut self, span: Span, message: impl std::fmt::Display) {
        self.push(Error::new(span, message));
    }

    /// The value, or what was wrong with it.
    pub(crate) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

impl Row {
    /// Reads the struct. `derive` is the derive's name, for messages.
    pub(crate) fn parse(input: DeriveInput, derive: &str) -> Result<Self> {
        let fields = named_fields(&input, derive)?;
        let mut errors = Errors::default();
        refuse_parameters(&input, derive, &mut errors);
        let (table, schema, rename_all) = struct_attributes(&input.attrs, &mut errors);
        let mut row = Row {
            visibility: input.vis,
            ident: input.ident,
            generics: input.generics,
            table,
            schema,
            columns: Vec::new(),
            skipped: Vec::new(),
        };
        let mut names = Vec::new();
        for field in fields {
            let Some(ident) = field.ident.clone() else { continue };
            let Some(attributes) = errors.take(FieldAttributes::parse(&field)) else { continue };
            if attributes.skip.is_some() {
                row.skipped.push(ident);
                continue;
            }
            let (name, span) = match &attributes.rename {
                Some(literal) => (errors.take(sql_name(literal, "column's name")), literal.span()),
                None => {
                    let name = ident.unraw().to_string();
                    (Some(rename_all.map_or(name.clone(), |rule| rule.field(&name))), ident.span())
                }
            };
            let Some(name) = name else { continue };
            if inside_option(&field.ty).and_then(option_of).is_some() {
                let message = format!(
                    "field `{ident}` is an Option of an Option, but a column has only one NULL: take one away"
                );
                errors.say(field.ty.span(), message);
            }
            names.push(span);
            row.columns.push(Column { ident, ty: static_type(&field.ty), own: field.ty, name, attributes });
        }
        row.check_names(&names, &mut errors);
        errors.finish()?;
        Ok(row)
    }

    fn check_names(&self, spans: &[Span], errors: &mut Errors) {
        for (index, column) in self.columns.iter().enumerate() {
            if let Some(first) = self.columns[..index].iter().find(|first| first.name == column.name) {
                let message = format!(
                    "field `{}` has the column name `{}`, which field `{}` has already: give one of them another name with \
                     `#[record(rename = \"…\")]`",
                    column.ident, column.name, first.ident
                );
                errors.say(spans[index], message);
            }
            if column.name.eq_ignore_ascii_case("_ordinal") {
                let message = format!(
                    "field `{}` has the column name `_ordinal`, by which Barge counts the rows of a batch: give it another \
                     name with `#[record(rename = \"…\")]`",
                    column.ident
                );
                errors.say(spans[index], message);
            }
        }
        if self.columns.is_empty() && errors.0.is_none() {
            let message =
                format!("`{}` has no columns: give it at least one field that isn't skipped", self.ident);
            errors.say(self.ident.span(), message);
        }
    }
}

impl Column {
    /// `ColumnOptions` with what the attributes say.
    pub(crate) fn options(&self) -> TokenStream {
        let decimal = match self.attributes.decimal {
            Some((_, precision, scale)) => quote!(::core::option::Option::Some((#precision, #scale))),
            None => quote!(::core::option::Option::None),
        };
        quote!(::barge::derive_support::ColumnOptions { decimal: #decimal })
    }

    /// An item that fails to compile where a `decimal` is none: tokens alone can't see through a type alias.
    pub(crate) fn decimal_assertion(&self) -> Option<TokenStream> {
        let (ty, (span, ..)) = (&self.ty, self.attributes.decimal?);
        let message = format!("`decimal` is for fields of type Decimal, which `{}` is not", self.ident);
        Some(quote_spanned! { span =>
            const _: () = ::core::assert!(<#ty as ::barge::derive_support::ColumnType>::DECIMAL, #message);
        })
    }

    /// Whether the type is written as an `Option`. An alias of one isn't seen.
    pub(crate) fn is_option(&self) -> bool {
        option_of(&self.ty).is_some()
    }
}

/// The last part of the path, where the type is written as an `Option`.
fn option_of(ty: &Type) -> Option<&PathSegment> {
    match ty {
        // A type from a macro's `ty` fragment comes in a group.
        Type::Group(group) => option_of(&group.elem),
        Type::Paren(paren) => option_of(&paren.elem),
        Type::Path(path) => path.path.segments.last().filter(|segment| segment.ident == "Option"),
        _ => None,
    }
}

fn inside_option(ty: &Type) -> Option<&Type> {
    match &option_of(ty)?.arguments {
        PathArguments::AngleBracketed(arguments) => match arguments.args.first()? {
            GenericArgument::Type(inner) => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

impl FieldAttributes {
    fn parse(field: &Field) -> Result<Self> {
        let mut attributes = FieldAttributes::default();
        for attribute in record_attributes(&field.attrs) {
            attribute.parse_nested_meta(|meta| attributes.read(&meta))?;
        }
        attributes.check_skip(field)?;
        Ok(attributes)
    }

    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        let span = meta.path.span();
        let word = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
        let flag = |slot: &mut Option<Span>| match slot.replace(span) {
            Some(_) => Err(meta.error(format!("`{word}` is given twice: keep one"))),
            None => Ok(()),
        };
        match word.as_str() {
            "key" => flag(&mut self.key),
            "generated" => flag(&mut self.generated),
            "created_at" => flag(&mut self.created_at),
            "updated_at" => flag(&mut self.updated_at),
            "skip" => flag(&mut self.skip),
            "rename" => set_text(&mut self.rename, meta),
            "decimal" if self.decimal.is_some() => Err(meta.error("`decimal` is given twice: keep one")),
            "decimal" => {
                let (precision, scale) = decimal(meta)?;
                self.decimal = Some((span, precision, scale));
                Ok(())
            }
            "table" | "schema" | "rename_all" => {
                Err(meta.error(format!("`{word}` belongs on the struct: a field takes {FIELD_ATTRIBUTES}")))
            }
            _ => Err(meta.error(format!("unknown attribute: a field takes {FIELD_ATTRIBUTES}"))),
        }
    }

    fn check_skip(&self, field: &Field) -> Result<()> {
        let Some(skip) = self.skip else { return Ok(()) };
        let others = [
            ("key", self.key),
            ("generated", self.generated),
            ("created_at", self.created_at),
            ("updated_at", self.updated_at),
            ("rename", self.rename.as_ref().map(LitStr::span)),
            ("decimal", self.decimal.map(|(span, ..)| span)),
        ];
        let Some((other, _)) = others.iter().find(|(_, span)| span.is_some()) else { return Ok(()) };
        let name = field.ident.as_ref().map(Ident::to_string).unwrap_or_default();
        let message = format!(
            "field `{name}` is skipped, so it is no column and `{other}` says nothing: take one of the two away"
        );
        Err(Error::new(skip, message))
    }
}

fn record_attributes(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("record"))
}

type StructAttributes = (Option<LitStr>, Option<LitStr>, Option<RenameAll>);

fn struct_attributes(attributes: &[Attribute], errors: &mut Errors) -> StructAttributes {
    let (mut table, mut schema, mut rename_all) = (None, None, None);
    for attribute in record_attributes(attributes) {
        let parsed = attribute.parse_nested_meta(|meta| {
            let word = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
            match word.as_str() {
                "table" => set_text(&mut table, &meta),
                "schema" => set_text(&mut schema, &meta),
                "rename_all" => set_text(&mut rename_all, &meta),
                "key" | "generated" | "created_at" | "updated_at" | "rename" | "skip" | "decimal" => {
                    Err(meta
                        .error(format!("`{word}` belongs on a field: the struct takes {STRUCT_ATTRIBUTES}")))
                }
                _ => Err(meta.error(format!("unknown attribute: the struct takes {STRUCT_ATTRIBUTES}"))),
            }
        });
        errors.take(parsed);
    }
    for (name, what) in [(&table, "table's name"), (&schema, "schema's name")] {
        if let Some(literal) = name {
            errors.take(sql_name(literal, what));
        }
    }
    let rename_all = rename_all.and_then(|literal| errors.take(RenameAll::parse(&literal)));
    (table, schema, rename_all)
}

/// Reads `= "text"`.
pub(crate) fn set_text(slot: &mut Option<LitStr>, meta: &ParseNestedMeta<'_>) -> Result<()> {
    let text = meta.value()?.parse::<LitStr>()?;
    match slot.replace(text) {
        Some(_) => Err(meta.error("given twice: keep one")),
        None => Ok(()),
    }
}

fn decimal(meta: &ParseNestedMeta<'_>) -> Result<(u8, i8)> {
    let usage = "say precision and scale, for example `decimal(12, 2)`";
    if !meta.input.peek(syn::token::Paren) {
        return Err(meta.error(usage));
    }
    let content;
    parenthesized!(content in meta.input);
    let numbers = Punctuated::<LitInt, Token![,]>::parse_terminated(&content)?;
    let (Some(precision), Some(scale), 2) = (numbers.first(), numbers.last(), numbers.len()) else {
        return Err(meta.error(usage));
    };
    let digits = match precision.base10_parse::<u8>() {
        Ok(digits @ 1..=38) => digits,
        _ => return Err(Error::new(precision.span(), "the precision is the number of digits, from 1 to 38")),
    };
    match scale.base10_parse::<i8>() {
        Ok(places) if places >= 0 && places as u8 <= digits => Ok((digits, places)),
        _ => {
            let message = format!(
                "the scale is the number of digits after the point, from 0 to the precision, {digits}"
            );
            Err(Error::new(scale.span(), message))
        }
    }
}

fn named_fields(input: &DeriveInput, derive: &str) -> Result<Punctuated<Field, Token![,]>> {
    let name = &input.ident;
    let problem = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => return Ok(fields.named.clone()),
            Fields::Unnamed(_) => {
                "is a tuple struct: name its fields, because each is the column of its name"
            }
            Fields::Unit => "has no fields: give it one for each column",
        },
        Data::Enum(_) => {
            "is an enum: a row is a struct with named fields, and an enum that is one column's value derives `TextEnum`"
        }
        Data::Union(_) => "is a union: a row is a struct with named fields",
    };
    Err(Error::new(name.span(), format!("`{derive}` can't be derived, as `{name}` {problem}")))
}

fn refuse_parameters(input: &DeriveInput, derive: &str, errors: &mut Errors) {
    for parameter in &input.generics.params {
        let (ident, what) = match parameter {
            GenericParam::Type(parameter) => (&parameter.ident, "type"),
            GenericParam::Const(parameter) => (&parameter.ident, "constant"),
            GenericParam::Lifetime(parameter) if derive == "FromRow" => {
                let message = format!(
                    "a row that is read owns its fields, so `{}` can't have the lifetime `{}`: take String instead of &str, \
                     Vec<u8> instead of &[u8]",
                    input.ident, parameter.lifetime
                );
                errors.say(parameter.lifetime.span(), message);
                continue;
            }
            GenericParam::Lifetime(_) => continue,
        };
        let message = format!(
            "`{}` has the {what} parameter `{ident}`, but a row's columns must be known: write a struct for each type it stands \
             for",
            input.ident
        );
        errors.say(ident.span(), message);
    }
}

/// The bounds that let a derive's code name the columns' methods.
///
/// Where a field's type can't be a column, one place in the code says so, and everything else assumes these bounds: the user
/// reads one error a field and not one for each use. A bound without parameters would itself be an error where it
/// doesn't hold; with a lifetime in front it is one only to those who use the row.
pub(crate) fn assumed_bounds(columns: &[Column], column_trait: &str) -> TokenStream {
    let column_trait = Ident::new(column_trait, Span::call_site());
    let bounds = columns
        .iter()
        .filter_map(|column| assumed(&column.own))
        .map(|ty| quote!(for<'__barge> #ty: ::barge::derive_support::#column_trait));
    quote!(#(#bounds,)*)
}

/// The type, or the one it refers to, from which its being a column follows and which has no lifetime.
fn assumed(ty: &Type) -> Option<&Type> {
    struct HasLifetime(bool);

    impl Visit<'_> for HasLifetime {
        fn visit_lifetime(&mut self, lifetime: &Lifetime) {
            self.0 |= lifetime.ident != "static";
        }
    }

    let mut has_lifetime = HasLifetime(false);
    has_lifetime.visit_type(ty);
    match ty {
        _ if !has_lifetime.0 => Some(ty),
        Type::Reference(reference) => assumed(&reference.elem),
        Type::Group(group) => assumed(&group.elem),
        Type::Paren(paren) => assumed(&paren.elem),
        _ => assumed(inside_option(ty)?),
    }
}

fn static_type(ty: &Type) -> Type {
    struct ToStatic;

    impl VisitMut for ToStatic {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            lifetime.ident = Ident::new("static", lifetime.ident.span());
        }

        fn visit_type_bare_fn_mut(&mut self, _: &mut TypeBareFn) {
            // No column type; its own lifetimes would make nonsense of the message about that.
        }
    }

    let mut ty = ty.clone();
    ToStatic.visit_type_mut(&mut ty);
    ty
}

/// A name for a local variable of the code that a derive writes: no variable, field or constant of the user's has it.
pub(crate) fn local(name: &str) -> Ident {
    Ident::new(&format!("__barge_{name}"), Span::mixed_site())
}
