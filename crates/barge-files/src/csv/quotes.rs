//! Which fields of a record are quoted, and what is wrong with the quotes, from the record's text.

/// One field of a record.
pub(super) struct Field {
    pub(super) quoted: bool,
    pub(super) trouble: Option<Trouble>,
}

/// What can be wrong with a quoted field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is never closed. So many line breaks of the record come before it opens.
    Open { line_breaks: u64 },
    /// Text follows the closing quote.
    TextAfter,
}

/// The fields of a record's text, which has no line break at its end.
pub(super) fn fields(raw: &[u8], delimiter: u8, quote: Option<u8>) -> Fields<'_> {
    Fields { raw, delimiter, quote, pos: 0, finished: false }
}

/// The first field with a trouble.
pub(super) fn trouble(raw: &[u8], delimiter: u8, quote: Option<u8>) -> Option<(usize, Trouble)> {
    fields(raw, delimiter, quote).enumerate().find_map(|(index, field)| Some((index, field.trouble?)))
}

pub(super) struct Fields<'a> {
    raw: &'a [u8],
    delimiter: u8,
    quote: Option<u8>,
    pos: usize,
    finished: bool,
}

impl Fields<'_> {
    /// Moves behind the next delimiter from a place outside quotes.
    fn skip_to_next(&mut self, from: usize) {
        match memchr::memchr(self.delimiter, &self.raw[from..]) {
            Some(at) => self.pos = from + at + 1,
            None => self.finished = true,
        }
    }

    /// The place behind the closing quote of a field that opens at `pos`.
    fn close(&self, quote: u8) -> Option<usize> {
        let mut at = self.pos + 1;
        loop {
            at += memchr::memchr(quote, &self.raw[at..])? + 1;
            if self.raw.get(at) != Some(&quote) {
                return Some(at);
            }
            at += 1;
        }
    }
}

impl Iterator for Fields<'_> {
    type Item = Field;

    fn next(&mut self) -> Option<Field> {
        if self.finished {
            return None;
        }
        let Some(quote) = self.quote.filter(|quote| self.raw.get(self.pos) == Some(quote)) else {
            self.skip_to_next(self.pos);
            return Some(Field { quoted: false, trouble: None });
        };
        let trouble = match self.close(quote) {
            Some(end) => {
                let text_after = self.raw.get(end).is_some_and(|&byte| byte != self.delimiter);
                self.skip_to_next(end);
                text_after.then_some(Trouble::TextAfter)
            }
            None => {
                self.finished = true;
                let line_breaks = memchr::memchr_iter(b'\n', &self.raw[..self.pos]).count() as u64;
                Some(Trouble::Open { line_breaks })
            }
        };
        Some(Field { quoted: true, trouble })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(raw: &str) -> Vec<(bool, Option<Trouble>)> {
        fields(raw.as_bytes(), b',', Some(b'"')).map(|field| (field.quoted, field.trouble)).collect()
    }

    #[test]
    fn quoted_and_bare() {
        assert_eq!(walk(""), [(false, None)]);
        assert_eq!(walk(r#""","#), [(true, None), (false, None)]);
        assert_eq!(walk(r#"a,"b,""c""",5" pipe"#), [(false, None), (true, None), (false, None)]);
        assert_eq!(walk(r#""""#), [(true, None)]);
    }

    #[test]
    fn troubles() {
        assert_eq!(trouble(b"a,\"b\nc\",\"d", b',', Some(b'"')), Some((2, Trouble::Open { line_breaks: 1 })));
        assert_eq!(trouble(b"\"a\"\"", b',', Some(b'"')), Some((0, Trouble::Open { line_breaks: 0 })));
        assert_eq!(trouble(b"\"a\"b,c", b',', Some(b'"')), Some((0, Trouble::TextAfter)));
        assert_eq!(trouble(b"\"a", b',', None), None);
    }
}
