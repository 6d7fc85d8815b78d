//! SQLite's type affinity: what a column does to the values put in it.

/// The affinity of a column, by the rules of <https://www.sqlite.org/datatype3.html>, section 3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Affinity {
    /// Leaves every value as it is.
    #[default]
    Blob,
    /// Turns numbers into text.
    Text,
    /// Turns text that looks like a number into one, and whole reals into integers.
    Numeric,
    /// As `Numeric`.
    Integer,
    /// As `Numeric`, and integers into reals.
    Real,
}

impl Affinity {
    /// The affinity of a declared type.
    pub(crate) fn of(declared: &str) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |words: &[&str]| words.iter().any(|word| declared.contains(word));
        if has(&["INT"]) {
            Affinity::Integer
        } else if has(&["CHAR", "CLOB", "TEXT"]) {
            Affinity::Text
        } else if has(&["BLOB"]) || declared.is_empty() {
            Affinity::Blob
        } else if has(&["REAL", "FLOA", "DOUB"]) {
            Affinity::Real
        } else {
            Affinity::Numeric
        }
    }

    /// Whether it turns text that looks like a number into a number.
    pub(crate) fn is_numeric(self) -> bool {
        matches!(self, Affinity::Numeric | Affinity::Integer | Affinity::Real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_follows_the_declared_type() {
        let cases = [
            ("BIGINT UNSIGNED", Affinity::Integer),
            ("CHARINT", Affinity::Integer),
            ("varchar(20)", Affinity::Text),
            ("BLOB", Affinity::Blob),
            ("", Affinity::Blob),
            ("DOUBLE PRECISION", Affinity::Real),
            ("DECIMAL(20,4)", Affinity::Numeric),
            ("STRING", Affinity::Numeric),
            ("BOOLEAN", Affinity::Numeric),
        ];
        for (declared, affinity) in cases {
            assert_eq!(Affinity::of(declared), affinity, "{declared}");
        }
    }
}
