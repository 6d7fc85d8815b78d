//! Has programs of this crate find DuckDB's shared library where it was linked.

fn main() {
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    let wanted =
        std::env::var_os("CARGO_FEATURE_DUCKDB").is_some() && std::env::var_os("CARGO_CFG_UNIX").is_some();
    if let (true, Ok(directory)) = (wanted, std::env::var("DUCKDB_LIB_DIR")) {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
