//! Objects: their keys become columns, their values cells.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::text::cells::{Cells, is_decodable};

/// The keys that are columns, in order.
#[derive(Debug, Default)]
pub(super) struct Keys {
    names: Vec<String>,
    index: HashMap<String, usize>,
}

/// Why an object is not a row of these columns.
pub(super) enum Mismatch {
    /// It is no object, or not a valid one.
    Invalid(String),
    /// It has another key.
    UnknownKey(String),
}

impl Keys {
    /// The keys of one object.
    pub(super) fn of(text: &str) -> Result<Keys, String> {
        let mut keys = Keys::default();
        keys.gather(text).map(|_| keys)
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Adds the keys that an object has and that are not there yet. True for the first object.
    pub(super) fn gather(&mut self, text: &str) -> Result<bool, String> {
        let first = self.names.is_empty();
        let mut found = Vec::new();
        for_each(text, |key, _| found.push(key.into_owned()))?;
        for key in found {
            if !self.index.contains_key(&key) {
                self.index.insert(key.clone(), self.names.len());
                self.names.push(key);
            }
        }
        Ok(first)
    }

    /// Whether an object has these keys and no others.
    pub(super) fn is_exactly(&self, text: &str) -> bool {
        let (mut known, mut others) = (0, 0);
        let walked = for_each(text, |key, _| {
            *(if self.index.contains_key(key.as_ref()) { &mut known } else { &mut others }) += 1;
        });
        walked.is_ok() && known == self.names.len() && others == 0
    }

    /// Adds an object's values to the cells, in the order of the columns. On a mismatch nothing is added.
    pub(super) fn push(&self, text: &str, cells: &mut Cells) -> Result<(), Mismatch> {
        let mut values: Vec<Option<&RawValue>> = vec![None; self.names.len()];
        let (mut expected, mut unknown, mut fault) = (0, None, None);
        for_each(text, |key, value| {
            // Most objects have their keys in the order of the first.
            let index = match self.names.get(expected) {
                Some(name) if *name == key => Some(expected),
                _ => self.index.get(key.as_ref()).copied(),
            };
            let Some(index) = index else {
                unknown.get_or_insert_with(|| key.into_owned());
                return;
            };
            expected = index + 1;
            if !is_decodable(value) {
                fault.get_or_insert_with(|| {
                    format!("the value of {key:?} is half of a surrogate pair, not text")
                });
            }
            if values[index].replace(value).is_some() {
                fault.get_or_insert_with(|| format!("the key {key:?} is there twice"));
            }
        })
        .map_err(Mismatch::Invalid)?;
        if let Some(key) = unknown {
            return Err(Mismatch::UnknownKey(key));
        }
        if let Some(reason) = fault {
            return Err(Mismatch::Invalid(reason));
        }
        values.into_iter().for_each(|value| cells.push_json(value));
        Ok(())
    }
}

/// Gives each key of an object with its value.
fn for_each<'de>(text: &'de str, entry: impl FnMut(Cow<'de, str>, &'de RawValue)) -> Result<(), String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let walked = deserializer.deserialize_map(Entries(entry)).and_then(|()| deserializer.end());
    walked.map_err(|error| explain(&error))
}

/// What is wrong with a line of JSON, and where.
pub(super) fn explain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let reason = message.rsplit_once(" at line ").map_or(message.as_str(), |(reason, _)| reason);
    format!("not a valid JSON object: {reason}, at byte {} of the line", error.column())
}

struct Entries<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Entries<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            (self.0)(key, map.next_value()?);
        }
        Ok(())
    }
}

/// A key, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}
