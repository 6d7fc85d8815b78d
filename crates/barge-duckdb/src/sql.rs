//! SQL text: names as statements write them, and what DuckDB's catalog writes, taken apart.

use barge_core::TableName;
use barge_core::record::quote;

/// The schema that tables are in where nothing else is said.
pub(crate) const MAIN: &str = "main";

/// Text as an SQL literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A table's whole name, which means the same whatever a session's `USE` says, and whatever else is called like a part of it.
pub(crate) fn qualified(catalog: &str, table: &TableName) -> String {
    let schema = table.schema().unwrap_or(MAIN);
    format!("{}.{}.{}", quote(catalog), quote(schema), quote(table.name()))
}

/// A piece of SQL text.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Piece<'a> {
    /// What stands in quotes, with them: a text or a name.
    Quoted(&'a str),
    Word(&'a str),
    Sign(char),
}

/// The pieces of a text, without the space between them, and where each begins.
fn pieces(text: &str) -> impl Iterator<Item = (usize, Piece<'_>)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let end = match first {
            '\'' | '"' => quoted_end(rest, first),
            first if is_word(first) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
            first => first.len_utf8(),
        };
        let (begin, (own, after)) = (text.len() - rest.len(), rest.split_at(end));
        rest = after;
        let piece = match first {
            '\'' | '"' => Piece::Quoted(own),
            first if is_word(first) => Piece::Word(own),
            first => Piece::Sign(first),
        };
        Some((begin, piece))
    })
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The end of a quoted part at the beginning of a text; two quotes within it are one.
fn quoted_end(text: &str, mark: char) -> usize {
    let mut from = 1;
    while let Some(place) = text[from..].find(mark) {
        from += place + 1;
        if !text[from..].starts_with(mark) {
            return from;
        }
        from += 1;
    }
    text.len()
}

/// The name in a quoted or bare identifier.
pub(crate) fn unquoted(identifier: &str) -> String {
    match identifier.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => identifier.to_owned(),
    }
}

/// Whether an expression names a column, or anything else by that name.
pub(crate) fn names(expression: &str, column: &str) -> bool {
    pieces(expression).any(|(_, piece)| match piece {
        Piece::Word(word) => word.eq_ignore_ascii_case(column),
        Piece::Quoted(name) => name.starts_with('"') && unquoted(name).eq_ignore_ascii_case(column),
        Piece::Sign(_) => false,
    })
}

/// Whether a type's name has a list in it, of any kind: `INTEGER[]`, `MAP(…)`, `UNION(…)`, and the same inside a STRUCT.
pub(crate) fn holds_lists(type_name: &str) -> bool {
    let mut last = "";
    pieces(type_name).any(|(_, piece)| match piece {
        Piece::Word(word) => {
            last = word;
            word == "VARIANT"
        }
        Piece::Sign('(') => matches!(last, "MAP" | "UNION"),
        Piece::Sign('[') => true,
        _ => {
            last = "";
            false
        }
    })
}

/// Whether a type's name has a UNION in it. A value's text doesn't say of which member it is.
pub(crate) fn holds_unions(type_name: &str) -> bool {
    let mut last = "";
    pieces(type_name).any(|(_, piece)| match piece {
        Piece::Sign('(') => last == "UNION",
        Piece::Word(word) => {
            last = word;
            false
        }
        _ => {
            last = "";
            false
        }
    })
}

/// The definitions between the parentheses of a CREATE TABLE: the first name of each, and what comes after it.
pub(crate) fn definitions(create: &str) -> Vec<(String, &str)> {
    let mut definitions = Vec::new();
    let mut depth = 0;
    // Where the definition begins that is read now, and its first name's end.
    let mut begun: Option<(String, usize)> = None;
    for (place, piece) in pieces(create) {
        let ends = match piece {
            Piece::Sign('(' | '[' | '{') => {
                depth += 1;
                false
            }
            Piece::Sign(')' | ']' | '}') => {
                depth -= 1;
                depth == 0
            }
            Piece::Sign(',') => depth == 1,
            Piece::Word(name) | Piece::Quoted(name) if depth == 1 && begun.is_none() => {
                begun = Some((unquoted(name), place + name.len()));
                false
            }
            _ => false,
        };
        if ends && let Some((name, begin)) = begun.take() {
            definitions.push((name, create[begin..place].trim()));
        }
        if ends && depth == 0 {
            break;
        }
    }
    definitions
}

/// What follows some words in a definition, outside parentheses and quotes.
pub(crate) fn after_words<'a>(definition: &'a str, words: &[&str]) -> Option<&'a str> {
    let mut depth = 0;
    let mut found = 0;
    for (place, piece) in pieces(definition) {
        match piece {
            Piece::Sign('(' | '[' | '{') => depth += 1,
            Piece::Sign(')' | ']' | '}') => depth -= 1,
            Piece::Word(word) if depth == 0 && word.eq_ignore_ascii_case(words[found]) => {
                found += 1;
                if found == words.len() {
                    return Some(definition[place + word.len()..].trim_start());
                }
                continue;
            }
            _ => {}
        }
        found = 0;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_names_whole_columns_only() {
        for (expression, column, expected) in [
            ("lower(email)", "EMAIL", true),
            ("lower(email_old)", "email", false),
            ("lower('email')", "email", false),
            ("(\"e mail\" || 'it''s email')", "e mail", true),
            ("(\"a\"\"b\" + 1)", "a\"b", true),
            ("(a + 'b", "b", false),
        ] {
            assert_eq!(names(expression, column), expected, "{expression}");
        }
    }

    #[test]
    fn a_tables_definitions_are_told_apart() {
        let create = "CREATE TABLE t(id BIGINT DEFAULT(nextval('a, b')), \"x, y\" VARCHAR COLLATE NOCASE, s STRUCT(id INTEGER, note VARCHAR) NOT NULL, \
                      d DECIMAL(10,2) GENERATED ALWAYS AS((id + 1)), PRIMARY KEY(id));";
        let found = definitions(create);
        let names: Vec<&str> = found.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["id", "x, y", "s", "d", "PRIMARY"]);
        assert_eq!(after_words(found[1].1, &["COLLATE"]), Some("NOCASE"));
        assert!(after_words(found[3].1, &["GENERATED", "ALWAYS", "AS"]).is_some());
        assert!(after_words(found[2].1, &["INTEGER"]).is_none());
    }

    #[test]
    fn lists_are_found_inside_types() {
        for (name, expected) in [
            ("INTEGER[]", true),
            ("STRUCT(a INTEGER, b VARCHAR[3])", true),
            ("MAP(INTEGER, VARCHAR)", true),
            ("STRUCT(u UNION(a INTEGER))", true),
            ("STRUCT(map INTEGER, \"x[]\" VARCHAR)", false),
            ("STRUCT(a ENUM('MAP(', '[]'), b DECIMAL(10,2))", false),
            ("INTERVAL", false),
        ] {
            assert_eq!(holds_lists(name), expected, "{name}");
        }
    }

    #[test]
    fn unions_are_found_in_types() {
        for (type_name, found) in [
            ("UNION(num INTEGER, str VARCHAR)", true),
            ("STRUCT(a INTEGER, u UNION(b DATE))[]", true),
            ("STRUCT(\"UNION\" INTEGER)", false),
            ("MAP(VARCHAR, INTEGER)", false),
        ] {
            assert_eq!(holds_unions(type_name), found, "{type_name}");
        }
    }
}
