//! Names of columns and texts of enums: as written, renamed one by one, or all by a rule.

use syn::{Error, LitStr, Result};

/// How `rename_all` turns Rust's names into others. The same rules, for the same names, as serde's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RenameAll {
    Camel,
    Snake,
    ScreamingSnake,
    Pascal,
    Kebab,
    Lower,
    Upper,
}

const RULES: [(&str, RenameAll); 7] = [
    ("camelCase", RenameAll::Camel),
    ("snake_case", RenameAll::Snake),
    ("SCREAMING_SNAKE_CASE", RenameAll::ScreamingSnake),
    ("PascalCase", RenameAll::Pascal),
    ("kebab-case", RenameAll::Kebab),
    ("lowercase", RenameAll::Lower),
    ("UPPERCASE", RenameAll::Upper),
];

impl RenameAll {
    pub(crate) fn parse(literal: &LitStr) -> Result<Self> {
        let given = literal.value();
        RULES.iter().find(|(name, _)| *name == given).map(|(_, rule)| *rule).ok_or_else(|| {
            let names: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
            let message = format!("`rename_all` knows no rule `{given}`: take one of {}", names.join(", "));
            Error::new(literal.span(), message)
        })
    }

    /// A field's name, which is snake_case.
    pub(crate) fn field(self, name: &str) -> String {
        match self {
            RenameAll::Snake => name.to_owned(),
            RenameAll::Lower => name.to_lowercase(),
            RenameAll::Upper | RenameAll::ScreamingSnake => name.to_uppercase(),
            RenameAll::Kebab => name.replace('_', "-"),
            RenameAll::Pascal => name.split('_').map(capitalized).collect(),
            RenameAll::Camel => uncapitalized(&RenameAll::Pascal.field(name)),
        }
    }

    /// A variant's or a struct's name, which is PascalCase: every capital letter starts a word.
    pub(crate) fn variant(self, name: &str) -> String {
        match self {
            RenameAll::Pascal => name.to_owned(),
            RenameAll::Lower => name.to_lowercase(),
            RenameAll::Upper => name.to_uppercase(),
            RenameAll::Camel => uncapitalized(name),
            RenameAll::Snake => words(name).join("_"),
            RenameAll::Kebab => words(name).join("-"),
            RenameAll::ScreamingSnake => words(name).join("_").to_uppercase(),
        }
    }
}

/// A name that SQL can quote: not empty, and without NUL.
pub(crate) fn sql_name(literal: &LitStr, what: &str) -> Result<String> {
    let name = literal.value();
    if name.is_empty() {
        return Err(Error::new(literal.span(), format!("the {what} is empty: give it a name")));
    }
    if name.contains('\0') {
        return Err(Error::new(literal.span(), format!("the {what} holds a NUL, which no database takes")));
    }
    Ok(name)
}

fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for letter in name.chars() {
        match words.last_mut() {
            Some(word) if !letter.is_uppercase() => word.push(letter),
            _ => words.push(letter.to_lowercase().collect()),
        }
    }
    words
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn uncapitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_variants_follow_the_rules() {
        let renamed = |name: &str| RULES.map(|(_, rule)| rule.field(name));
        assert_eq!(
            renamed("task_type"),
            ["taskType", "task_type", "TASK_TYPE", "TaskType", "task-type", "task_type", "TASK_TYPE"]
        );
        let renamed = |name: &str| RULES.map(|(_, rule)| rule.variant(name));
        assert_eq!(
            renamed("InReview"),
            ["inReview", "in_review", "IN_REVIEW", "InReview", "in-review", "inreview", "INREVIEW"]
        );
    }
}
