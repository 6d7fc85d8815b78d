//! What CSV and JSON lines share: the store of cells, types inferred from it, and columns parsed from it; and on the way out, values as
//! text.

pub(crate) mod batch;
pub(crate) mod cells;
pub(crate) mod convert;
pub(crate) mod infer;
pub(crate) mod kind;
pub(crate) mod lines;
mod number;
pub(crate) mod parse;
mod temporal;
pub(crate) mod values;
