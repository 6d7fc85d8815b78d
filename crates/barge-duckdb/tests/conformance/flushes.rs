//! Random flushes into DuckDB, against the model.
