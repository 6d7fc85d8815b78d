//! What CSV and JSON lines share: the store of cells, types inferred from it, and columns parsed from it.

pub(crate) mod batch;
pub(crate) mod cells;
pub(crate) mod convert;
pub(crate) mod infer;
pub(crate) mod kind;
mod number;
pub(crate) mod parse;
mod temporal;
