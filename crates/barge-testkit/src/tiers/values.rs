//! Keys and values.

use barge_core::cache::{Entry, Lease};
use bytes::Bytes;

use super::*;

/// A key that was never set has no value.
pub async fn a_missing_key_has_no_value(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(tier.read(&keys(["a", "b"])).await.unwrap(), [None, None]);
}

/// Values come in the order asked for, missing ones among them, and as often as asked for.
pub async fn values_come_in_the_order_of_their_keys(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    for key in ["a", "b", "c"] {
        put(&*tier, key, key).await;
    }
    let found = tier.read(&keys(["c", "missing", "a", "c", "b"])).await.unwrap();
    let text = |text| Some(bytes(text));
    assert_eq!(found, [text("c"), None, text("a"), text("c"), text("b")]);
}

/// Values come back byte for byte: none, every one, large ones.
pub async fn any_bytes_are_a_value(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let values = [
        Bytes::new(),
        Bytes::from(all),
        Bytes::from_static(b"\r\n$-1\r\n"),
        Bytes::from_static(b"-ERR\r\n"),
        Bytes::from(vec![0xff; 2 << 20]),
    ];
    let names: Vec<String> = (0..values.len()).map(|number| number.to_string()).collect();
    let entries = names.iter().zip(&values);
    let entries: Vec<Entry> =
        entries.map(|(key, value)| Entry { key: key.clone(), value: value.clone(), time: LONG }).collect();
    tier.lease(&names, "token", LONG).await.unwrap();
    tier.fill(&entries, "token").await.unwrap();
    assert_eq!(tier.read(&names).await.unwrap(), values.map(Some));

    let marks: Vec<(String, Bytes)> =
        entries.into_iter().rev().zip(&names).map(|(entry, key)| (key.clone(), entry.value)).collect();
    tier.mark(&marks, LONG).await.unwrap();
    let found = tier.read(&names).await.unwrap();
    assert!(marks.iter().map(|(_, value)| value).eq(found.iter().flatten()));
}

/// Keys of any text are each one's own: their values, leases and bars are in nobody's way.
pub async fn any_text_is_a_key(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    let long = "long ".repeat(4_000);
    let awkward = [
        "",
        " ",
        "a",
        "A",
        "a b",
        "{",
        "}",
        "{}",
        "}{",
        "{a}",
        "{a}b",
        "a}lease",
        "{=a}lease",
        "a}",
        "a:lease",
        "=a",
        "*",
        "a*",
        "?",
        "[a]",
        "\\",
        "\"",
        "ä",
        "日本語",
        "🦀",
        "a\nb",
        "a\r\nb",
        "orders/7",
        "orders/77",
        &long,
    ];
    for (number, key) in awkward.iter().enumerate() {
        assert_eq!(read(&*tier, key).await, None, "{key:?}");
        put(&*tier, key, &number.to_string()).await;
    }
    let names = awkward.map(str::to_owned);
    let found = tier.read(&names).await.unwrap();
    let expected: Vec<_> = (0..awkward.len()).map(|number| Some(bytes(&number.to_string()))).collect();
    assert_eq!(found, expected);
    for key in awkward {
        assert_eq!(lease(&*tier, key, "token").await, Lease::Granted, "{key:?}");
        tier.invalidate(&keys([key]), LONG).await.unwrap();
        assert_eq!(read(&*tier, key).await, None, "{key:?}");
    }
}

/// Calls over nothing succeed.
pub async fn no_keys_are_no_work(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    assert_eq!(tier.read(&[]).await.unwrap(), []);
    assert_eq!(tier.lease(&[], "token", LONG).await.unwrap(), []);
    tier.fill(&[], "token").await.unwrap();
    tier.release(&[], "token").await.unwrap();
    tier.invalidate(&[], LONG).await.unwrap();
    tier.mark(&[], LONG).await.unwrap();
}

/// A call takes as many keys as a large batch has.
pub async fn ten_thousand_keys(harness: &dyn TierHarness) {
    let tier = harness.client().await;
    let names: Vec<String> = (0..10_000).map(|number| format!("orders/{number}")).collect();
    let leases = tier.lease(&names, "token", LONG).await.unwrap();
    assert!(leases.len() == names.len() && leases.iter().all(|lease| *lease == Lease::Granted));
    let entries: Vec<Entry> = names.iter().map(|key| entry(key, key)).collect();
    tier.fill(&entries[..9_999], "token").await.unwrap();
    tier.release(&names, "token").await.unwrap();
    let found = tier.read(&names).await.unwrap();
    assert!(found[..9_999].iter().zip(&entries).all(|(found, entry)| found.as_ref() == Some(&entry.value)));
    assert_eq!(found[9_999], None);

    let (gone, left) = names.split_at(5_000);
    tier.invalidate(gone, LONG).await.unwrap();
    let found = tier.read(&names).await.unwrap();
    assert_eq!(found.iter().flatten().count(), left.len() - 1);
    assert!(found[..5_000].iter().all(Option::is_none));
    let leases = tier.lease(&names, "token", LONG).await.unwrap();
    assert!(leases[..5_000].iter().all(|lease| *lease == Lease::Barred));
    assert!(leases[5_000..].iter().all(|lease| *lease == Lease::Granted));
}
