//! What entries and leases are called in Redis.
//!
//! A value's key is `PREFIX{=KEY}`, its lease's is `PREFIX{=KEY}lease`. In a cluster the two must be in one slot, and a key's slot goes by
//! what is between its first `{` and the first `}` behind it, unless nothing is. The `=` is for that: whatever the key's text, the part
//! in braces isn't empty, and it is the same of both, since they differ only behind all braces. No value's key is a lease's, as only
//! the one ends with a brace.

/// Names keys.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    /// The prefix holds no braces.
    pub(crate) fn new(prefix: &str) -> Self {
        Keys { prefix: prefix.to_owned() }
    }

    /// Where a value is.
    pub(crate) fn value(&self, key: &str) -> String {
        self.named(key, "")
    }

    /// Where the lease to fill it is, or the bar.
    pub(crate) fn lease(&self, key: &str) -> String {
        self.named(key, "lease")
    }

    fn named(&self, key: &str, end: &str) -> String {
        let mut name = String::with_capacity(self.prefix.len() + key.len() + end.len() + 3);
        name.push_str(&self.prefix);
        name.push_str("{=");
        name.push_str(key);
        name.push('}');
        name.push_str(end);
        name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::slots::slot_of;

    const AWKWARD: &[&str] =
        &["", "}", "{", "{}", "}{", "a}b", "{}x", "a}lease", "ä €", " ", "=", "{=a}lease"];

    #[test]
    fn keys_of_one_text_are_in_one_slot() {
        let keys = Keys::new("barge:");
        for key in AWKWARD {
            assert_eq!(slot_of(&keys.value(key)), slot_of(&keys.lease(key)), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn keys_of_any_text_are_in_one_slot_and_differ(one in "[{}=a]{0,6}(lease)?", other in "[{}=a]{0,6}(lease)?") {
            let keys = Keys::new("p");
            prop_assert_eq!(slot_of(&keys.value(&one)), slot_of(&keys.lease(&one)));
            prop_assert_ne!(keys.value(&one), keys.lease(&other));
            prop_assert_eq!(one == other, keys.value(&one) == keys.value(&other));
            prop_assert_eq!(one == other, keys.lease(&one) == keys.lease(&other));
        }
    }
}
