//! The engine of Barge, without any native database in it. Applications depend on the facade, `barge`.

extern crate self as barge;

mod error;

pub use error::{Error, ErrorKind, Result};
