//! Has programs of this crate find DuckDB's shared library where it was linked, or beside the program.

fn main() {
    println!("cargo::rerun-if-env-changed=DUCKDB_LIB_DIR");
    let wanted =
        std::env::var_os("CARGO_FEATURE_DUCKDB").is_some() && std::env::var_os("CARGO_CFG_UNIX").is_some();
    if wanted {
        let origin = if cfg!(target_os = "macos") { "@loader_path" } else { "$ORIGIN" };
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{origin}");
        if let Ok(directory) = std::env::var("DUCKDB_LIB_DIR") {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
        }
    }
}
