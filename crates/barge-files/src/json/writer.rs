//! JSON lines on the way out: an object a row, with every column, NULL among them.

use arrow::datatypes::Schema;
use barge_core::{Error, ErrorKind, Result};

use crate::text::values::{Unwritable, Values};

/// Keys that make a reader take an object for a dead letter.
const LETTER: [&str; 4] = ["barge", "table", "operation", "error"];

pub(crate) struct JsonWriter {
    /// What stands before each value: `{"id":`, then `,"name":` and so on.
    keys: Vec<Vec<u8>>,
}

impl JsonWriter {
    /// # Errors
    /// `Unsupported` where the rows would be taken for dead letters.
    pub(crate) fn new(schema: &Schema) -> Result<JsonWriter> {
        if LETTER.iter().all(|key| schema.field_with_name(key).is_ok()) {
            let message = "objects with the keys barge, table, operation and error are read as dead letters: \
                           rename one of these columns";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let key = |(index, name): (usize, &String)| {
            let mut key = vec![if index == 0 { b'{' } else { b',' }];
            serde_json::to_writer(&mut key, name).map_err(std::io::Error::from)?;
            key.push(b':');
            Ok(key)
        };
        let names = schema.fields().iter().map(|field| field.name());
        Ok(JsonWriter { keys: names.enumerate().map(key).collect::<Result<_>>()? })
    }

    /// Adds a row's line, or says of which column the value can't be written.
    pub(crate) fn row(
        &self,
        columns: &[Values],
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), (usize, Unwritable)> {
        for (index, (key, values)) in self.keys.iter().zip(columns).enumerate() {
            out.extend_from_slice(key);
            values.append_json(row, out).map_err(|reason| (index, reason))?;
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}
