//! Has this crate's tests find DuckDB's shared library where it was linked. A library can't do that for the programs that use it:
//! see docs/duckdb.md.

fn main() {
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    if let Ok(directory) = std::env::var("DUCKDB_LIB_DIR")
        && std::env::var_os("CARGO_CFG_UNIX").is_some()
    {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
