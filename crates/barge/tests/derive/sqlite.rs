//! Lists through SQLite, which has none and keeps them as JSON: what looks alike there must not come back as another.

use barge::{Database, ErrorKind, FromRow, Record};
use serde_json::{Value, json};

#[derive(Record, FromRow, Debug, PartialEq, Clone)]
#[record(table = "lists")]
struct Lists {
    #[record(key)]
    id: i64,
    documents: Vec<Value>,
    maybe: Vec<Option<Value>>,
    floats: Vec<f64>,
    texts: Vec<Option<String>>,
    blobs: Vec<Vec<u8>>,
    times: Vec<chrono::DateTime<chrono::Utc>>,
    vector: [f32; 2],
}

fn lists() -> Lists {
    Lists {
        id: 1,
        documents: vec![json!("1"), json!("abc"), json!(null), json!({"a": [1]}), json!(1.5), json!(true)],
        maybe: vec![None, Some(json!("null")), Some(json!([null]))],
        floats: vec![f64::INFINITY, -0.0, 0.1, 1e300],
        texts: vec![Some("\\x00".into()), Some("null".into()), None, Some("1".into())],
        blobs: vec![vec![], vec![1, 255]],
        times: vec![chrono::DateTime::UNIX_EPOCH],
        vector: [f32::MIN_POSITIVE, 1.0],
    }
}

async fn database() -> Database {
    let db = barge::open("sqlite::memory:").await.unwrap();
    db.create_table::<Lists>().await.unwrap();
    db
}

#[tokio::test]
async fn lists_come_back_equal_from_json() {
    let db = database().await;
    let empty = Lists { id: 2, documents: vec![], maybe: vec![], texts: vec![], blobs: vec![], ..lists() };
    db.insert_all(&[lists(), empty.clone()]).await.unwrap();
    let found: Vec<Option<Lists>> = db.get_all(&[2, 1]).await.unwrap();
    assert_eq!(found, [Some(empty), Some(lists())]);
}

#[tokio::test]
async fn a_json_null_among_options_is_refused() {
    let db = database().await;
    let row = Lists { maybe: vec![Some(Value::Null)], ..lists() };
    let error = db.insert_all(&[row]).await.unwrap_err();
    assert_eq!((error.kind(), error.column()), (ErrorKind::InvalidValue, Some("maybe")));
}
