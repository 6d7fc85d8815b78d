struct Task {
    id: i64,
}

fn read(batch: &barge::arrow::array::RecordBatch) -> barge::Result<Vec<Task>> {
    barge::FromRow::from_batch(batch)
}

fn main() {
    let _ = barge::record::batch_of(&[Task { id: 1 }]);
}
