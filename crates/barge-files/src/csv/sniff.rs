//! The delimiter of a CSV file.

use std::path::Path;

use csv_core::ReadRecordResult;

use crate::options::Compression;

const CANDIDATES: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Records looked at.
const RECORDS_MAX: usize = 50;

/// The delimiter that a file's name promises.
pub(super) fn by_name(path: &Path) -> Option<u8> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    let name = Compression::ENDINGS.iter().find_map(|(ending, _)| name.strip_suffix(ending)).unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "tsv" | "tab" => Some(b'\t'),
        "psv" => Some(b'|'),
        _ => None,
    }
}

/// The candidate that gives most records as many fields as the first one has, more than one; of several, the one that gives
/// more fields; a comma where none divides the first record.
pub(super) fn delimiter(sample: &[u8], quote: Option<u8>) -> u8 {
    // A record cut off by the sample's end says nothing.
    let whole = memchr::memrchr(b'\n', sample).map_or(sample, |end| &sample[..=end]);
    let score = |&delimiter: &u8| {
        let counts = field_counts(whole, delimiter, quote);
        let first = *counts.first()?;
        let same = counts.iter().filter(|&&count| count == first).count();
        (first > 1).then_some(((same * 10 / counts.len()), first))
    };
    let best = CANDIDATES.iter().rev().filter_map(|candidate| Some((score(candidate)?, *candidate)));
    best.max_by_key(|(score, _)| *score).map_or(b',', |(_, candidate)| candidate)
}

fn field_counts(sample: &[u8], delimiter: u8, quote: Option<u8>) -> Vec<usize> {
    let mut reader = super::records::core_reader(delimiter, quote);
    let (mut rest, mut counts, mut count) = (sample, Vec::new(), 0);
    let (mut values, mut ends) = ([0; 1024], [0; 64]);
    while counts.len() < RECORDS_MAX {
        let (result, read, _, ended) = reader.read_record(rest, &mut values, &mut ends);
        rest = &rest[read..];
        count += ended;
        match result {
            ReadRecordResult::Record => counts.push(std::mem::take(&mut count)),
            ReadRecordResult::End => break,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delimiters() {
        let guess = |sample: &str| delimiter(sample.as_bytes(), Some(b'"')) as char;
        assert_eq!(guess("a,b\n1,2\n"), ',');
        assert_eq!(guess("a;b\n1,5;2,5\n"), ';');
        assert_eq!(guess("a\tb, c\n1\t2\n"), '\t');
        assert_eq!(guess("a|b|c\n1|2|3"), '|');
        assert_eq!(guess("\"a;b;c\",d\n\"1;2;3\",2\n"), ',');
        assert_eq!(guess("a, b;c\n1;2\n3;4\n"), ';');
        assert_eq!(guess("alone\n1\n"), ',');
        assert_eq!(guess(""), ',');
        assert_eq!(by_name(Path::new("x.TSV.gz")), Some(b'\t'));
    }
}
