//! Arrow memory in DuckDB's hands. To be run under the address sanitizer too: freed memory is overwritten there, so that values read
//! from it come out wrong.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

use super::*;

fn connection() -> Arc<Handle> {
    Handle::connect(&Arc::new(Database::open(None, &[]).unwrap())).unwrap()
}

/// Rows of which DuckDB copies some columns and reads others in place.
fn batch(rows: usize) -> RecordBatch {
    let flags: BooleanArray = (0..rows).map(|row| (row % 5 != 0).then_some(row % 2 == 0)).collect();
    let ids = Int64Array::from_iter_values(0..rows as i64);
    let texts: StringArray = (0..rows)
        .map(|row| (row % 7 != 0).then(|| format!("a text that is longer than twelve bytes: {row}")))
        .collect();
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows as i32).map(|row| (row % 3 != 0).then(|| (0..row % 4).map(Some).collect::<Vec<_>>())),
    );
    let columns: [(&str, ArrayRef); 4] = [
        ("flag", Arc::new(flags)),
        ("id", Arc::new(ids)),
        ("text", Arc::new(texts)),
        ("list", Arc::new(lists)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn bind(handle: &Arc<Handle>, batch: RecordBatch) -> Arc<BoundBatch> {
    Arc::new(BoundBatch::new(handle, batch).unwrap())
}

fn read(handle: &Arc<Handle>, sql: &str, bound: &Arc<BoundBatch>) -> Vec<RecordBatch> {
    let lent = handle.lend(bound);
    let mut rows = Prepared::new(handle, sql).unwrap().rows(Some(lent)).unwrap();
    std::iter::from_fn(|| rows.next().unwrap()).collect()
}

fn column<T: ArrowPrimitiveType>(batches: &[RecordBatch], place: usize) -> Vec<Option<T::Native>> {
    batches
        .iter()
        .flat_map(|batch| batch.column(place).as_primitive::<T>().iter().collect::<Vec<_>>())
        .collect()
}

fn strings(batches: &[RecordBatch], place: usize) -> Vec<Option<String>> {
    let each = |batch: &RecordBatch| -> Vec<Option<String>> {
        batch.column(place).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    };
    batches.iter().flat_map(each).collect()
}

#[test]
fn a_batch_is_read_whole_and_in_order() {
    let handle = connection();
    for rows in [0, 1, 2_047, 2_048, 2_049, 10_000] {
        let given = batch(rows);
        let sql =
            format!("SELECT id, text, flag::INTEGER, len(list)::BIGINT FROM {}", handle.batch_relation());
        let bound = bind(&handle, given.clone());
        let found = read(&handle, &sql, &bound);
        assert_eq!(column::<Int64Type>(&found, 0), (0..rows as i64).map(Some).collect::<Vec<_>>());
        let texts: Vec<Option<String>> =
            given.column(2).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
        assert_eq!(strings(&found, 1), texts);
        let flags: Vec<Option<i32>> =
            (0..rows).map(|row| (row % 5 != 0).then_some(i32::from(row % 2 == 0))).collect();
        assert_eq!(column::<Int32Type>(&found, 2), flags);
        let lengths: Vec<Option<i64>> =
            (0..rows as i64).map(|row| (row % 3 != 0).then_some(row % 4)).collect();
        assert_eq!(column::<Int64Type>(&found, 3), lengths);
    }
}

/// A slice begins in the middle of its buffers, and of a byte of its flags.
#[test]
fn a_slice_is_read_from_its_own_beginning() {
    let handle = connection();
    let sql = format!("SELECT id, text, flag::INTEGER FROM {}", handle.batch_relation());
    let found = read(&handle, &sql, &bind(&handle, batch(6_000).slice(1_003, 3_001)));
    assert_eq!(column::<Int64Type>(&found, 0), (1_003..4_004).map(Some).collect::<Vec<_>>());
    assert_eq!(strings(&found, 1)[5].as_deref(), None);
    assert_eq!(strings(&found, 1)[3].as_deref(), Some("a text that is longer than twelve bytes: 1006"));
    assert_eq!(column::<Int32Type>(&found, 2)[1..3], [Some(1), None]);
}

/// Sorting, grouping and joining keep vectors for longer than the scan.
#[test]
fn rows_that_are_kept_by_the_query_keep_their_values() {
    let handle = connection();
    let relation = handle.batch_relation();
    let sql = format!(
        "SELECT a.id, max(b.text) FROM {relation} AS a JOIN {relation} AS b ON a.id = b.id + 1 GROUP BY a.id ORDER BY a.id DESC LIMIT 3"
    );
    let found = read(&handle, &sql, &bind(&handle, batch(9_000)));
    assert_eq!(column::<Int64Type>(&found, 0), [8_999, 8_998, 8_997].map(Some));
    assert_eq!(strings(&found, 1)[0].as_deref(), Some("a text that is longer than twelve bytes: 8998"));
}

/// The batch goes with the last that holds it: while rows are read, the statement does.
#[test]
fn a_batch_lives_as_long_as_its_rows_are_read() {
    let handle = connection();
    let bound = bind(&handle, batch(20_001));
    let lent = handle.lend(&bound);
    let sql = format!("SELECT text FROM {}", handle.batch_relation());
    let mut rows = Prepared::new(&handle, &sql).unwrap().stream(Some(lent)).unwrap();
    let weak = Arc::downgrade(&bound);
    drop(bound);
    assert!(weak.upgrade().is_some());
    let mut last = None;
    while let Some(batch) = rows.next().unwrap() {
        last = strings(&[batch], 0).pop();
    }
    assert_eq!(last.flatten().as_deref(), Some("a text that is longer than twelve bytes: 20000"));
    drop(rows);
    assert!(weak.upgrade().is_none(), "the statement has let go of the batch");
    assert_eq!(Arc::strong_count(&handle), 1, "nothing else holds the connection");
}

#[test]
fn appended_rows_are_the_tables_own() {
    let handle = connection();
    let run = |sql: &str| Prepared::new(&handle, sql).unwrap().execute().unwrap();
    run("CREATE TABLE t(flag BOOLEAN, id BIGINT, text VARCHAR, list INTEGER[], n BIGINT DEFAULT 7)");
    let columns = ["flag", "id", "text", "list"].map(|name| c_string(name).unwrap());
    let place = |table: &str| Place::new("memory", "main", table).unwrap();
    let bound = bind(&handle, batch(5_000));
    append(&handle, &place("t"), &columns, &bound).unwrap();
    drop(bound);
    let empty = bind(&handle, batch(0));
    let found = read(&handle, "SELECT sum(id)::BIGINT, sum(n)::BIGINT, max(text) FROM t", &empty);
    assert_eq!(column::<Int64Type>(&found, 0), [Some(12_497_500)]);
    assert_eq!(column::<Int64Type>(&found, 1), [Some(35_000)]);
    assert_eq!(strings(&found, 2)[0].as_deref(), Some("a text that is longer than twelve bytes: 999"));
    let failure = append(&handle, &place("nowhere"), &columns, &bind(&handle, batch(1)));
    assert!(failure.unwrap_err().0.contains("nowhere"));
}

#[test]
fn without_a_loan_there_is_no_batch() {
    let handle = connection();
    let sql = format!("SELECT * FROM {}", handle.batch_relation());
    let failure = Prepared::new(&handle, &sql).err().unwrap();
    assert!(failure.0.contains("no batch is lent"), "{failure}");
}

/// A statement may read one batch in several places at a time.
#[test]
fn a_batch_is_scanned_by_several_threads() {
    let handle = connection();
    Prepared::new(&handle, "SET threads = 4").unwrap().execute().unwrap();
    let bound = bind(&handle, batch(100_000));
    let scan = format!("SELECT sum(id)::BIGINT AS n, max(text) AS most FROM {}", handle.batch_relation());
    let sql = vec![scan; 8].join(" UNION ALL ");
    for _ in 0..20 {
        let found = read(&handle, &sql, &bound);
        assert_eq!(column::<Int64Type>(&found, 0), vec![Some(4_999_950_000); 8]);
        let most = "a text that is longer than twelve bytes: 99999".to_owned();
        assert_eq!(strings(&found, 1), vec![Some(most); 8]);
    }
}

/// A batch holds no connection: the connection may hold the batch, by what it runs.
#[test]
fn a_stream_that_nobody_reads_lets_go_of_batch_and_connection() {
    let handle = connection();
    let bound = bind(&handle, batch(50_000));
    let weak = Arc::downgrade(&bound);
    let lent = handle.lend(&bound);
    let sql = format!("SELECT text FROM {}", handle.batch_relation());
    let mut rows = Prepared::new(&handle, &sql).unwrap().stream(Some(lent)).unwrap();
    drop(bound);
    rows.next().unwrap();
    drop(rows);
    assert!(weak.upgrade().is_none(), "the statement has let go of the batch");
    assert_eq!(Arc::strong_count(&handle), 1, "nothing else holds the connection");
}

/// Large values come in parts, each as it was; also those in lists and structs, among small ones and NULLs.
#[test]
fn streamed_rows_are_cut_by_their_bytes() {
    let handle = connection();
    let texts = "CASE WHEN range % 3 = 1 THEN NULL ELSE repeat(chr(97 + (range % 26)::INTEGER), CASE WHEN range % 10 = 0 THEN 1000000 ELSE 5 END) END";
    let values = [
        texts.to_owned(),
        format!("{texts}::BLOB"),
        format!("CASE WHEN range % 7 <> 0 THEN [{texts}, {texts}] END"),
        format!("{{'a': range, 'b': [{texts}]}}"),
        format!("[{texts}, {texts}]::VARCHAR[2]"),
        format!("MAP {{range: {texts}}}"),
    ];
    for value in values {
        let sql = format!("SELECT range AS id, {value} AS value FROM range(300)");
        let read = |rows: &mut Rows| std::iter::from_fn(|| rows.next().unwrap()).collect::<Vec<_>>();
        let parts = read(&mut Prepared::new(&handle, &sql).unwrap().stream(None).unwrap());
        let whole = read(&mut Prepared::new(&handle, &sql).unwrap().rows(None).unwrap());
        assert!(parts.len() > 3, "{value}: {} parts", parts.len());
        let bytes = |batch: &RecordBatch| -> usize {
            batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap()).sum()
        };
        assert!(parts.iter().all(|part| bytes(part) < 6 << 20), "{value}");
        let joined = |batches: &[RecordBatch]| arrow::compute::concat_batches(&batches[0].schema(), batches);
        assert_eq!(joined(&parts).unwrap(), joined(&whole).unwrap(), "{value}");
    }
}
