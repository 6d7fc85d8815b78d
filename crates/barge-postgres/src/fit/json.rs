//! JSON that PostgreSQL takes and gives back equal.
//!
//! A `json` keeps its text. A `jsonb` is taken apart: it holds no NUL and no half of a surrogate pair, and its numbers become
//! numerics, which know neither exponents nor a minus before zero. So `1e16` would come back as an integer and `-0` as `0`,
//! which are other values to a program; such numbers are sent with a point instead, which a numeric keeps.

use serde::de::IgnoredAny;

/// serde_json reads no deeper nested arrays and objects, and the server's stack has an end too.
const DEPTH_MAX: usize = 127;
/// Beyond this exponent a number is infinite or zero to a program.
const EXPONENT_MAX: i64 = 400;
/// Digits after the point that a numeric holds.
const FRACTION_DIGITS_MAX: usize = 16_383;
/// No number with fewer characters and without an exponent is too large for a double.
const FINITE_LENGTH: usize = 300;

/// Why a document can't be stored.
type Misfit = String;

/// Checks that the text is JSON, nested no deeper than can be read back.
pub(super) fn check(text: &str) -> Result<(), Misfit> {
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("no JSON: {error}"))?;
    Scan::of(text).run(|_| Ok(()))
}

/// What to send for a document in a `jsonb` column; nothing where it can go as it is. The text is JSON.
pub(super) fn for_jsonb(text: &str) -> Result<Option<String>, Misfit> {
    let (mut written, mut copied) = (String::new(), 0);
    Scan::of(text).run(|token| match token {
        Token::Escape(place) => check_escape(text, place),
        Token::Number(start, number) => {
            if let Some(other) = plain_number(number)? {
                written.push_str(&text[copied..start]);
                written.push_str(&other);
                copied = start + number.len();
            }
            Ok(())
        }
    })?;
    if copied == 0 {
        return Ok(None);
    }
    written.push_str(&text[copied..]);
    Ok(Some(written))
}

/// A part of a document that needs a look, and where it begins.
enum Token<'a> {
    /// A `\u` in a string.
    Escape(usize),
    Number(usize, &'a str),
}

/// One pass over a document's bytes. It takes any text, and finds nothing of use in one that is no JSON.
struct Scan<'a> {
    text: &'a str,
    place: usize,
}

impl<'a> Scan<'a> {
    fn of(text: &'a str) -> Self {
        Scan { text, place: 0 }
    }

    fn run(mut self, mut found: impl FnMut(Token<'a>) -> Result<(), Misfit>) -> Result<(), Misfit> {
        let bytes = self.text.as_bytes();
        let mut depth = 0_usize;
        while let Some(byte) = bytes.get(self.place) {
            match byte {
                b'"' => self.string(&mut found)?,
                b'-' | b'0'..=b'9' => {
                    let start = self.place;
                    let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                    self.place += bytes[start..].iter().take_while(is_part).count();
                    found(Token::Number(start, &self.text[start..self.place]))?;
                    continue;
                }
                b'[' | b'{' => {
                    depth += 1;
                    if depth > DEPTH_MAX {
                        return Err(format!(
                            "the JSON is nested deeper than {DEPTH_MAX} levels, beyond which it can't be read back"
                        ));
                    }
                }
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.place += 1;
        }
        Ok(())
    }

    /// Goes on to the quote that ends a string.
    fn string(&mut self, found: &mut impl FnMut(Token<'a>) -> Result<(), Misfit>) -> Result<(), Misfit> {
        let bytes = self.text.as_bytes();
        self.place += 1;
        while let Some(byte) = bytes.get(self.place) {
            match byte {
                b'"' => return Ok(()),
                b'\\' => {
                    if bytes.get(self.place + 1) == Some(&b'u') {
                        found(Token::Escape(self.place))?;
                    }
                    // What is escaped may be a backslash or a quote.
                    self.place += 2;
                }
                _ => self.place += 1,
            }
        }
        Ok(())
    }
}

/// Refuses the escapes of what a `jsonb` can't hold: NUL, and one half of a surrogate pair without the other.
fn check_escape(text: &str, place: usize) -> Result<(), Misfit> {
    let unit = |place: usize| {
        let digits = text.get(place..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let high = |unit: u16| (0xD800..0xDC00).contains(&unit);
    let low = |unit: u16| (0xDC00..0xE000).contains(&unit);
    let is_paired = |here: u16| match here {
        here if high(here) => unit(place + 6).is_some_and(low),
        here if low(here) => place.checked_sub(6).and_then(unit).is_some_and(high),
        _ => true,
    };
    match unit(place) {
        Some(0) => Err("the JSON holds \\u0000, which jsonb has no place for".into()),
        Some(unit) if !is_paired(unit) => Err(format!(
            "the JSON holds \\u{unit:04x}, one half of a character, which jsonb has no place for"
        )),
        _ => Ok(()),
    }
}

/// How a number has to be written so that a numeric keeps it: nothing where it can stay.
fn plain_number(number: &str) -> Result<Option<String>, Misfit> {
    if number == "-0" {
        return Ok(Some("-0.0".into()));
    }
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else {
        let fraction = number.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let is_finite = number.len() < FINITE_LENGTH || number.parse().is_ok_and(f64::is_finite);
        return match is_finite && fraction <= FRACTION_DIGITS_MAX {
            true => Ok(None),
            false => Err(too_large(number)),
        };
    };
    let is_finite = number.parse().is_ok_and(f64::is_finite);
    let exponent: i64 = exponent.parse().ok().filter(|_| is_finite).ok_or_else(|| too_large(number))?;
    if exponent.abs() > EXPONENT_MAX || mantissa.len() > FINITE_LENGTH {
        return Err(too_large(number));
    }
    let (sign, unsigned) = match mantissa.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", mantissa),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut point = whole.len() as i64 + exponent;
    if point < 1 {
        digits.insert_str(0, &"0".repeat((1 - point) as usize));
        point = 1;
    }
    let point = point as usize;
    if point >= digits.len() {
        digits.push_str(&"0".repeat(point - digits.len() + 1));
    }
    let zeros = digits[..point - 1].bytes().take_while(|digit| *digit == b'0').count();
    Ok(Some(format!("{sign}{}.{}", &digits[zeros..point], &digits[point..])))
}

fn too_large(number: &str) -> Misfit {
    let shown: String = number.chars().take(60).collect();
    format!("the JSON holds the number {shown}, which can't be read back")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_a_jsonb_keeps_goes_as_it_is() {
        for text in [
            r#"{"a": [1, -2.50, "\u0041\ud83d\ude00\\u0000 \"1e5\"", null]}"#,
            "18446744073709551616",
            "\"-0\"",
            "-0.0",
            "",
            "\"\\",
            "[\"open",
        ] {
            assert_eq!(for_jsonb(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_a_jsonb_has_no_place_for_is_refused() {
        let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
        let long = "9".repeat(400);
        for text in
            [r#""\u0000""#, r#""\ud800""#, r#""\udc00\ud800""#, "1e400", "1E+131073", "1e-500", &deep, &long]
        {
            assert!(for_jsonb(text).is_err(), "{text}");
        }
        assert!(check("{").is_err());
        assert!(check(&deep).is_err());
        assert_eq!(check("[1e5]"), Ok(()));
    }

    #[test]
    fn numbers_that_a_numeric_would_change_are_written_with_a_point() {
        for (text, sent) in [
            ("-0", "-0.0"),
            ("1e16", "10000000000000000.0"),
            ("[1.5E+3,-2e-3]", "[1500.0,-0.002]"),
            ("{\"e\":1.25e1}", "{\"e\":12.5}"),
            ("0e5", "0.0"),
            ("0.00012e2", "0.012"),
        ] {
            assert_eq!(for_jsonb(text).unwrap().as_deref(), Some(sent), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_number_written_anew_is_the_same_value(number in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?[eE][+-]?[0-9]{1,2}") {
            let other = plain_number(&number).unwrap().unwrap();
            let (one, other): (Value, Value) =
                (serde_json::from_str(&number).unwrap(), serde_json::from_str(&other).unwrap());
            prop_assert_eq!(one, other);
        }
    }
}
