//! JSON documents, kept as their text.

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::DataType;
use serde_json::Value;

use super::scalars::{OFFSET_BYTES, check_room};
use super::{ColumnOptions, ColumnType, FromColumn, JsonBuilder, ToColumn, invalid};
use crate::Result;

impl ColumnType for Value {
    const EXTENSION: Option<&'static str> = Some("arrow.json");

    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Utf8
    }
}

impl ToColumn for Value {
    type Builder = JsonBuilder;

    fn check(&self, builder: &Self::Builder) -> Result<()> {
        let held = builder.0.values_slice().len();
        match json_size_max(self, JSON_DEPTH_MAX) {
            Some(bytes) if held + bytes <= i32::MAX as usize => Ok(()),
            Some(_) => check_room(held, self.to_string().len()),
            None => Err(invalid(format!(
                "the JSON is nested deeper than {JSON_DEPTH_MAX} levels, beyond which it can't be read back"
            ))),
        }
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        let before = builder.0.values_slice().len();
        // Writing a Value into memory fails only for maps with keys that aren't text, which Value can't hold.
        let written = serde_json::to_writer(&mut *builder, self);
        debug_assert!(written.is_ok());
        builder.0.append_value("");
        builder.0.values_slice().len() - before + OFFSET_BYTES
    }
}

/// serde_json reads no deeper nested arrays and objects.
const JSON_DEPTH_MAX: usize = 127;

/// An upper bound of the text's size in bytes; nothing where it is nested deeper than `depth`.
fn json_size_max(value: &Value, depth: usize) -> Option<usize> {
    // A byte may become an escape of six; the longest number has fewer than 32 digits.
    let text = |text: &str| text.len() * 6 + 2;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(32),
        Value::String(value) => Some(text(value)),
        Value::Array(values) => {
            let depth = depth.checked_sub(1)?;
            values.iter().try_fold(2, |sum, value| Some(sum + json_size_max(value, depth)? + 1))
        }
        Value::Object(values) => {
            let depth = depth.checked_sub(1)?;
            values
                .iter()
                .try_fold(2, |sum, (key, value)| Some(sum + text(key) + json_size_max(value, depth)? + 2))
        }
    }
}

impl FromColumn for Value {
    type Array = StringArray;

    fn bind(array: &ArrayRef) -> Result<StringArray> {
        String::bind(array)
    }

    fn get(array: &StringArray, row: usize) -> Result<Self> {
        serde_json::from_str(array.value(row)).map_err(|error| invalid(format!("no JSON: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ColumnBuilder;
    use super::*;

    #[test]
    fn json_is_appended_as_its_text() {
        let mut builder = <JsonBuilder as ColumnBuilder>::with_capacity(&DataType::Utf8, 2);
        let value = serde_json::json!({"a": [1, "é"]});
        assert_eq!(value.append(&mut builder), r#"{"a":[1,"é"]}"#.len() + OFFSET_BYTES);
        let array = ColumnBuilder::finish(&mut builder);
        let bound = <Value as FromColumn>::bind(&array).unwrap();
        assert_eq!(<Value as FromColumn>::get(&bound, 0).unwrap(), value);
    }
}
