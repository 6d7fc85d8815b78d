//! Reads a file, shows its columns, the first rejected lines and how fast it went:
//! `cargo run --release -p barge-files --example read_file -- FILE`

#![allow(clippy::print_stdout)] // What an example has to say goes to the terminal.

use std::time::Instant;

use barge_files::{ReadOptions, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: read_file FILE")?;
    let start = Instant::now();
    let mut source = Source::open(path, &ReadOptions::default())?;
    for field in source.schema().fields() {
        println!("{}: {}", field.name(), field.data_type());
    }
    let (mut rows, mut rejected) = (0, 0);
    while let Some(chunk) = source.next_chunk()? {
        rows += chunk.batch.num_rows();
        for line in chunk.rejected {
            rejected += 1;
            if rejected <= 5 {
                println!("rejected: {line}");
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{rows} rows, {rejected} rejected, {seconds:.2} s, {:.0} rows/s", rows as f64 / seconds);
    Ok(())
}
