use std::io::Write;
use std::path::Path;

use barge_core::ErrorKind;
use barge_files::{Compression, Format, ReadOptions, Source};
use flate2::write::GzEncoder;

use crate::{failure, read, read_source};

fn csv(rows: usize) -> String {
    let mut content = String::from("id,text\n");
    (0..rows).for_each(|row| content += &format!("{row},text {}\n", row * 7919 % 104_729));
    content
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn open(path: &Path) -> barge_core::Result<Source> {
    Source::open(path, &ReadOptions::default())
}

#[test]
fn compression_is_seen_by_its_magic() {
    let content = csv(3000);
    let expected = read("a.csv", &content).rows();
    let (first, second) = content.as_bytes().split_at(10_000);
    let members = [gzip(first), gzip(second)].concat();
    let frames = [zstd::encode_all(first, 1).unwrap(), zstd::encode_all(second, 1).unwrap()].concat();
    for (name, bytes) in
        [("a.csv.gz", &members), ("pipe", &members), ("a.csv.zst", &frames), ("pipe", &frames)]
    {
        assert_eq!(read(name, bytes).rows(), expected, "{name}");
    }
    let source = Source::from_reader("pipe", std::io::Cursor::new(frames), &ReadOptions::default()).unwrap();
    assert_eq!((source.compression(), source.format()), (Compression::Zstd, Format::Csv));
    assert_eq!(
        failure("a.csv.gz", &content),
        "cannot read a.csv.gz: its name promises gzip, its first bytes are something else"
    );
}

#[test]
fn truncated_compression_is_told_after_the_rows_before_it() {
    let content = csv(100_000);
    let packed = [
        ("t.csv.gz", gzip(content.as_bytes())),
        ("t.csv.zst", zstd::encode_all(content.as_bytes(), 1).unwrap()),
    ];
    for (name, whole) in packed {
        let bytes = whole.len() / 2;
        let content = std::io::Cursor::new(whole[..bytes].to_vec());
        let mut source = Source::from_reader(name, content, &ReadOptions::default()).unwrap();
        let (mut rows, mut rejected) = (0, 0);
        let error = loop {
            match source.next_chunk() {
                Ok(Some(chunk)) => {
                    rows += chunk.batch.num_rows();
                    rejected += chunk.rejected.len();
                }
                Ok(None) => panic!("{name} ended without an error"),
                Err(error) => break error,
            }
        };
        assert!(rows > 10_000, "{name}: {rows}");
        assert_eq!(rejected, 0, "the line that was cut in two is not a row");
        let format = source.compression();
        assert_eq!(
            error.to_string(),
            format!(
                "{name} is truncated: its {format} data is cut off at byte {bytes} ({rows} rows were read before)"
            )
        );
        assert_eq!(error.kind(), ErrorKind::Io);
        assert_eq!(source.next_chunk().unwrap_err().to_string(), error.to_string());
    }
}

#[test]
fn data_after_a_gzip_stream_is_told_as_such() {
    for junk in [&b"x"[..], b"\0", b"id,text\n1,and more text than a gzip header has\n"] {
        let message = failure("j.csv.gz", [&gzip(csv(10).as_bytes())[..], junk].concat());
        assert_eq!(
            message,
            "j.csv.gz has data after the end of its gzip stream that is not gzip: remove that, or compress all of it \
             (10 rows were read before)"
        );
    }
}

#[test]
fn damaged_compression() {
    let mut bytes = gzip(csv(100_000).as_bytes());
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    let message = failure("d.csv.gz", bytes);
    assert!(message.starts_with("d.csv.gz is damaged: its gzip data cannot be read near byte "), "{message}");
}

#[test]
fn files_that_cannot_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing.csv");
    let error = open(&path).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read {}: there is no such file", path.display()));
    let error = open(directory.path()).unwrap_err();
    let shown = directory.path().display();
    assert_eq!(error.to_string(), format!("cannot read {shown}: it is a directory, not a file"));
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[cfg(unix)]
#[test]
fn files_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret.csv");
    std::fs::write(&path, "a\n1\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    match open(&path) {
        Err(error) => {
            assert_eq!(
                error.to_string(),
                format!("cannot read {}: this user may not read it", path.display())
            );
            assert_eq!(error.kind(), ErrorKind::Permission);
        }
        // The superuser may read everything.
        Ok(source) => assert_eq!(read_source(source).unwrap().rows(), ["1"]),
    }
}

#[test]
fn progress_ends_at_the_files_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.csv");
    std::fs::write(&path, csv(50_000)).unwrap();
    let mut source = open(&path).unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    assert_eq!(source.progress().bytes_total, Some(size));
    let mut last = 0;
    while source.next_chunk().unwrap().is_some() {
        let progress = source.progress();
        assert!(progress.bytes_read >= last && progress.bytes_read <= size);
        last = progress.bytes_read;
    }
    assert_eq!((source.progress().bytes_read, source.progress().rows_read), (size, 50_000));
}

#[test]
fn formats_are_seen_by_name_and_content() {
    for (name, format) in [
        ("a.csv", Format::Csv),
        ("a.TSV.gz", Format::Csv),
        ("a.ndjson.zst", Format::JsonLines),
        ("a.parquet", Format::Parquet),
        ("a.feather", Format::ArrowIpc),
    ] {
        assert_eq!(Format::of_name(Path::new(name)), Some(format), "{name}");
    }
    assert_eq!(Format::of_name(Path::new("-")), None);
    assert_eq!(read("pipe", " \n{\"a\": 1}\n").types, ["a: Int64"]);
    assert_eq!(read("pipe", "a\n1\n").types, ["a: Int64"]);
}
